//! A refused connection that says why. The record is written before; nothing goes upstream.
//!
//! HTTP clients get an answer that they can show: where they speak TLS, the TLS is ended here
//! first. ssh gets a disconnect message with the reason. Everything else is closed.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Connection;
use crate::http::body::Download;
use crate::http::refuse::Refusal;
use crate::http::serve;
use crate::outcome::Stage;
use crate::policy::{Denial, Host};
use crate::shutdown::Watcher;
use crate::tls::client_hello::ServerName;
use crate::tls::peek::{Opening, Rewind, peek};
use crate::tls::terminate::Spoken;

/// How long a refused connection may stay to be told why.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a refused connection may take to say its first word. Who speaks first does so at once;
/// who waits for the server's first line waits in vain and is closed after this.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// The port on which the client may wait for the server's first line.
const SSH: u16 = 22;

/// Nothing was read yet: finds out what is spoken and answers in it.
pub(super) async fn explain<IO>(
    connection: Arc<Connection>,
    host: Host,
    denial: Denial,
    io: IO,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if connection.port() == SSH {
        return disconnect_ssh(Rewind::untouched(io), &host, &denial).await;
    }
    let (opening, io) = peek(io, FIRST_WORD).await;
    match opening {
        Ok(Opening::Tls(hello)) => {
            let host = match (host, hello.server_name) {
                (Host::Ip(_), ServerName::Name(name)) => Host::Name(name),
                (host, _) => host,
            };
            over_tls(connection, host, denial, io, shutdown).await;
        }
        Ok(Opening::Plain) => {
            over_plain(connection, host, denial, Spoken::H1, io, shutdown).await;
        }
        Ok(Opening::PlainH2) => {
            over_plain(connection, host, denial, Spoken::H2, io, shutdown).await;
        }
        Err(_) => {}
    }
}

/// Ends the TLS as `host`, which the client asked for, and refuses every request inside.
pub(super) async fn over_tls<IO>(
    connection: Arc<Connection>,
    host: Host,
    denial: Denial,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Ok((stream, spoken)) = connection.handshake(&host, io).await {
        answer_all(&connection, host, denial, Stage::Connect, spoken, stream, shutdown).await;
    }
}

/// Refuses every request on a connection without TLS, or tells an ssh client.
pub(super) async fn over_plain<IO>(
    connection: Arc<Connection>,
    host: Host,
    denial: Denial,
    spoken: Spoken,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if io.pending().starts_with(b"SSH-") {
        return disconnect_ssh(io, &host, &denial).await;
    }
    if io.pending().first().is_some_and(u8::is_ascii_uppercase) {
        answer_all(&connection, host, denial, Stage::Connect, spoken, io, shutdown).await;
    }
}

async fn answer_all<IO>(
    connection: &Connection,
    host: Host,
    denial: Denial,
    layer: Stage,
    spoken: Spoken,
    io: IO,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let port = connection.port();
    let refused = Arc::new((host, denial));
    let answer = move |request: Request<Incoming>| {
        let refused = Arc::clone(&refused);
        async move {
            let (host, denial) = &*refused;
            refusal(host, port, denial, layer, &request)
        }
    };
    let limits =
        serve::ServeLimits { head_timeout: PATIENCE, ..connection.limits(&connection.agent()) };
    let leave = async {
        let mut watch = connection.watch.clone();
        tokio::select! {
            // What was refused may be allowed now: the next connection will tell.
            _ = watch.changed() => {}
            () = shutdown.draining() => {}
        }
    };
    // How a refused connection ends changes nothing: its record is written.
    let _ = serve::serve(io, spoken, &limits, answer, leave).await;
}

fn refusal(
    host: &Host,
    port: u16,
    denial: &Denial,
    layer: Stage,
    request: &Request<Incoming>,
) -> Response<Download> {
    Refusal {
        reason: denial.reason,
        layer,
        host: Some(host),
        port,
        method: request.method(),
        path: request.uri().path(),
        rule: denial.rule.as_deref(),
        message: denial.message.as_deref(),
    }
    .response(request.headers(), request.version())
    .map(Download::from)
}

/// RFC 4253: after the two version lines either side may send SSH_MSG_DISCONNECT in the clear,
/// and clients show its text.
async fn disconnect_ssh<IO>(mut io: Rewind<IO>, host: &Host, denial: &Denial)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let telling = async {
        let message = denial.message.as_deref().unwrap_or(denial.reason.meaning());
        let text = format!("egret denied {host} ({}): {message}", denial.reason);
        io.write_all(b"SSH-2.0-egret\r\n").await?;
        io.write_all(&ssh_disconnect(&text)).await?;
        io.flush().await?;
        // Closing with unread bytes would reset the connection and lose the message.
        let mut rest = Vec::new();
        io.shutdown().await?;
        (&mut io).take(64 * 1024).read_to_end(&mut rest).await
    };
    let _ = tokio::time::timeout(PATIENCE, telling).await;
}

/// An unencrypted binary packet (RFC 4253 section 6) with SSH_MSG_DISCONNECT (section 11.1).
fn ssh_disconnect(text: &str) -> Vec<u8> {
    const SSH_MSG_DISCONNECT: u8 = 1;
    const HOST_NOT_ALLOWED_TO_CONNECT: u32 = 1;
    let text = &text.as_bytes()[..text.len().min(1024)];
    let mut payload = vec![SSH_MSG_DISCONNECT];
    payload.extend_from_slice(&HOST_NOT_ALLOWED_TO_CONNECT.to_be_bytes());
    payload.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    payload.extend_from_slice(text);
    payload.extend_from_slice(&0u32.to_be_bytes()); // no language tag
    // Length, padding length, payload and padding together are a multiple of 8; padding is >= 4.
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(0);
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap_or(4));
    packet.extend_from_slice(&payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_packets_are_framed() {
        for n in 0..40 {
            let packet = ssh_disconnect(&"x".repeat(n));
            assert_eq!(packet.len() % 8, 0, "{n}");
            let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
            assert_eq!(length + 4, packet.len());
            assert!((4..=255).contains(&packet[4]) && packet[5] == 1);
        }
    }
}

//! A refused connection that says why. The record is written before; nothing goes upstream.
//!
//! HTTP clients get an answer that they can show: where they speak TLS, the TLS is ended here
//! first. ssh, PostgreSQL, MySQL and Redis get the error message of their protocol (`words`), which
//! their clients show. Everything else is closed.

mod words;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Connection;
use crate::http::body::Download;
use crate::http::refuse::{Audience, Refusal};
use crate::http::serve;
use crate::outcome::Stage;
use crate::policy::{Denial, Host};
use crate::shutdown::Watcher;
use crate::tls::client_hello::ServerName;
use crate::tls::peek::{Opening, Rewind, peek};
use crate::tls::terminate::Spoken;
use words::Postgres;

/// How long a refused connection may stay to be told why.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a refused connection may take to say its first word. Who speaks first does so at once;
/// who waits for the server's first line waits in vain and is closed after this.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// The ports on which the client may wait for the server's first word.
const SSH: u16 = 22;
const MYSQL: u16 = 3306;

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
    let text = in_one_line(&host, &denial);
    match connection.port() {
        SSH => return tell(Rewind::untouched(io), words::ssh(&text)).await,
        MYSQL => return tell(Rewind::untouched(io), words::mysql(&text)).await,
        _ => {}
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

/// Refuses every request on a connection without TLS, or tells a client of another protocol.
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
    let text = in_one_line(&host, &denial);
    let first = io.pending();
    if first.starts_with(b"SSH-") {
        return tell(io, words::ssh(&text)).await;
    }
    if words::reads_as_postgres(first).is_some() {
        return tell_postgres(io, &text).await;
    }
    if words::reads_as_redis(first) {
        return tell(io, words::redis(&text)).await;
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
    .response(Audience::of(request.headers()), request.version())
    .map(Download::from)
}

/// What a person reads of it in a protocol that has one line for it.
fn in_one_line(host: &Host, denial: &Denial) -> String {
    let message = denial.message.as_deref().unwrap_or(denial.reason.meaning());
    format!("egret denied {host} ({}): {message}", denial.reason)
}

/// Says it and closes. Closing with unread bytes would reset the connection and lose what was said.
async fn tell<IO>(mut io: Rewind<IO>, said: Vec<u8>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let telling = async {
        io.write_all(&said).await?;
        io.flush().await?;
        io.shutdown().await?;
        (&mut io).take(64 * 1024).read_to_end(&mut Vec::new()).await
    };
    let _ = tokio::time::timeout(PATIENCE, telling).await;
}

/// The client may ask for encryption first, for each kind that it knows; an error is shown only
/// in answer to the message that begins a session.
async fn tell_postgres<IO>(mut io: Rewind<IO>, text: &str)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let asked = async {
        for _ in 0..3 {
            let mut first = [0; 8];
            io.read_exact(&mut first).await?;
            if words::reads_as_postgres(&first) != Some(Postgres::Encryption) {
                break;
            }
            io.write_all(b"N").await?;
            io.flush().await?;
        }
        std::io::Result::Ok(())
    };
    if tokio::time::timeout(PATIENCE, asked).await.is_ok_and(|asked| asked.is_ok()) {
        tell(io, words::postgres(text)).await;
    }
}

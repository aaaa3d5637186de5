//! Upstream connections that are ready for another request, kept apart per agent and credentials.
//!
//! HTTP/2 connections are shared by concurrent requests; HTTP/1 connections wait in a list. What
//! one agent opened is never used for another: connections live in the agent's own [`Shelf`].
//! Within it, requests that carry other credentials use other connections, because some servers
//! take whoever authenticated first for the sender of all that follows (NTLM, Negotiate).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::dial::{DialError, Dialer};
use crate::http::upload::Upload;
use crate::outcome::Reason;
use crate::policy::{Host, Permit, Protocol, UpstreamSettings};
use crate::tls::cause;
use crate::tls::upstream::{Offer, Sessions, UpstreamTls, UpstreamTlsError};

/// A connection that has waited longer is not used again: the upstream may be closing it.
const IDLE: Duration = Duration::from_secs(30);

/// Waiting HTTP/1 connections per destination.
const WAITING: usize = 32;

/// Flow-control windows that do not stall a download on a long path.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Bytes of the head of an answer over HTTP/2, as for an agent's request. HTTP/1 has hyper's own
/// limit of about 400 KiB.
const ANSWER_HEAD: u32 = 64 << 10;

/// Requests on one HTTP/2 connection, after which a new one is made and the old one ends with what
/// it has. Servers end connections after a number of requests too (nginx after 1000), and some
/// leave what is on its way then unanswered; nothing of that may be sent again.
const REQUESTS: usize = 500;

/// What makes one upstream connection unlike another, within one agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    host: Host,
    port: u16,
    tls: bool,
    offer: Offer,
    credentials: Attached,
}

/// The names of the credentials that a request carries, in order.
type Attached = Vec<Arc<str>>;

/// The connections of one agent under one policy, and the TLS sessions that they may resume. A
/// reloaded policy gets a new shelf, because its upstream settings may differ.
#[derive(Debug, Default)]
pub struct Shelf {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    sessions: Mutex<HashMap<(Attached, Offer), Sessions>>,
}

#[derive(Debug, Default)]
struct Slot {
    shared: Mutex<Option<Shared>>,
    waiting: Mutex<Vec<(http1::SendRequest<Upload>, Instant)>>,
    /// Held while a connection is made that may turn out to be shareable.
    connecting: tokio::sync::Mutex<()>,
}

/// An HTTP/2 connection, and the requests that it may still get.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    left: usize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tls(#[from] UpstreamTlsError),
    #[error("the TLS handshake with the upstream took too long")]
    Timeout,
    #[error("the upstream does not speak HTTP")]
    Http(hyper::Error),
}

impl ConnectError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(e) => e.reason(),
            Self::Tls(e) => e.reason(),
            Self::Timeout => Reason::UpstreamTimeout,
            Self::Http(_) => Reason::UpstreamProtocol,
        }
    }
}

/// What is needed to make a connection.
#[derive(Debug)]
pub struct Connector {
    pub dialer: Dialer,
    pub tls: UpstreamTls,
    /// For the TLS handshake, where `[upstream] tls_timeout` does not say.
    pub handshake: Duration,
}

enum Sender {
    H1(http1::SendRequest<Upload>),
    H2(http2::SendRequest<Upload>),
}

/// A connection for one request.
pub struct Lease {
    sender: Sender,
    slot: Arc<Slot>,
    /// It has carried a request before.
    pub reused: bool,
}

/// Which connection a request needs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub permit: &'a Permit,
    pub offer: Offer,
    pub settings: &'a UpstreamSettings,
    /// The credentials that are in the request.
    pub attached: &'a [Arc<str>],
}

impl Shelf {
    /// A connection for the permit: one that is there, or a new one, dialled and verified.
    pub async fn lease(
        &self,
        connector: &Connector,
        wanted: Wanted<'_>,
    ) -> Result<Lease, ConnectError> {
        let (slot, sessions) = self.slot(wanted);
        if let Some(lease) = slot.ready() {
            return Ok(lease);
        }
        if wanted.offer == Offer::H1 {
            return slot.connect(connector, wanted, &sessions).await;
        }
        let _one_at_a_time = slot.connecting.lock().await;
        match slot.ready() {
            Some(lease) => Ok(lease),
            None => slot.connect(connector, wanted, &sessions).await,
        }
    }

    fn slot(&self, wanted: Wanted<'_>) -> (Arc<Slot>, Sessions) {
        let Wanted { permit, offer, attached, .. } = wanted;
        let mut credentials = attached.to_vec();
        credentials.sort_unstable();
        let sessions =
            lock(&self.sessions).entry((credentials.clone(), offer)).or_default().clone();
        let key = Key {
            host: permit.host().clone(),
            port: permit.port(),
            tls: permit.protocol() == Protocol::Https,
            offer,
            credentials,
        };
        (Arc::clone(lock(&self.slots).entry(key).or_default()), sessions)
    }

    /// Closes what has waited too long.
    pub fn sweep(&self) {
        lock(&self.slots).retain(|_, slot| {
            let mut waiting = lock(&slot.waiting);
            waiting.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
            let shared = lock(&slot.shared).as_ref().is_some_and(|s| !s.sender.is_closed());
            shared || !waiting.is_empty() || Arc::strong_count(slot) > 1
        });
    }
}

impl Slot {
    /// A connection that can take a request now.
    fn ready(self: &Arc<Self>) -> Option<Lease> {
        let lease = |sender| Lease { sender, slot: Arc::clone(self), reused: true };
        {
            let mut shared = lock(&self.shared);
            match shared.as_mut() {
                Some(Shared { sender, left }) if *left > 0 && !sender.is_closed() => {
                    *left -= 1;
                    return Some(lease(Sender::H2(sender.clone())));
                }
                Some(_) => *shared = None,
                None => {}
            }
        }
        let mut waiting = lock(&self.waiting);
        waiting.retain(|(sender, since)| !sender.is_closed() && since.elapsed() < IDLE);
        // The one that was used last is the most likely to be still open.
        let at = waiting.iter().rposition(|(sender, _)| sender.is_ready())?;
        Some(lease(Sender::H1(waiting.swap_remove(at).0)))
    }

    async fn connect(
        self: &Arc<Self>,
        connector: &Connector,
        wanted: Wanted<'_>,
        sessions: &Sessions,
    ) -> Result<Lease, ConnectError> {
        let Wanted { permit, offer, settings, .. } = wanted;
        let stream = connector.dialer.dial(permit, settings).await?;
        let sender = if permit.protocol() == Protocol::Https {
            let handshake = connector.tls.connect(stream, permit.host(), offer, settings, sessions);
            let limit = settings.times.tls.unwrap_or(connector.handshake);
            let stream = tokio::time::timeout(limit, handshake)
                .await
                .map_err(|_| ConnectError::Timeout)??;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if h2 { self.share(stream).await? } else { begin_h1(stream).await? }
        } else if offer == Offer::H2 {
            self.share(stream).await?
        } else {
            begin_h1(stream).await?
        };
        Ok(Lease { sender, slot: Arc::clone(self), reused: false })
    }

    async fn share<IO>(&self, io: IO) -> Result<Sender, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(ANSWER_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(no_http)?;
        tokio::spawn(connection);
        *lock(&self.shared) = Some(Shared { sender: sender.clone(), left: REQUESTS - 1 });
        Ok(Sender::H2(sender))
    }
}

async fn begin_h1<IO>(io: IO) -> Result<Sender, ConnectError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(io)).await.map_err(no_http)?;
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::H1(sender))
}

fn no_http(error: hyper::Error) -> ConnectError {
    cause::beneath(&error).map_or(ConnectError::Http(error), ConnectError::Tls)
}

impl Lease {
    /// Whether requests are sent as HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::H2(_))
    }

    /// Sends one request. The error holds the request where nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        }
    }

    /// Nothing was heard over the connection for too long: it may be dead, so no other request may
    /// follow on it. Those that are under way are not disturbed.
    pub fn abandon(self) {
        if self.is_h2() {
            *lock(&self.slot.shared) = None;
        }
    }

    /// Gives the connection back for another request. Only when both bodies are at their end;
    /// otherwise dropping the lease closes an HTTP/1 connection, and a shared one stays.
    pub fn give_back(self) {
        if let Sender::H1(sender) = self.sender {
            let mut waiting = lock(&self.slot.waiting);
            if waiting.len() < WAITING && !sender.is_closed() {
                waiting.push((sender, Instant::now()));
            }
        }
    }
}

/// No invariant spans a panic in these short sections.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

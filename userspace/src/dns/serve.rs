//! Moves queries and answers over UDP and TCP. The sockets are made by the caller, inside the
//! agent's network namespace; sockets keep the namespace they were made in, so this runs outside.
//!
//! One agent cannot stop this for itself by anything but flooding it: a slow or silent TCP client
//! is closed after [`Limits::idle`], at most [`Limits::connections`] are open, a message that is
//! no question closes its TCP connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, Answered, Transport, answer};
use super::pool::Names;
use super::record::Recorder;
use crate::policy::{HostName, UnmatchedNames};
use crate::shutdown::Watcher;

/// What TCP clients may take, on all listeners of one [`serve`] call together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A client must deliver each query, and take each answer, within this time.
    pub idle: Duration,
    /// The most connections open at once; one more is closed at once.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(10), connections: 64 }
    }
}

/// Larger than any query a client sends; a longer datagram is cut by the kernel and then refused
/// as malformed.
const MAX_UDP_QUERY: usize = 4096;

/// The pause after a failed receive or accept (too many open files, for example).
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// Answers queries. [`Server`] is the one for a single agent; with several agents behind the same
/// sockets, an implementation looks the agent up by `from` first.
pub trait Handler: Send + Sync + 'static {
    /// Answers one query that came from `from`. Must not block.
    fn handle(&self, query: &[u8], transport: Transport, from: SocketAddr) -> Answer;
}

/// What an agent's policy says of names. Asked for each query, since it may be replaced.
pub trait NameView: Send + Sync {
    /// Whether some rule could allow the name.
    fn allows(&self, name: &HostName) -> bool;

    /// What names get that no rule could allow.
    fn unmatched(&self) -> UnmatchedNames;
}

/// The names of one agent: its pool, its policy's view of names and its recorder.
pub struct Server {
    names: Arc<Names>,
    view: Box<dyn NameView>,
    recorder: Recorder,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("names", &self.names.len())
            .field("unmatched", &self.view.unmatched())
            .finish_non_exhaustive()
    }
}

impl Server {
    /// `names` is shared with the interceptor, which reads the name of a dialled address from it.
    pub fn new(names: Arc<Names>, view: Box<dyn NameView>, recorder: Recorder) -> Self {
        Self { names, view, recorder }
    }

    /// Refusals that were not recorded because there were too many.
    pub fn unrecorded(&self) -> u64 {
        self.recorder.unrecorded()
    }
}

impl Handler for Server {
    fn handle(&self, query: &[u8], transport: Transport, _from: SocketAddr) -> Answer {
        let allowed = |name: &HostName| self.view.allows(name);
        let answer = answer(query, transport, &self.names, &allowed, self.view.unmatched());
        self.recorder.record(&answer.outcome);
        answer
    }
}

/// Serves until the drain starts; then open connections are closed and the sockets dropped.
pub async fn serve<H: Handler>(
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    handler: Arc<H>,
    shutdown: Watcher,
) {
    serve_within(Limits::default(), udp, tcp, handler, shutdown).await;
}

/// [`serve`] with other limits.
pub async fn serve_within<H: Handler>(
    limits: Limits,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    handler: Arc<H>,
    mut shutdown: Watcher,
) {
    let mut tasks = JoinSet::new();
    for socket in udp {
        tasks.spawn(serve_udp(socket, Arc::clone(&handler)));
    }
    let slots = Arc::new(Semaphore::new(limits.connections));
    for listener in tcp {
        tasks.spawn(serve_tcp(listener, Arc::clone(&handler), limits.idle, Arc::clone(&slots)));
    }
    shutdown.draining().await;
    tasks.shutdown().await; // connections belong to the tasks of their listeners
}

async fn serve_udp<H: Handler>(socket: UdpSocket, handler: Arc<H>) {
    let mut buffer = [0; MAX_UDP_QUERY];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "receiving a DNS query failed");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let Some(answer) = guarded(&*handler, &buffer[..len], Transport::Udp, from) else {
            continue;
        };
        if let Some(bytes) = answer.bytes
            && let Err(error) = socket.send_to(&bytes, from).await
        {
            tracing::debug!(%error, "sending a DNS answer failed");
        }
    }
}

async fn serve_tcp<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    idle: Duration,
    slots: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {} // forget those that have ended
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a DNS connection failed");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            continue; // at the limit: this connection is closed, the open ones go on
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let _slot = slot;
            if let Err(error) = converse(stream, from, idle, &*handler).await {
                tracing::debug!(%error, "a DNS connection ended early");
            }
        });
    }
}

/// Answers the queries of one TCP connection in order, until the client closes it, is too slow or
/// sends what is no question.
async fn converse<H: Handler>(
    mut stream: TcpStream,
    from: SocketAddr,
    idle: Duration,
    handler: &H,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(query) = timeout(idle, read_query(&mut stream)).await?? else {
            return Ok(());
        };
        let Some(answer) = guarded(handler, &query, Transport::Tcp, from) else {
            return Ok(());
        };
        if let Some(bytes) = answer.bytes {
            timeout(idle, stream.write_all(&framed(&bytes)?)).await??;
        }
        if matches!(answer.outcome.answered, Answered::Malformed | Answered::Nothing) {
            return stream.shutdown().await;
        }
    }
}

/// One query behind its length of two bytes (RFC 1035, 4.2.2); `None` when the client has closed.
async fn read_query(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}

fn framed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), bytes].concat())
}

/// The handler's answer, or `None` if it panicked. It parses hostile bytes; a bug there must cost
/// one answer, not the agent's names.
fn guarded<H: Handler>(
    handler: &H,
    query: &[u8],
    transport: Transport,
    from: SocketAddr,
) -> Option<Answer> {
    let answer = catch_unwind(AssertUnwindSafe(|| handler.handle(query, transport, from)));
    if answer.is_err() {
        tracing::error!("answering a DNS query panicked; it stays unanswered");
    }
    answer.ok()
}

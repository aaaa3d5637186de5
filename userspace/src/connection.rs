//! The spine: the life of a connection, one call per stage.
//!
//! [`serve`] is given what the kernel said of a connection (the [`Flow`]) and its bytes. It asks
//! policy at each layer that becomes known, opens the connection only as far as policy needs, and
//! either passes bytes on, decides requests one by one (`exchange`), or refuses so that the agent
//! can read why (`refusing`). Whatever way it ends, it is in the audit log once.

mod answer;
mod declined;
mod exchange;
mod interceptor;
mod opaque;
mod refusing;
mod standing;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};

pub use interceptor::{AgentState, Interceptor, InterceptorParts, NameOf, Settings};

use crate::audit::{Draft, Event};
use crate::http::serve::{self, ServeLimits};
use crate::identify::{Agent, AgentWatch, Flow};
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{self, Denial, Facts, Host, Layer, UpstreamSettings, Verdict};
use crate::shutdown::Watcher;
use crate::tls::client_hello::{ClientHello, ServerName};
use crate::tls::peek::{Opening, PeekError, Rewind, peek};
use crate::tls::terminate::Spoken;

/// What one connection carries from stage to stage.
struct Connection {
    interceptor: Arc<Interceptor>,
    flow: Flow,
    state: Arc<AgentState>,
    /// The name behind the synthetic address that the agent dialled, or a literal address.
    dialled: Host,
    /// Told of every agent after the one that was there when the connection was.
    watch: AgentWatch,
    /// Requests that were read; each has its own record.
    requests: AtomicU64,
}

/// The destination of a connection that policy opened: what its requests must agree with.
struct Site {
    /// The name that DNS or SNI gave, or the literal address that the agent dialled.
    host: Host,
    /// `host` is a literal address on plain HTTP: the Host header of a request may name it.
    nameable: bool,
    tls: bool,
    spoken: Spoken,
}

/// Serves one redirected connection of an agent until it ends.
pub async fn serve<IO>(interceptor: Arc<Interceptor>, flow: Flow, io: IO, mut shutdown: Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection::new(interceptor, flow));
    let Some(_place) = connection.interceptor.place() else {
        return connection.refused(&Denial::of(Reason::Overloaded), Stage::Connect, None);
    };
    let host = connection.dialled.clone();
    match connection.decide(&host, Layer::Connect) {
        Verdict::Allow(permit) => {
            let io = Rewind::untouched(io);
            opaque::relay(&connection, &permit, None, io, &mut shutdown).await;
        }
        Verdict::Inspect => open(connection, host, io, &mut shutdown).await,
        Verdict::Deny(denial) | Verdict::Ask(denial) => {
            connection.refused(&denial, Stage::Connect, Some(&host));
            refusing::explain(connection, host, denial, io, &mut shutdown).await;
        }
    }
}

/// Reads what is spoken and goes on from there.
async fn open<IO>(connection: Arc<Connection>, host: Host, io: IO, shutdown: &mut Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (opening, io) = peek(io, connection.interceptor.settings.peek).await;
    match opening {
        Ok(Opening::Tls(hello)) => open_tls(connection, &host, &hello, io, shutdown).await,
        Ok(Opening::Plain) => open_plain(connection, host, Spoken::H1, io, shutdown).await,
        Ok(Opening::PlainH2) => open_plain(connection, host, Spoken::H2, io, shutdown).await,
        Err(error) => connection.not_opened(&error, &host),
    }
}

/// A ClientHello was read: its name must agree with the name that was dialled.
async fn open_tls<IO>(
    connection: Arc<Connection>,
    dialled: &Host,
    hello: &ClientHello,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = match agreed_name(dialled, &hello.server_name) {
        Ok(host) => host,
        Err(reason) => {
            let denial = Denial::of(reason);
            connection.refused(&denial, Stage::Tls, Some(dialled));
            let named = match &hello.server_name {
                ServerName::Name(name) => Host::Name(name.clone()),
                ServerName::Absent | ServerName::Malformed => dialled.clone(),
            };
            return refusing::over_tls(connection, named, denial, io, shutdown).await;
        }
    };
    match connection.decide(&host, Layer::Opened { tls: true }) {
        Verdict::Allow(_) if hello.ech => {
            // Unopened, the inner name would reach the upstream and nobody would have decided it.
            connection.refused(&Denial::of(Reason::EncryptedHello), Stage::Tls, Some(&host));
        }
        Verdict::Allow(permit) => {
            opaque::relay(&connection, &permit, Some((&host, true)), io, shutdown).await;
        }
        Verdict::Inspect => terminate(connection, host, io, shutdown).await,
        Verdict::Deny(denial) | Verdict::Ask(denial) => {
            connection.refused(&denial, Stage::Tls, Some(&host));
            refusing::over_tls(connection, host, denial, io, shutdown).await;
        }
    }
}

/// The host that policy decides on once a ClientHello is there: the name that was dialled, or for
/// a literal address the name that SNI gives. A server name that egret cannot read may be another
/// host for a server that can, so it never agrees.
fn agreed_name(dialled: &Host, asked: &ServerName) -> Result<Host, Reason> {
    match (dialled, asked) {
        (Host::Name(name), ServerName::Name(sni)) if name != sni => Err(Reason::NameMismatch),
        (Host::Name(_), ServerName::Malformed) => Err(Reason::NameMismatch),
        (Host::Name(_), ServerName::Name(_) | ServerName::Absent) => Ok(dialled.clone()),
        (Host::Ip(_), ServerName::Name(sni)) => Ok(Host::Name(sni.clone())),
        (Host::Ip(_), ServerName::Absent) => Ok(dialled.clone()),
        (Host::Ip(_), ServerName::Malformed) => Err(Reason::NameMissing),
    }
}

/// Ends the agent's TLS with a leaf for `host` and serves the requests inside.
async fn terminate<IO>(
    connection: Arc<Connection>,
    host: Host,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match connection.handshake(&host, io).await {
        Ok((stream, spoken)) => {
            let site = Site { host, nameable: false, tls: true, spoken };
            requests(connection, site, stream, shutdown).await;
        }
        Err(why) => {
            let denial = Denial { message: Some(why), ..Denial::of(Reason::TlsHandshake) };
            connection.refused(&denial, Stage::Tls, Some(&host));
        }
    }
}

/// Plain bytes were read: HTTP, or nothing that egret opens.
async fn open_plain<IO>(
    connection: Arc<Connection>,
    host: Host,
    spoken: Spoken,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match connection.decide(&host, Layer::Opened { tls: false }) {
        Verdict::Allow(permit) => {
            opaque::relay(&connection, &permit, Some((&host, false)), io, shutdown).await;
        }
        Verdict::Inspect => {
            let nameable = matches!(host, Host::Ip(_));
            let site = Site { host, nameable, tls: false, spoken };
            requests(connection, site, io, shutdown).await;
        }
        Verdict::Deny(denial) | Verdict::Ask(denial) => {
            connection.refused(&denial, Stage::Connect, Some(&host));
            refusing::over_plain(connection, host, denial, spoken, io, shutdown).await;
        }
    }
}

/// Decides and forwards the requests of a connection, each by itself.
async fn requests<IO>(connection: Arc<Connection>, site: Site, io: IO, shutdown: &mut Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (spoken, site) = (site.spoken, Arc::new(site));
    let answer = {
        let (connection, site) = (Arc::clone(&connection), Arc::clone(&site));
        move |request| exchange::answer(Arc::clone(&connection), Arc::clone(&site), request)
    };
    let limits = connection.limits(&connection.agent());
    let mut denied = None;
    let leave = async {
        let still = |agent: &_| connection.is_open(agent, &site);
        tokio::select! {
            denial = standing::over(connection.watch.clone(), still) => denied = Some(denial),
            () = shutdown.draining() => {}
        }
    };
    let ended = serve::serve(io, spoken, &limits, answer, leave).await;
    connection.served(&site, denied, ended.err());
}

impl Connection {
    fn new(interceptor: Arc<Interceptor>, flow: Flow) -> Self {
        let watch = flow.agent.watch(); // before anything is decided
        let state = interceptor.agent_state(&flow.agent);
        let ip: IpAddr = flow.original.0.ip().to_canonical();
        let dialled = interceptor.names.name_of(ip).map_or(Host::Ip(ip), Host::Name);
        Self { interceptor, flow, state, dialled, watch, requests: AtomicU64::new(0) }
    }

    fn port(&self) -> u16 {
        self.flow.original.0.port()
    }

    /// What the operator says about upstreams. Only the outermost policy's word counts: a
    /// delegated one, which the agent may have written, must not lead names elsewhere.
    fn upstream<'a>(&'a self, agent: &'a Agent) -> &'a UpstreamSettings {
        agent.chain.first().map_or(&self.interceptor.no_upstream, |l| &l.policy.upstream)
    }

    /// How much and how long, for HTTP: the interceptor's own limits, and the outermost policy's.
    fn limits(&self, agent: &Agent) -> ServeLimits {
        let limits = self.interceptor.settings.serve;
        agent.chain.first().map_or(limits, |l| limits.with(&l.policy.http))
    }

    /// The agent as it is now.
    fn agent(&self) -> Arc<Agent> {
        self.flow.agent.current()
    }

    fn decide(&self, host: &Host, layer: Layer) -> Verdict {
        self.decide_by(&self.agent(), host, layer)
    }

    fn decide_by(&self, agent: &Agent, host: &Host, layer: Layer) -> Verdict {
        let facts = Facts { layer, host, port: self.port(), request: None };
        policy::decide(&agent.policies(), &facts)
    }

    /// A record of this connection: who, and the address that was dialled.
    fn draft(&self, event: Event, decision: Decision) -> Draft {
        Draft::new(event, decision).flow(&self.flow)
    }

    /// Records that the connection was refused before any request.
    fn refused(&self, denial: &Denial, layer: Stage, host: Option<&Host>) {
        let mut draft = self.draft(Event::Connect, Decision::Deny).denial(denial).layer(layer);
        if let Some(host) = host {
            draft = draft.host(host);
        }
        self.note(draft);
    }

    /// Records a connection that ended before it was known what it speaks.
    fn not_opened(&self, error: &PeekError, host: &Host) {
        let reason = match error {
            PeekError::Closed | PeekError::Io(_) => {
                let draft = self.draft(Event::Connect, Decision::Note).host(host);
                return self.note(draft.reason(Reason::Aborted).layer(Stage::Connect));
            }
            PeekError::Timeout => Reason::ClientTimeout,
            PeekError::Malformed(_) => Reason::MalformedTls,
        };
        let denial = Denial { message: Some(error.to_string()), ..Denial::of(reason) };
        self.refused(&denial, Stage::Tls, Some(host));
    }

    /// Records a connection on which no request was read; requests have records of their own.
    /// `denied`: why it was ended, if a new policy did it.
    fn served(&self, site: &Site, denied: Option<Denial>, error: Option<hyper::Error>) {
        let host = &site.host;
        let malformed = error.as_ref().is_some_and(|e| e.is_parse() || e.is_parse_too_large());
        if malformed {
            let denial = Denial {
                message: error.map(|e| e.to_string()),
                ..Denial::of(Reason::MalformedRequest)
            };
            return self.refused(&denial, Stage::Request, Some(host));
        }
        if self.requests.load(Ordering::Relaxed) == 0 {
            if let Some(denial) = denied {
                let layer = if site.tls { Stage::Tls } else { Stage::Connect };
                return self.refused(&denial, layer, Some(host));
            }
            let reason = match error {
                Some(e) if e.is_timeout() => Reason::ClientTimeout,
                Some(_) | None => Reason::Aborted,
            };
            let draft = self.draft(Event::Connect, Decision::Note).host(host).reason(reason);
            self.note(draft.layer(Stage::Request));
        }
    }

    /// Writes a record that nothing waits for. Nothing goes upstream after it, so a failure to
    /// write leaves nothing undone; the log itself reports it.
    fn note(&self, draft: Draft) {
        if let Err(error) = self.interceptor.audit.record(draft) {
            tracing::error!("a refusal could not be recorded: {error}");
        }
    }
}

/// The log reports its own failures; an outcome is not a condition of anything.
fn record<T, E>(_: Result<T, E>) {}

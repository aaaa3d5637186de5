//! Carries out the warden's orders, one after the other, on the runtime that also serves: a
//! runtime that hangs answers no tick, and the kernel closes.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::moment::Moment;
use super::wire::{AgentOrder, LISTENERS, LinkOrder, Note, NoteKind, Numbered, Order, Report};
use crate::audit::{Draft, Event};
use crate::control::frame;
use crate::identify::{Agent, AgentCell, AgentLink, CgroupId, NetnsCookie, SessionId};
use crate::inject::CredentialSet;
use crate::outcome::Stage;
use crate::policy::UnmatchedNames;
use crate::serve::{Service, Shared, Sockets, kept, watch};
use crate::shutdown;

/// How long the connections of an agent that is removed may take to end.
const DRAIN: Duration = Duration::from_secs(2);

/// The agents that are served, and what they share.
pub(super) struct Steward {
    shared: Shared,
    /// The folder of the names of each agent.
    names: PathBuf,
    agents: Arc<Agents>,
}

/// By the id of their cgroup.
#[derive(Default)]
struct Agents(Mutex<HashMap<CgroupId, Arc<Service>>>);

impl Agents {
    fn lock(&self) -> MutexGuard<'_, HashMap<CgroupId, Arc<Service>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl watch::Services for Agents {
    fn find(&self, agent: Option<CgroupId>) -> Option<Arc<Service>> {
        self.lock().get(&agent?).cloned()
    }

    fn all(&self) -> Vec<Arc<Service>> {
        self.lock().values().cloned().collect()
    }
}

/// Serves until the warden says stop, or is gone.
///
/// # Errors
/// When the socket fails in another way.
pub(super) async fn serve(socket: OwnedFd, steward: Steward) -> io::Result<()> {
    // A packet socket; of tokio's stream only its readiness is used, never its bytes.
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let socket = UnixStream::from_std(socket)?;
    let (trigger, watcher) = shutdown::channel();
    let services: Arc<dyn watch::Services> = Arc::clone(&steward.agents) as _;
    let feed = &steward.shared.feed;
    let audit = steward.shared.audit.clone();
    let recorder = Arc::new(watch::Recorder::new(Arc::clone(feed), Arc::clone(&services), audit));
    let mut timers = JoinSet::new();
    timers.spawn(Arc::clone(&recorder).run(watcher));
    timers.spawn(watch::sweep(services, Arc::clone(feed)));
    loop {
        let receive = || frame::receive::<Numbered<Order>>(&socket, frame::ALL_POLICIES);
        let received = socket.async_io(Interest::READABLE, receive).await?;
        let Some((Numbered { n, what }, fds)) = received else { break };
        let stop = matches!(what, Order::Stop);
        let report = steward.carry_out(what, fds).await;
        let answer = Numbered { n, what: report };
        socket.async_io(Interest::WRITABLE, || frame::send(&socket, &answer, &[])).await?;
        if stop {
            break;
        }
    }
    trigger.drain();
    timers.shutdown().await;
    recorder.drain();
    let last = Draft::note(Event::SessionEnd).message("the daemon ends");
    if let Err(error) = steward.shared.audit.close_with(last) {
        tracing::error!(%error, "the audit log could not be closed");
    }
    Ok(())
}

impl Steward {
    pub(super) fn new(shared: Shared, names: PathBuf) -> Self {
        Self { shared, names, agents: Arc::default() }
    }

    async fn carry_out(&self, order: Order, fds: Vec<OwnedFd>) -> Report {
        let done = match order {
            // What an agent may do must not outlive the warden by what waited in the socket.
            Order::Tick { sent } if sent.is_older(Moment::now(), self.shared.feed.limit()) => {
                return Report::Beat;
            }
            Order::Tick { .. } => {
                return match self.shared.feed.beat() {
                    Ok(()) => Report::Beat,
                    Err(error) => Report::Failed(error.to_string()),
                };
            }
            Order::Summary { session } => {
                let session = SessionId(session.into());
                return Report::Summary(self.shared.audit.take_summary(&session));
            }
            Order::Start(_) => Err("it has been started already".to_owned()),
            Order::Agents(agents) => self.set_agents(agents),
            Order::Remove { agent } => {
                let removed = self.agents.lock().remove(&CgroupId(agent));
                if let Some(service) = removed {
                    kept::forget(&self.names, &service.cell.session());
                    service.cell.replace(Arc::new(Agent {
                        chain: Vec::new(),
                        session: service.cell.current().session.clone(),
                    }));
                    tokio::spawn(async move { service.stop(DRAIN).await });
                }
                Ok(())
            }
            Order::Listen { agent, netns, ipv6 } => {
                self.listen(agent, NetnsCookie(netns), ipv6, fds)
            }
            Order::Unlisten { agent, netns } => {
                if let Some(service) = self.service(agent) {
                    service.close(NetnsCookie(netns));
                }
                Ok(())
            }
            Order::Note(note) => self.note(&note),
            Order::Stop => {
                let all: Vec<_> = self.agents.lock().drain().map(|(_, s)| s).collect();
                let mut ending = JoinSet::new();
                for service in all {
                    ending.spawn(async move { service.stop(DRAIN).await });
                }
                while ending.join_next().await.is_some() {}
                Ok(())
            }
        };
        done.map_or_else(Report::Failed, |()| Report::Done)
    }

    fn service(&self, agent: u64) -> Option<Arc<Service>> {
        self.agents.lock().get(&CgroupId(agent)).cloned()
    }

    /// Everything is parsed before anything is replaced.
    fn set_agents(&self, orders: Vec<AgentOrder>) -> Result<(), String> {
        let made: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let links: Result<_, _> = order.chain.into_iter().map(link).collect();
                let agent = Agent { chain: links?, session: SessionId(order.session.into()) };
                let id = CgroupId(order.agent);
                let known = self.service(order.agent);
                let service = match known {
                    Some(service) => service,
                    None => self.new_service(&agent, order.cgroup, order.synthesize)?,
                };
                Ok((id, service, agent))
            })
            .collect::<Result<_, String>>()?;
        let mut agents = self.agents.lock();
        for (id, service, agent) in made {
            service.cell.replace(Arc::new(agent));
            agents.insert(id, service);
        }
        Ok(())
    }

    /// An agent that was not served before, with the names that it was given by another process.
    fn new_service(
        &self,
        agent: &Agent,
        cgroup: String,
        synthesize: bool,
    ) -> Result<Arc<Service>, String> {
        let unmatched =
            if synthesize { UnmatchedNames::Synthesize } else { UnmatchedNames::Nxdomain };
        let names = kept::open(&self.names, &agent.session)
            .map_err(|e| format!("the names of session {} cannot be kept: {e}", agent.session))?;
        let nobody = Agent { chain: Vec::new(), session: agent.session.clone() };
        let cell = Arc::new(AgentCell::new(nobody));
        Ok(Arc::new(Service::new(cell, cgroup, unmatched, names, self.shared.clone())))
    }

    fn listen(
        &self,
        agent: u64,
        netns: NetnsCookie,
        ipv6: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        let service = self.service(agent).ok_or("it does not know the agent")?;
        let families = if ipv6 { 2 } else { 1 };
        if fds.len() != families * LISTENERS {
            return Err("listeners are missing".into());
        }
        let mut sockets = Sockets::default();
        let mut fds = fds.into_iter();
        while let (Some(tcp), Some(dns), Some(udp)) = (fds.next(), fds.next(), fds.next()) {
            sockets.intercept.push(TcpListener::from(tcp));
            sockets.dns_tcp.push(TcpListener::from(dns));
            sockets.dns_udp.push(UdpSocket::from(udp));
        }
        service.open(netns, sockets).map_err(|e| format!("the listeners cannot be served: {e}"))
    }

    fn note(&self, note: &Note) -> Result<(), String> {
        let event = match note.kind {
            NoteKind::Admin => Event::Admin,
            NoteKind::Policy => Event::Policy,
            NoteKind::SessionStart => Event::SessionStart,
            NoteKind::SessionEnd => Event::SessionEnd,
        };
        let names = note.agent.iter().map(|n| n.as_str().into()).collect();
        let mut draft = Draft::new(event, note.decision)
            .layer(Stage::Control)
            .agent_names(names)
            .message(&note.message);
        if let Some(session) = &note.session {
            draft = draft.session(&SessionId(session.as_str().into()));
        }
        if let Some(reason) = note.reason {
            draft = draft.reason(reason);
        }
        self.shared.audit.record(draft).map(drop).map_err(|e| e.to_string())
    }
}

/// One level of a chain, from texts that were parsed once before, by the warden.
fn link(order: LinkOrder) -> Result<AgentLink, String> {
    let LinkOrder { name, policy, credentials } = order;
    let policy = policy.load().map_err(|e| format!("the policy of `{name}`: {e}"))?.policy;
    let credentials = CredentialSet::take_over(&policy, credentials).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("the credentials of `{name}`: {}", texts.join("; "))
    })?;
    Ok(AgentLink {
        name: name.into(),
        policy: Arc::new(policy),
        credentials: Arc::new(credentials),
    })
}

//! Keeps the lease alive and writes down what the kernel refused. Both run on the runtime that
//! also serves connections, on purpose: a runtime that hangs stops the heartbeat, and the kernel
//! closes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Service;
use crate::audit::{Audit, Draft, Event};
use crate::identify::CgroupId;
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Host, HostName};
use crate::redirect::events::{Attempt, KernelEvent};
use crate::redirect::feed::Feed;
use crate::shutdown::Watcher;

/// A sixth of the usual lease, so that a few late ticks do not close an agent.
pub(crate) const BEAT: Duration = Duration::from_millis(500);

const SWEEP: Duration = Duration::from_secs(10);

/// A connection waits in a listener's backlog for less than this.
const STALE: Duration = Duration::from_secs(60);

/// Events are read on a timer: a wake-up for each costs more than the event.
const READ: Duration = Duration::from_millis(100);

/// Finds the agents that are served.
pub(crate) trait Services: Send + Sync + 'static {
    /// The agent with this cgroup; the kernel does not always know one.
    fn find(&self, agent: Option<CgroupId>) -> Option<Arc<Service>>;
    fn all(&self) -> Vec<Arc<Service>>;
}

/// Closes upstream connections that have waited too long, and forgets flows whose connection was
/// never accepted (a client may give up first).
pub(crate) async fn sweep(services: Arc<dyn Services>, feed: Arc<Feed>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        for service in services.all() {
            service.interceptor.sweep();
        }
        if let Err(error) = feed.sweep_flows(STALE) {
            tracing::warn!(%error, "stale flows could not be removed");
        }
    }
}

/// Renews the lease until the task is ended.
pub(crate) async fn beat(feed: Arc<Feed>) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = feed.beat() {
            tracing::error!(%error, "the lease could not be renewed; the kernel will close");
        }
    }
}

/// What turns the kernel's events into records.
pub(crate) struct Recorder {
    feed: Arc<Feed>,
    services: Arc<dyn Services>,
    audit: Audit,
    /// Names to which UDP was refused and recorded.
    udp: Mutex<HashSet<(Option<CgroupId>, HostName)>>,
}

impl Recorder {
    pub(crate) fn new(feed: Arc<Feed>, services: Arc<dyn Services>, audit: Audit) -> Self {
        Self { feed, services, audit, udp: Mutex::default() }
    }

    /// Writes the kernel's refusals to the audit log until the drain starts.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Watcher) {
        let mut ticks = interval(READ);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !shutdown.is_draining() {
            ticks.tick().await;
            self.drain();
        }
    }

    /// Writes what is in the ring now.
    pub(crate) fn drain(&self) {
        for event in self.feed.events() {
            let service = self.services.find(event.agent);
            let name = service.as_ref().and_then(|service| {
                destination(&event).and_then(|to| service.names.name_of(to.ip()))
            });
            if event.reason == Reason::UdpRefused
                && let Some(name) = &name
                && !self.first(event.agent, name)
            {
                continue;
            }
            let mut draft = draft(&event);
            if let Some(service) = service {
                draft = draft.whose(&service.cell);
            }
            if let Some(name) = name {
                draft = draft.host(&Host::Name(name));
            }
            if let Err(error) = self.audit.record(draft) {
                tracing::error!(%error, "a kernel refusal could not be recorded");
            }
        }
    }

    /// Whether UDP to this name is refused for the first time. A resolver that sorts addresses
    /// (RFC 6724) connects a UDP socket to each and sends nothing, on every lookup, and HTTP/3
    /// clients try again and again: one record a name says it. The names are bounded by their pool.
    fn first(&self, agent: Option<CgroupId>, name: &HostName) -> bool {
        let mut seen = self.udp.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((agent, name.clone()))
    }
}

fn destination(event: &KernelEvent) -> Option<SocketAddr> {
    match event.attempt {
        Attempt::Dial { to, .. } | Attempt::Packet { to, .. } => Some(to),
        Attempt::Socket { .. } | Attempt::Bind { .. } => None,
    }
}

fn draft(event: &KernelEvent) -> Draft {
    let mut draft =
        Draft::new(Event::KernelDeny, Decision::Deny).layer(Stage::Kernel).reason(event.reason);
    if let Some(process) = &event.process {
        draft = draft.process(process);
    }
    match event.attempt {
        Attempt::Dial { protocol, to } => draft.dialled(to.ip(), to.port()).protocol_text(protocol),
        Attempt::Bind { protocol, at } => draft
            .dialled(at.ip(), at.port())
            .protocol_text(protocol)
            .message("binding a local address"),
        Attempt::Packet { protocol, to, interface } => draft
            .dialled(to.ip(), to.port())
            .protocol_text(protocol)
            .message(&format!("a packet to interface {interface}")),
        Attempt::Socket { family, kind, protocol } => {
            draft.message(&format!("socket of family {family}, type {kind}, protocol {protocol}"))
        }
    }
}

//! Keeps the lease alive and writes down what the kernel refused. Both run on the runtime that
//! also serves connections, on purpose: a runtime that hangs stops the heartbeat, and the kernel
//! closes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::audit::{Audit, Draft, Event};
use crate::identify::Agent;
use crate::outcome::{Decision, Stage};
use crate::redirect::ebpf::Kernel;
use crate::redirect::events::{Attempt, KernelEvent};
use crate::shutdown::Watcher;

/// A sixth of the lease, so that a few late ticks do not close an agent.
const BEAT: Duration = Duration::from_millis(500);

/// Events are read on a timer: a wake-up for each costs more than the event.
const READ: Duration = Duration::from_millis(100);

/// Renews the lease until the drain has started and `Watcher` is gone with the session.
pub(super) async fn beat(kernel: Arc<Kernel>) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = kernel.beat() {
            tracing::error!(%error, "the lease could not be renewed; the kernel will close");
        }
    }
}

/// Writes the kernel's refusals to the audit log until the drain starts.
pub(super) async fn record_events(
    kernel: Arc<Kernel>,
    agent: Arc<Agent>,
    audit: Audit,
    shutdown: Watcher,
) {
    let mut ticks = interval(READ);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !shutdown.is_draining() {
        ticks.tick().await;
        drain_events(&kernel, &agent, &audit);
    }
}

/// Writes what is in the ring now.
pub(super) fn drain_events(kernel: &Kernel, agent: &Agent, audit: &Audit) {
    for event in kernel.events() {
        if let Err(error) = audit.record(draft(&event, agent)) {
            tracing::error!(%error, "a kernel refusal could not be recorded");
        }
    }
}

fn draft(event: &KernelEvent, agent: &Agent) -> Draft {
    let mut draft = Draft::new(Event::KernelDeny, Decision::Deny)
        .agent(agent)
        .layer(Stage::Kernel)
        .reason(event.reason);
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

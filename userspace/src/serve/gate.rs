//! Accepts what the kernel redirected and finds out whose it is. A connection whose flow is not
//! in the kernel's table came some other way and is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::audit::{Audit, Draft, Event};
use crate::connection::{self, Interceptor};
use crate::identify::{AgentCell, Flow, NetnsCookie, describe};
use crate::outcome::{Decision, Reason, Stage};
use crate::redirect::feed::Feed;
use crate::redirect::orig_dst::flow_key;
use crate::shutdown::Watcher;

/// The most connections of one agent that are open at once. Beyond it new ones wait in the
/// listener's backlog, and then in the agent's `connect`. A part of what the interceptor serves at
/// all ([`crate::connection::Settings`]), so that one agent alone cannot use up the others' share.
const MAX_CONNECTIONS: usize = 2048;

/// The pause after a failed accept (too many open files, for example).
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// What every accepted connection needs.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) feed: Arc<Feed>,
    pub(super) interceptor: Arc<Interceptor>,
    pub(super) audit: Audit,
    pub(super) agent: Arc<AgentCell>,
    pub(super) netns: NetnsCookie,
    /// The agent's cgroup path inside the cgroup v2 mount.
    pub(super) cgroup: String,
}

/// Accepts until the drain starts, then lets open connections end.
pub(super) async fn accept(listeners: Vec<TcpListener>, gate: Arc<Gate>, shutdown: Watcher) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut doors = JoinSet::new();
    for listener in listeners {
        let (gate, slots, shutdown) = (Arc::clone(&gate), Arc::clone(&slots), shutdown.clone());
        doors.spawn(door(listener, gate, slots, shutdown));
    }
    while doors.join_next().await.is_some() {}
}

async fn door(
    listener: TcpListener,
    gate: Arc<Gate>,
    slots: Arc<Semaphore>,
    mut shutdown: Watcher,
) {
    let mut connections = JoinSet::new();
    let mut draining = shutdown.clone();
    loop {
        while connections.try_join_next().is_some() {} // forget those that have ended
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = draining.draining() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (gate, shutdown) = (Arc::clone(&gate), shutdown.clone());
                connections.spawn(async move {
                    gate.admit(stream, peer, shutdown).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
    drop(listener);
    shutdown.draining().await;
    while connections.join_next().await.is_some() {}
}

impl Gate {
    async fn admit(&self, stream: TcpStream, peer: SocketAddr, shutdown: Watcher) {
        match self.identify(&stream, peer) {
            Some(flow) => {
                // Without it every small answer waits for a delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                connection::serve(Arc::clone(&self.interceptor), flow, stream, shutdown).await;
            }
            None => self.refuse_unknown(peer),
        }
    }

    /// Takes the flow out of the kernel's table: a second connection cannot use it again.
    fn identify(&self, stream: &TcpStream, peer: SocketAddr) -> Option<Flow> {
        let local = stream.local_addr().ok()?;
        let taken = match self.feed.take_flow(&flow_key(self.netns, peer, local)) {
            Ok(taken) => taken?,
            Err(error) => {
                tracing::error!(%error, "the table of flows cannot be read");
                return None;
            }
        };
        // A connection that was reset before it was accepted has no peer any more, and its flow may
        // belong to a later one with the same addresses.
        stream.peer_addr().ok()?;
        Some(Flow {
            agent: Arc::clone(&self.agent),
            process: describe(taken.process, taken.opened_at, &self.cgroup),
            original: taken.original,
        })
    }

    fn refuse_unknown(&self, peer: SocketAddr) {
        let draft = Draft::new(Event::Connect, Decision::Deny)
            .whose(&self.agent)
            .layer(Stage::Connect)
            .reason(Reason::FlowUnknown)
            .message(&format!("from {peer}"));
        if let Err(error) = self.audit.record(draft) {
            tracing::error!(%error, "a refusal could not be recorded");
        }
    }
}

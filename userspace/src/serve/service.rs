//! One agent, served in each network namespace in which it has listeners.

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::{gate, names};
use crate::audit::Audit;
use crate::connection::{Interceptor, InterceptorParts, Settings};
use crate::dns::{self, Names};
use crate::forward::dial::Resolve;
use crate::identify::{AgentCell, NetnsCookie};
use crate::policy::UnmatchedNames;
use crate::redirect::feed::Feed;
use crate::redirect::listener::Listeners;
use crate::shutdown::{self, Trigger};
use crate::tls::leaf::LeafMinter;

/// What all agents of one egret share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) feed: Arc<Feed>,
    pub(crate) audit: Audit,
    pub(crate) leaves: Arc<LeafMinter>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) settings: Settings,
}

/// Listeners in one network namespace, not blocking.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) intercept: Vec<TcpListener>,
    pub(crate) dns_tcp: Vec<TcpListener>,
    pub(crate) dns_udp: Vec<UdpSocket>,
}

impl Sockets {
    /// Copies of these.
    pub(crate) fn of(l: &Listeners) -> std::io::Result<Self> {
        let tcp = |v4, v6| std::iter::once(v4).chain(v6).map(TcpListener::try_clone).collect();
        let udp = std::iter::once(&l.dns_udp_v4).chain(&l.dns_udp_v6);
        let intercept: std::io::Result<_> = tcp(&l.intercept_v4, &l.intercept_v6);
        Ok(Self {
            intercept: intercept?,
            dns_tcp: tcp(&l.dns_tcp_v4, &l.dns_tcp_v6)?,
            dns_udp: udp.map(UdpSocket::try_clone).collect::<std::io::Result<_>>()?,
        })
    }
}

/// One agent.
pub(crate) struct Service {
    pub(crate) cell: Arc<AgentCell>,
    pub(crate) interceptor: Arc<Interceptor>,
    pub(crate) names: Arc<Names>,
    server: Arc<dns::Server>,
    shared: Shared,
    /// Its cgroup's path inside the hierarchy.
    cgroup: String,
    doors: Mutex<HashMap<NetnsCookie, Door>>,
}

/// The tasks behind the listeners of one namespace.
struct Door {
    trigger: Trigger,
    tasks: JoinSet<()>,
}

impl Service {
    /// A service without doors. `unmatched` holds where the policies do not say.
    pub(crate) fn new(
        cell: Arc<AgentCell>,
        cgroup: String,
        unmatched: UnmatchedNames,
        names: Names,
        shared: Shared,
    ) -> Self {
        let names = Arc::new(names);
        let of = Arc::clone(&names);
        let interceptor = Arc::new(Interceptor::new(InterceptorParts {
            leaves: Arc::clone(&shared.leaves),
            resolver: Arc::clone(&shared.resolver),
            audit: shared.audit.clone(),
            names: Arc::new(move |ip| of.name_of(ip)),
            settings: shared.settings,
        }));
        let server = Arc::new(names::server(Arc::clone(&names), &cell, unmatched, &shared.audit));
        Self { cell, interceptor, names, server, shared, cgroup, doors: Mutex::default() }
    }

    /// Serves in a namespace from now on; whatever served there before ends. Call it inside the
    /// runtime.
    ///
    /// # Errors
    /// When the runtime does not take a socket.
    pub(crate) fn open(&self, netns: NetnsCookie, sockets: Sockets) -> std::io::Result<()> {
        let tcp = |all: Vec<TcpListener>| -> std::io::Result<Vec<_>> {
            all.into_iter().map(tokio::net::TcpListener::from_std).collect()
        };
        let udp: std::io::Result<Vec<_>> =
            sockets.dns_udp.into_iter().map(tokio::net::UdpSocket::from_std).collect();
        let (intercept, dns_tcp, dns_udp) = (tcp(sockets.intercept)?, tcp(sockets.dns_tcp)?, udp?);
        let (trigger, watcher) = shutdown::channel();
        let gate = Arc::new(gate::Gate {
            feed: Arc::clone(&self.shared.feed),
            interceptor: Arc::clone(&self.interceptor),
            audit: self.shared.audit.clone(),
            agent: Arc::clone(&self.cell),
            netns,
            cgroup: self.cgroup.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(gate::accept(intercept, gate, watcher.clone()));
        tasks.spawn(dns::serve(dns_udp, dns_tcp, Arc::clone(&self.server), watcher));
        self.doors().insert(netns, Door { trigger, tasks });
        Ok(())
    }

    /// Serves there no longer. Connections that are open end with their tasks.
    pub(crate) fn close(&self, netns: NetnsCookie) {
        self.doors().remove(&netns);
    }

    /// Ends every door, gently and after this time not.
    pub(crate) async fn stop(&self, drain: Duration) {
        let doors: Vec<Door> = self.doors().drain().map(|(_, door)| door).collect();
        for door in &doors {
            door.trigger.drain();
        }
        let ended = async {
            for mut door in doors {
                while door.tasks.join_next().await.is_some() {}
            }
        };
        // Tasks that are still there are aborted when their set is dropped.
        let _ = tokio::time::timeout(drain, ended).await;
        self.interceptor.forget(&self.cell.current().session);
    }

    fn doors(&self) -> MutexGuard<'_, HashMap<NetnsCookie, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

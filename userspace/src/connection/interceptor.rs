//! What all connections share, and what each agent keeps between its connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;

use super::Connection;
use crate::audit::Audit;
use crate::forward::dial::{DialLimits, Dialer, Resolve};
use crate::forward::pool::{Connector, Shelf};
use crate::http::limits::Ledger;
use crate::http::serve::ServeLimits;
use crate::identify::{Agent, AgentCell, SessionId};
use crate::policy::{Host, HostName, Policy, UpstreamSettings};
use crate::tls::leaf::LeafMinter;
use crate::tls::peek::Rewind;
use crate::tls::terminate::{Spoken, Terminator};
use crate::tls::upstream::UpstreamTls;

/// Gives the name behind a synthetic address of egret's DNS, if it is one.
pub trait NameOf: Send + Sync {
    fn name_of(&self, ip: IpAddr) -> Option<HostName>;
}

impl<F: Fn(IpAddr) -> Option<HostName> + Send + Sync> NameOf for F {
    fn name_of(&self, ip: IpAddr) -> Option<HostName> {
        self(ip)
    }
}

/// Times and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For the first bytes of a connection that must be understood.
    pub peek: Duration,
    /// For a TLS handshake, on either leg.
    pub handshake: Duration,
    /// For the head of an upstream's answer. Models think for minutes.
    pub answer: Duration,
    /// For opaque connections on which nothing moves.
    pub idle: Duration,
    /// Connections at one time; more are refused as overloaded.
    pub connections: usize,
    pub serve: ServeLimits,
    pub dial: DialLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            peek: Duration::from_secs(15),
            handshake: Duration::from_secs(15),
            answer: Duration::from_secs(900),
            idle: Duration::from_secs(2 * 3600),
            connections: 8192,
            serve: ServeLimits::default(),
            dial: DialLimits::default(),
        }
    }
}

/// What an [`Interceptor`] is made of.
pub struct InterceptorParts {
    pub leaves: Arc<LeafMinter>,
    pub resolver: Arc<dyn Resolve>,
    pub audit: Audit,
    pub names: Arc<dyn NameOf>,
    pub settings: Settings,
}

/// What all connections share.
pub struct Interceptor {
    pub(super) leaves: Arc<LeafMinter>,
    pub(super) connector: Connector,
    pub(super) audit: Audit,
    pub(super) names: Arc<dyn NameOf>,
    pub(super) settings: Settings,
    pub(super) no_upstream: UpstreamSettings,
    places: Arc<Semaphore>,
    agents: Mutex<HashMap<AgentKey, Arc<AgentState>>>,
}

type AgentKey = (SessionId, Vec<Arc<str>>);

impl Interceptor {
    pub fn new(parts: InterceptorParts) -> Self {
        let InterceptorParts { leaves, resolver, audit, names, settings } = parts;
        let connector = Connector {
            dialer: Dialer::new(resolver, settings.dial),
            tls: UpstreamTls::new(leaves.authority().der()),
            handshake: settings.handshake,
        };
        Self {
            leaves,
            connector,
            audit,
            names,
            settings,
            no_upstream: UpstreamSettings::default(),
            places: Arc::new(Semaphore::new(settings.connections)),
            agents: Mutex::default(),
        }
    }

    /// The authority's certificate in PEM, for the agents' trust bundles.
    pub fn authority_pem(&self) -> String {
        self.leaves.authority().pem()
    }

    /// Closes upstream connections that have waited too long. For a timer of the assembly.
    pub fn sweep(&self) {
        for state in self.lock().values() {
            state.current().1.sweep();
        }
    }

    /// Forgets what the agents of an ended session kept: connections, TLS sessions, accounts.
    pub fn forget(&self, session: &SessionId) {
        self.lock().retain(|(of, _), _| of != session);
    }

    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(super) fn agent_state(&self, agent: &AgentCell) -> Arc<AgentState> {
        let key = (agent.session(), agent.names());
        Arc::clone(self.lock().entry(key).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentKey, Arc<AgentState>>> {
        // Entries are inserted and removed whole.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptor").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What one agent keeps between its connections, and shares with no other agent.
#[derive(Debug, Default)]
pub struct AgentState {
    pub(super) terminator: Terminator,
    pub(super) ledger: Ledger,
    shelf: Mutex<(Option<Arc<Policy>>, Arc<Shelf>)>,
}

impl AgentState {
    /// The agent's upstream connections; new ones after its policy was replaced.
    pub(super) fn shelf(&self, agent: &Agent) -> Arc<Shelf> {
        let mut current = self.current();
        let now = agent.chain.first().map(|l| &l.policy);
        let same = match (&current.0, now) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            *current = (now.cloned(), Arc::default());
        }
        Arc::clone(&current.1)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, (Option<Arc<Policy>>, Arc<Shelf>)> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The TLS handshake with the agent, as `host`; the error says why in one clause.
    pub(super) async fn handshake<IO>(
        &self,
        host: &Host,
        io: Rewind<IO>,
    ) -> Result<(TlsStream<Rewind<IO>>, Spoken), String>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let leaf = self.interceptor.leaves.leaf(host).map_err(|e| e.to_string())?;
        let accepting = self.state.terminator.accept(io, host, leaf);
        match tokio::time::timeout(self.interceptor.settings.handshake, accepting).await {
            Ok(accepted) => accepted.map_err(|e| e.to_string()),
            Err(_) => Err("it took too long".into()),
        }
    }
}

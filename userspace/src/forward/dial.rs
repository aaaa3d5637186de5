//! The only place that opens upstream connections, and only with a [`Permit`].
//!
//! egret dials the name that policy decided on, never the address that the agent dialled, unless
//! the permit's host *is* that address because a rule names it. The address that was checked is
//! the address that is dialled.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::{self, Special};
use super::race::{self, Unreached};
use super::resolve::{ResolveError, Resolver};
use crate::outcome::Reason;
use crate::policy::{Host, HostName, Permit, UpstreamSettings};

/// The addresses of a name, or why there are none.
pub type Resolving<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// How upstream names become addresses.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a>;
}

impl Resolve for Resolver {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a> {
        Box::pin(Resolver::resolve(self, name))
    }
}

/// How long dialling may take.
#[derive(Clone, Copy, Debug)]
pub struct DialLimits {
    /// Resolving the name and trying all its addresses, together, where `[upstream]
    /// connect_timeout` does not say.
    pub total: Duration,
    /// How long one address may be silent before the next is tried beside it.
    pub stagger: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self { total: Duration::from_secs(15), stagger: race::STAGGER }
    }
}

/// Why there is no connection. The texts are for the agent too: they name no address.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the upstream's name does not resolve: {}", .0.why())]
    Name(ResolveError),
    #[error("the upstream's name resolves to {0} only")]
    Special(Special),
    #[error("{0}")]
    Connect(Unreached),
    #[error("the upstream's name did not resolve in time")]
    Timeout,
}

impl DialError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Name(error) => error.reason(),
            Self::Special(_) => Reason::UpstreamPrivate,
            Self::Connect(unreached) if unreached.is_silence() => Reason::UpstreamTimeout,
            Self::Connect(_) => Reason::UpstreamConnect,
            Self::Timeout => Reason::UpstreamTimeout,
        }
    }
}

/// Opens upstream connections.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<dyn Resolve>,
    limits: DialLimits,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Dialer {
    pub fn new(resolver: Arc<dyn Resolve>, limits: DialLimits) -> Self {
        Self { resolver, limits }
    }

    /// Connects to what the permit allows.
    pub async fn dial(
        &self,
        permit: &Permit,
        settings: &UpstreamSettings,
    ) -> Result<TcpStream, DialError> {
        let until = Instant::now() + settings.times.connect.unwrap_or(self.limits.total);
        let resolving = timeout_at(until, self.addresses(permit, settings));
        let addresses = resolving.await.unwrap_or(Err(DialError::Timeout))?;
        let turns = race::in_turns(&addresses);
        race::first(&turns, self.limits.stagger, until, connect).await.map_err(DialError::Connect)
    }

    /// Where the permit leads, checked.
    async fn addresses(
        &self,
        permit: &Permit,
        settings: &UpstreamSettings,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let port = permit.port();
        match permit.host() {
            Host::Ip(ip) if permit.would_deny().is_none() => {
                Ok(vec![SocketAddr::new(*ip, port)]) // a rule names this address or its network
            }
            Host::Ip(ip) => checked(vec![*ip], port, settings),
            Host::Name(name) => match settings.resolve.get(name) {
                Some(to) => Ok(vec![to.socket(port)]), // the operator's own word
                None => {
                    let resolved = self.resolver.resolve(name).await;
                    let found = resolved.map_err(|error| {
                        tracing::debug!("{error}");
                        DialError::Name(error)
                    })?;
                    if found.is_empty() {
                        return Err(DialError::Name(ResolveError::NotFound(name.clone())));
                    }
                    checked(found, port, settings)
                }
            },
        }
    }
}

/// Keeps the addresses that egret may dial; an answer without any is refused as what it is.
fn checked(
    found: Vec<IpAddr>,
    port: u16,
    settings: &UpstreamSettings,
) -> Result<Vec<SocketAddr>, DialError> {
    let mut refused = None;
    let mut kept = Vec::with_capacity(found.len());
    for ip in found {
        match address::check(ip, &settings.private) {
            Ok(()) => kept.push(SocketAddr::new(ip.to_canonical(), port)),
            Err(special) => refused = Some(special),
        }
    }
    match refused {
        Some(special) if kept.is_empty() => Err(DialError::Special(special)),
        _ => Ok(kept),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is forward::dial, and a Permit led here")]
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Without it every small exchange waits for the peer's delayed acknowledgement (40 ms).
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checked_addresses_are_dialled() {
        let ips = |list: &[&str]| list.iter().map(|i| i.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mut settings = UpstreamSettings::default();
        let public = checked(ips(&["1.1.1.1", "10.0.0.1"]), 443, &settings).unwrap();
        assert_eq!(public, ["1.1.1.1:443".parse().unwrap()], "the private one is left out");
        for special in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            let got = checked(ips(&[special]), 443, &settings);
            assert!(matches!(got, Err(DialError::Special(_))), "{special}");
        }
        settings.private = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(checked(ips(&["10.0.0.1"]), 443, &settings).is_ok());
    }
}

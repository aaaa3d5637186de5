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
use tokio::time::timeout;

use super::address::{self, Special};
use super::resolve::Resolver;
use crate::outcome::Reason;
use crate::policy::{Host, HostName, Permit, UpstreamSettings};

/// The addresses of a name, or why there are none.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Reason>> + Send + 'a>>;

/// How upstream names become addresses.
pub trait Resolve: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a>;
}

impl Resolve for Resolver {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a> {
        Box::pin(async move {
            Resolver::resolve(self, name).await.map_err(|error| {
                tracing::debug!("{error}");
                error.reason()
            })
        })
    }
}

/// How long dialling may take.
#[derive(Clone, Copy, Debug)]
pub struct DialLimits {
    /// All addresses of a name together.
    pub total: Duration,
    /// One address, while others are left to try.
    pub each: Duration,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self { total: Duration::from_secs(15), each: Duration::from_secs(3) }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the name does not resolve")]
    Name(Reason),
    #[error("the name resolves to {0} only")]
    Special(Special),
    #[error("none of its addresses could be reached")]
    Connect(#[source] std::io::Error),
    #[error("none of its addresses answered in time")]
    Timeout,
}

impl DialError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Name(reason) => *reason,
            Self::Special(_) => Reason::UpstreamPrivate,
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
        let dialling = async {
            let addresses = self.addresses(permit, settings).await?;
            self.first_to_answer(&addresses).await
        };
        timeout(self.limits.total, dialling).await.unwrap_or(Err(DialError::Timeout))
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
                    let found = self.resolver.resolve(name).await.map_err(DialError::Name)?;
                    checked(found, port, settings)
                }
            },
        }
    }

    /// The first address that answers, in the resolver's order.
    async fn first_to_answer(&self, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        let mut last = DialError::Name(Reason::UpstreamName);
        for (i, address) in addresses.iter().enumerate() {
            let limit = if i + 1 < addresses.len() { self.limits.each } else { self.limits.total };
            match timeout(limit, connect(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = DialError::Connect(error),
                Err(_) => last = DialError::Timeout,
            }
        }
        Err(last)
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
        _ if kept.is_empty() => Err(DialError::Name(Reason::UpstreamName)),
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
        assert!(matches!(checked(vec![], 443, &settings), Err(DialError::Name(_))));
        settings.private = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(checked(ips(&["10.0.0.1"]), 443, &settings).is_ok());
    }
}

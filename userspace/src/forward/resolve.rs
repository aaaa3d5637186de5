//! Upstream names, resolved by egret itself when it dials, never by the agent. The answers come
//! from the host's /etc/hosts and the servers of its /etc/resolv.conf, and are checked by
//! [`super::address::check`] before any is dialled.
//!
//! The sockets are made by the task that resolves, so that task must run in the host's network
//! namespace, as all of egret's own tasks do.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::timeout;

use crate::outcome::Reason;
use crate::policy::HostName;

/// The most time that one name may take, all servers and retries together.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How long the second address family may take after the first has answered with addresses. Some
/// servers never answer AAAA queries; they must not cost every connection the whole limit.
const GRACE: Duration = Duration::from_millis(500);

/// How often the files are looked at for changes, at most.
const RECHECK: Duration = Duration::from_secs(5);

/// The longest that an answer is kept, whatever its server says.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest that "no such name" is kept.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The host's own configuration cannot be used.
    #[error("{path}: {why}; egret needs it to find upstream servers")]
    Config { path: PathBuf, why: String },
    /// The servers say that there is no such name, or no address for it.
    #[error("`{0}` does not resolve: no such name, or no address for it")]
    NotFound(HostName),
    /// No server answered in time.
    #[error("no name server answered for `{0}` in time")]
    Timeout(HostName),
    /// No server could be reached.
    #[error("no name server could be reached for `{host}`: {why}")]
    Unreachable { host: HostName, why: String },
    /// The servers failed.
    #[error("resolving `{host}` failed: {why}")]
    Failed { host: HostName, why: String },
}

impl ResolveError {
    /// The reason that a refusal for this error carries.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout(_) => Reason::UpstreamTimeout,
            Self::Config { .. }
            | Self::NotFound(_)
            | Self::Unreachable { .. }
            | Self::Failed { .. } => Reason::UpstreamName,
        }
    }

    /// The same in one clause for an agent, without the name servers and files of the host.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Config { .. } => "egret has no name server to ask",
            Self::NotFound(_) => "there is no such name, or no address for it",
            Self::Timeout(_) => "no name server answered in time",
            Self::Unreachable { .. } => "no name server could be reached",
            Self::Failed { .. } => "the name servers failed to answer",
        }
    }
}

/// Resolves upstream names. Cheap to make: the files are read for the first name, and again after
/// they have changed.
#[derive(Debug)]
pub struct Resolver {
    source: Source,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
enum Source {
    Files { resolv_conf: PathBuf, hosts: PathBuf },
    Servers(Vec<SocketAddr>),
}

#[derive(Clone)]
struct Loaded {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
    stamps: [Stamp; 2],
    checked: Instant,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("stamps", &self.stamps).finish_non_exhaustive()
    }
}

/// Enough of a file's metadata to see that it was changed or replaced; `None` when it is absent.
type Stamp = Option<(SystemTime, u64)>;

impl Resolver {
    /// A resolver with the host's own configuration.
    pub fn system() -> Self {
        Self::from_files("/etc/resolv.conf", "/etc/hosts")
    }

    /// A resolver with these files in place of /etc/resolv.conf and /etc/hosts.
    pub fn from_files(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self::new(Source::Files { resolv_conf: resolv_conf.into(), hosts: hosts.into() })
    }

    /// A resolver that asks these servers and reads no file.
    pub fn from_servers(servers: Vec<SocketAddr>) -> Self {
        Self::new(Source::Servers(servers))
    }

    fn new(source: Source) -> Self {
        Self { source, loaded: Mutex::new(None) }
    }

    /// Whether the configuration can be used; asks no server.
    ///
    /// # Errors
    /// [`ResolveError::Config`].
    pub fn check(&self) -> Result<(), ResolveError> {
        self.current(Instant::now()).map(drop)
    }

    /// The addresses of `host`, at least one, IPv4 before IPv6, in the order of the answers. A
    /// name in the hosts file has those addresses and no others.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, host: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let name = Name::from_ascii(format!("{host}.")).map_err(|e| failed(host, &e))?;
        let loaded = self.current(Instant::now())?;
        let found = loaded.in_hosts_file(&name);
        if !found.is_empty() {
            return Ok(found);
        }
        match timeout(LIMIT, both_families(&loaded.dns, &name)).await {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(Ok(_)) => Err(ResolveError::NotFound(host.clone())),
            Ok(Err(error)) => Err(explain(host, &error)),
            Err(_) => Err(ResolveError::Timeout(host.clone())),
        }
    }

    /// What is loaded, read again if the files have changed. A change that cannot be read keeps
    /// what was loaded before, as the C library does.
    fn current(&self, now: Instant) -> Result<Loaded, ResolveError> {
        let mut slot = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &mut *slot {
            if now.saturating_duration_since(loaded.checked) < RECHECK {
                return Ok(loaded.clone());
            }
            loaded.checked = now;
            if loaded.stamps == self.source.stamps() {
                return Ok(loaded.clone());
            }
        }
        match (self.source.load(now), &*slot) {
            (Ok(fresh), _) => Ok(slot.insert(fresh).clone()),
            (Err(error), Some(old)) => {
                tracing::warn!(%error, "keeping the name servers that were read before");
                Ok(old.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl Loaded {
    fn in_hosts_file(&self, name: &Name) -> Vec<IpAddr> {
        let of = |qtype| self.hosts.lookup_static_host(&Query::query(name.clone(), qtype));
        let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of);
        found
            .flat_map(|l| l.answers().iter().filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>())
            .collect()
    }
}

/// The addresses of one family, none if the name has none, or why that is not known.
type Found = Result<Vec<IpAddr>, NetError>;

/// Asks for both families at once. One that fails or is slow does not hide the other.
async fn both_families(dns: &TokioResolver, name: &Name) -> Found {
    let v4 = one_family(dns, name, RecordType::A);
    let v6 = one_family(dns, name, RecordType::AAAA);
    tokio::pin!(v4, v6);
    let (v4, v6) = tokio::select! {
        first = &mut v4 => { let second = after(&first, v6).await; (first, second) }
        first = &mut v6 => { let second = after(&first, v4).await; (second, first) }
    };
    match (v4, v6) {
        (Ok(mut v4), Ok(v6)) => {
            v4.extend(v6);
            Ok(v4)
        }
        (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
        (Err(error), _) | (_, Err(error)) => Err(error), // nothing was found, and this is why
    }
}

/// The second family, for which nobody waits long once there are addresses of the first.
async fn after(first: &Found, second: impl Future<Output = Found>) -> Found {
    if first.as_ref().is_ok_and(|found| !found.is_empty()) {
        timeout(GRACE, second).await.unwrap_or(Err(NetError::Timeout))
    } else {
        second.await
    }
}

async fn one_family(dns: &TokioResolver, name: &Name, qtype: RecordType) -> Found {
    match dns.lookup(name.clone(), qtype).await {
        Ok(lookup) => Ok(lookup.answers().iter().filter_map(|r| r.data.ip_addr()).collect()),
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn explain(host: &HostName, error: &NetError) -> ResolveError {
    match error {
        NetError::Timeout => ResolveError::Timeout(host.clone()),
        NetError::Io(_) | NetError::NoConnections => {
            ResolveError::Unreachable { host: host.clone(), why: error.to_string() }
        }
        _ => failed(host, error),
    }
}

fn failed(host: &HostName, why: &dyn std::fmt::Display) -> ResolveError {
    ResolveError::Failed { host: host.clone(), why: why.to_string() }
}

impl Source {
    fn stamps(&self) -> [Stamp; 2] {
        let stamp = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        match self {
            Self::Files { resolv_conf, hosts } => [stamp(resolv_conf), stamp(hosts)],
            Self::Servers(_) => [None, None],
        }
    }

    fn load(&self, now: Instant) -> Result<Loaded, ResolveError> {
        let stamps = self.stamps(); // before reading, so that a change in between is seen later
        let (config, options, hosts) = match self {
            Self::Files { resolv_conf, hosts } => {
                let config_error =
                    |why: String| ResolveError::Config { path: resolv_conf.clone(), why };
                let text = fs::read(resolv_conf).map_err(|e| config_error(e.to_string()))?;
                let (config, options) = system_conf::parse_resolv_conf(servers_only(&text))
                    .map_err(|e| config_error(e.to_string()))?;
                (config, options, read_hosts(hosts))
            }
            Self::Servers(servers) => {
                let servers = servers.iter().copied().map(server).collect();
                let config = ResolverConfig::from_name_servers(servers);
                (config, ResolverOpts::default(), Hosts::default())
            }
        };
        let dns = build(config, options).map_err(|e| ResolveError::Config {
            path: self.path().to_path_buf(),
            why: e.to_string(),
        })?;
        Ok(Loaded { dns, hosts: Arc::new(hosts), stamps, checked: now })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Files { resolv_conf, .. } => resolv_conf,
            Self::Servers(_) => Path::new("name servers"),
        }
    }
}

/// The lines that matter here. Names are always asked for as they are, so search domains mean
/// nothing, and an odd one must not make the whole file unusable.
fn servers_only(text: &[u8]) -> Vec<u8> {
    let wanted = |line: &&[u8]| line.starts_with(b"nameserver") || line.starts_with(b"options");
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').filter(wanted).collect();
    lines.join(&b'\n')
}

/// An absent hosts file is an empty one.
fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    let read = fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file));
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "the hosts file is only partly used");
        }
        Ok(()) | Err(_) => {}
    }
    hosts
}

fn server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn build(config: ResolverConfig, options: ResolverOpts) -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never; // read here, where its answers are final
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    options.cache_size = 4096;
    builder.build()
}

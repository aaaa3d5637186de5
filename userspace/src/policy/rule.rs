//! Pure: a policy as checked: complete, canonical, ready to decide with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Serialize;

use super::{HostName, HostPattern, HttpSettings, MethodSet, PathPattern, Protocol};
use crate::secrets::SecretRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    Deny,
    Ask,
}

impl Action {
    pub const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Ask];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Enforce,
    /// Pass what no deny rule forbids, record what would have been refused; never inject there.
    Audit,
}

/// What DNS answers for names that no rule could allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmatchedNames {
    Synthesize,
    Nxdomain,
}

/// `limits` of a rule; `None` means no limit. Byte counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub requests_per_minute: Option<u32>,
    pub upload: Option<u64>,
    pub download: Option<u64>,
}

impl Limits {
    /// The stricter of both, value by value.
    pub fn stricter(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            requests_per_minute: least(self.requests_per_minute, other.requests_per_minute),
            upload: least(self.upload, other.upload),
            download: least(self.download, other.download),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCanary {
    Deny,
    Freeze,
}

/// Where a `placeholder` credential is swapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub header: bool,
    pub query: bool,
    pub path: bool,
    pub body: bool,
}

/// How a credential is attached. Exactly one per credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    Bearer,
    Basic {
        username: String,
    },
    /// `value` contains `{secret}`.
    Header {
        name: String,
        value: String,
    },
    Query {
        name: String,
    },
    Placeholder(Places),
}

/// `[credentials.NAME]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSpec {
    pub name: Arc<str>,
    pub secret: SecretRef,
    /// The binding: the only hosts that can ever receive it. Names only, never addresses.
    pub hosts: Vec<HostPattern>,
    pub kind: CredentialKind,
    /// The variable in which the agent finds the placeholder.
    pub env: Option<String>,
    /// For example `ghp_{36}`: literal text and `{N}` for N random characters of `[A-Za-z0-9]`.
    pub shape: Option<String>,
    pub on_canary: OnCanary,
}

impl CredentialSpec {
    /// Whether `host` may ever receive this credential.
    pub fn bound_to(&self, host: &HostName) -> bool {
        self.hosts.iter().any(|p| p.matches_name(host))
    }
}

/// `[[rule]]`, checked.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    /// Never empty.
    pub hosts: Vec<HostPattern>,
    /// `None`: every port. Always present for allow rules.
    pub ports: Option<Vec<u16>>,
    /// `None`: every protocol. Always present for allow rules.
    pub protocol: Option<Protocol>,
    /// `None`: any method but CONNECT and TRACE.
    pub methods: Option<MethodSet>,
    /// `None`: any path, ambiguous ones included.
    pub paths: Option<Vec<PathPattern>>,
    pub credentials: Vec<Arc<str>>,
    pub limits: Limits,
    pub reason: Option<String>,
    /// Where it stands, as `file:line`; empty for rules made from flags.
    pub origin: String,
}

/// Where `[upstream] resolve` sends a name; without a port the request's own port is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveTo {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

impl ResolveTo {
    /// The address to dial for a request to `port`.
    pub fn socket(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

/// `[upstream]`, checked; `ca` holds PEM texts that were read when the policy was loaded.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSettings {
    pub ca: Vec<Arc<str>>,
    pub resolve: BTreeMap<HostName, ResolveTo>,
    pub private: Vec<IpNetwork>,
    pub times: UpstreamTimes,
}

/// How long upstreams may take, where the policy says; egret's own values where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTimes {
    /// `connect_timeout`: to resolve the name and connect to one of its addresses.
    pub connect: Option<Duration>,
    /// `tls_timeout`: for the TLS handshake.
    pub tls: Option<Duration>,
    /// `answer_timeout`: from the last byte of the request to the head of the answer.
    pub answer: Option<Duration>,
    /// `idle_timeout`: for an opaque or upgraded connection on which nothing moves, and for
    /// silence inside an answer.
    pub idle: Option<Duration>,
}

/// A whole policy file with everything it uses, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: Arc<str>,
    pub mode: Mode,
    pub credentials: Vec<CredentialSpec>,
    /// The file's own rules in file order, then those of what it uses, in that order.
    pub rules: Vec<Rule>,
    pub upstream: UpstreamSettings,
    pub http: HttpSettings,
    pub unmatched: Option<UnmatchedNames>,
    pub local: Local,
}

/// `[local]`: what an agent may do on its own machine, past the interceptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Ports on loopback that it may dial where loopback is shared with others. What it listens on
    /// itself it may always dial.
    pub connect: Vec<u16>,
    /// Ports on which it may listen on other addresses than loopback.
    pub listen: Vec<u16>,
    /// Absolute paths of Unix sockets that it may reach; a trailing `/**` means everything in that
    /// folder.
    pub unix: Vec<String>,
}

impl Local {
    /// The ports that every level of a chain grants: delegation only narrows. No level, no port.
    pub fn ports_of_all<'a>(chain: impl IntoIterator<Item = &'a Self>) -> (Vec<u16>, Vec<u16>) {
        let both = |a: &[u16], b: &[u16]| a.iter().copied().filter(|p| b.contains(p)).collect();
        chain
            .into_iter()
            .map(|local| (local.connect.clone(), local.listen.clone()))
            .reduce(|a, b| (both(&a.0, &b.0), both(&a.1, &b.1)))
            .unwrap_or_default()
    }
}

impl Policy {
    /// A policy that refuses everything.
    pub fn deny_all(name: &str) -> Self {
        Self {
            name: name.into(),
            mode: Mode::Enforce,
            credentials: Vec::new(),
            rules: Vec::new(),
            upstream: UpstreamSettings::default(),
            http: HttpSettings::default(),
            unmatched: None,
            local: Local::default(),
        }
    }

    /// The credential of this name.
    pub fn credential(&self, name: &str) -> Option<&CredentialSpec> {
        self.credentials.iter().find(|c| *c.name == *name)
    }

    /// Whether some allow or ask rule names this host; in audit mode always. For DNS: a name that
    /// no rule could allow. Deny rules are not considered, so that their refusals stay readable.
    pub fn could_allow_name(&self, name: &HostName) -> bool {
        self.mode == Mode::Audit
            || self
                .rules
                .iter()
                .filter(|r| r.action != Action::Deny)
                .any(|r| r.hosts.iter().any(|h| h.matches_name(name)))
    }

    /// Whether nothing at all can be allowed: no allow or ask rule, and not audit mode.
    pub fn is_empty_deny_all(&self) -> bool {
        self.mode == Mode::Enforce && self.rules.iter().all(|r| r.action == Action::Deny)
    }
}

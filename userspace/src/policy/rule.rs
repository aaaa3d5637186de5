//! Pure: a policy as checked: complete, canonical, ready to decide with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use super::{HostName, Protocol};
use crate::secrets::SecretRef;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Deny,
    Ask,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub requests_per_minute: Option<u32>,
    pub upload: Option<u64>,
    pub download: Option<u64>,
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
    /// The binding: the only hosts that can ever receive it.
    pub hosts: Vec<String>, // the policy stage replaces this with its HostPattern
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
        self.hosts.iter().any(|h| h == host.as_str())
    }
}

/// `[[rule]]`, checked. The policy stage adds its matchers.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: Arc<str>,
    pub action: Action,
    pub protocol: Protocol,
    pub credentials: Vec<Arc<str>>,
    pub limits: Limits,
    pub reason: Option<String>,
}

/// `[upstream]`, checked; `ca` holds PEM texts that were read when the policy was loaded.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSettings {
    pub ca: Vec<Arc<str>>,
    pub resolve: BTreeMap<HostName, SocketAddr>, // the policy stage may refine (port optional)
    pub private: Vec<IpNetwork>,
}

/// A whole policy file, checked.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: Arc<str>,
    pub mode: Mode,
    pub credentials: Vec<CredentialSpec>,
    pub rules: Vec<Rule>,
    pub upstream: UpstreamSettings,
    pub unmatched: Option<UnmatchedNames>,
}

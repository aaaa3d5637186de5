//! Pure: one audit record, and the draft from which it is made. Field order is the order in the
//! file; a field without a value is left out. Paths carry no query, texts are bounded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Seq};
use super::line::bounded;
use super::timestamp::Timestamp;
use crate::identify::{Agent, AgentCell, Flow, Process, SessionId};
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Denial, Host, Permit, Protocol};

/// The version of the record format.
pub const SCHEMA: u32 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    SessionStart,
    Connect,
    Dns,
    Request,
    /// The outcome of a `request` or `connect`.
    Response,
    KernelDeny,
    Ask,
    Grant,
    Revoke,
    Policy,
    Secret,
    Canary,
    Admin,
    SessionEnd,
}

impl Event {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "session_start",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Request => "request",
            Self::Response => "response",
            Self::KernelDeny => "kernel_deny",
            Self::Ask => "ask",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::Policy => "policy",
            Self::Secret => "secret",
            Self::Canary => "canary",
            Self::Admin => "admin",
            Self::SessionEnd => "session_end",
        }
    }
}

/// The process, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub pid: u32,
    pub tgid: u32,
    pub comm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    pub uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// Where it wanted to go: the name that policy saw and the address the agent dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Cow<'static, str>>,
}

/// The HTTP request. `id` is the number of its decision record; the outcome record carries the
/// same one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestInfo {
    pub id: Seq,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Without query and fragment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Cow<'static, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Body bytes; `up` is from the agent to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    pub up: u64,
    pub down: u64,
}

/// One record, as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    pub seq: Seq,
    pub time: Timestamp,
    pub session: Arc<str>,
    /// Names, outermost ancestor first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agent: Vec<Arc<str>>,
    pub event: Event,
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestInfo>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// A detail for a person. Never a secret, never a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Present when the clock stands before the time of the record before, by so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_back_us: Option<u64>,
    pub prev: Hash,
    /// Absent only while the record is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
}

impl Record {
    /// The destination's name, or its address where no name is known.
    pub fn host(&self) -> Option<Cow<'_, str>> {
        let d = self.destination.as_ref()?;
        match (&d.host, d.ip) {
            (Some(host), _) => Some(Cow::Borrowed(host)),
            (None, Some(ip)) => Some(Cow::Owned(ip.to_string())),
            (None, None) => None,
        }
    }
}

/// A record in the making: everything but number, time and hashes, which the journal gives it.
#[derive(Clone, Debug)]
pub struct Draft(pub(super) Record);

impl Draft {
    /// The least a record says.
    pub fn new(event: Event, decision: Decision) -> Self {
        Self(Record {
            schema: SCHEMA,
            seq: Seq(0),
            time: Timestamp::default(),
            session: "".into(),
            agent: Vec::new(),
            event,
            decision,
            reason: None,
            rule: None,
            layer: None,
            process: None,
            destination: None,
            request: None,
            credentials: Vec::new(),
            bytes: None,
            duration_us: None,
            message: None,
            clock_back_us: None,
            prev: Hash::default(),
            hash: None,
        })
    }

    /// An event that is no decision.
    pub fn note(event: Event) -> Self {
        Self::new(event, Decision::Note)
    }

    /// Who, and the address that was dialled: agent, session, process, ip and port.
    #[must_use]
    pub fn flow(self, flow: &Flow) -> Self {
        self.whose(&flow.agent)
            .process(&flow.process)
            .dialled(flow.original.0.ip(), flow.original.0.port())
    }

    /// The same as [`Self::agent`], for an agent as it is now.
    #[must_use]
    pub fn whose(self, agent: &AgentCell) -> Self {
        self.agent_names(agent.names()).session(&agent.session())
    }

    /// The agent's chain of names and its session.
    #[must_use]
    pub fn agent(self, agent: &Agent) -> Self {
        self.agent_names(agent.names()).session(&agent.session)
    }

    #[must_use]
    pub fn agent_names(mut self, names: Vec<Arc<str>>) -> Self {
        self.0.agent = names;
        self
    }

    /// Without this, the record carries the session of the journal.
    #[must_use]
    pub fn session(mut self, session: &SessionId) -> Self {
        self.0.session = Arc::clone(&session.0);
        self
    }

    #[must_use]
    pub fn decision(mut self, decision: Decision) -> Self {
        self.0.decision = decision;
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.0.reason = Some(reason);
        self
    }

    #[must_use]
    pub fn rule(mut self, rule: Option<&Arc<str>>) -> Self {
        self.0.rule = rule.cloned();
        self
    }

    #[must_use]
    pub fn layer(mut self, layer: Stage) -> Self {
        self.0.layer = Some(layer);
        self
    }

    #[must_use]
    pub fn process(mut self, p: &Process) -> Self {
        self.0.process = Some(ProcessInfo {
            pid: p.pid,
            tgid: p.tgid,
            comm: bounded(&p.comm),
            exe: p.exe.as_deref().map(|e| bounded(&e.to_string_lossy())),
            uid: p.uid,
            cgroup: p.cgroup.as_deref().map(bounded),
        });
        self
    }

    /// The name (or address) that policy decided on.
    #[must_use]
    pub fn host(self, host: &Host) -> Self {
        match host {
            Host::Name(name) => self.host_text(name.as_str()),
            Host::Ip(ip) => self.host_text(&ip.to_string()),
        }
    }

    /// The same for a name that is not canonical or not valid, as the agent wrote it.
    #[must_use]
    pub fn host_text(mut self, host: &str) -> Self {
        self.0.destination.get_or_insert_default().host = Some(bounded(host).into());
        self
    }

    /// The address the agent dialled.
    #[must_use]
    pub fn dialled(mut self, ip: std::net::IpAddr, port: u16) -> Self {
        let d = self.0.destination.get_or_insert_default();
        (d.ip, d.port) = (Some(ip), Some(port));
        self
    }

    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.0.destination.get_or_insert_default().port = Some(port);
        self
    }

    #[must_use]
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.protocol_text(protocol.as_str())
    }

    /// A protocol that policy does not know, such as `udp` or `dns`.
    #[must_use]
    pub fn protocol_text(mut self, protocol: &'static str) -> Self {
        self.0.destination.get_or_insert_default().protocol = Some(Cow::Borrowed(protocol));
        self
    }

    /// The request's head. A query or fragment in `target` is cut off.
    #[must_use]
    pub fn request(mut self, method: &str, target: &str, version: http::Version) -> Self {
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let version = match version {
            http::Version::HTTP_09 => "HTTP/0.9",
            http::Version::HTTP_10 => "HTTP/1.0",
            http::Version::HTTP_11 => "HTTP/1.1",
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_3 => "HTTP/3",
            _ => "other",
        };
        let r = self.0.request.get_or_insert_default();
        r.method = Some(bounded(method));
        r.path = Some(bounded(&target[..end]));
        r.version = Some(Cow::Borrowed(version));
        self
    }

    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.0.request.get_or_insert_default().status = Some(status);
        self
    }

    /// Names of the credentials that are attached.
    #[must_use]
    pub fn credentials(mut self, names: &[Arc<str>]) -> Self {
        self.0.credentials = names.to_vec();
        self
    }

    #[must_use]
    pub fn bytes(mut self, up: u64, down: u64) -> Self {
        self.0.bytes = Some(Bytes { up, down });
        self
    }

    #[must_use]
    pub fn duration(mut self, took: Duration) -> Self {
        self.0.duration_us = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self
    }

    #[must_use]
    pub fn message(mut self, text: &str) -> Self {
        self.0.message = Some(bounded(text));
        self
    }

    /// What policy allowed: host, port, protocol, rule, credentials; in audit mode also why it
    /// would have been refused.
    #[must_use]
    pub fn permit(self, permit: &Permit) -> Self {
        let allowed = self
            .decision(Decision::Allow)
            .host(permit.host())
            .port(permit.port())
            .protocol(permit.protocol())
            .rule(permit.rule())
            .credentials(permit.credentials());
        match permit.would_deny() {
            Some(denial) => allowed.denial(denial).decision(Decision::WouldDeny),
            None => allowed,
        }
    }

    /// What policy refused: reason, rule and the rule's message; the decision becomes deny.
    #[must_use]
    pub fn denial(self, denial: &Denial) -> Self {
        let refused =
            self.decision(Decision::Deny).reason(denial.reason).rule(denial.rule.as_ref());
        match &denial.message {
            Some(text) => refused.message(text),
            None => refused,
        }
    }
}

//! Pure: what the warden and the interceptor say to each other. Only these two have the socket.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::moment::Moment;
use crate::audit::Summary;
use crate::config::PolicyBundle;
use crate::confine::{Confined, Confinement};
use crate::inject::HandedOver;
use crate::outcome::{Decision, Reason};

/// The hidden first argument that makes the program an interceptor.
pub(crate) const ARGUMENT: &str = "__interceptor";

/// An order with its number, which the answer repeats.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub(crate) n: u64,
    pub(crate) what: T,
}

/// From the warden.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first one, with the descriptors of the maps FLOWS, LEASE, EVENTS and STATS.
    Start(Box<Start>),
    /// The warden lives: renew the lease. One that waited for longer than the lease (this process
    /// stood still) says nothing any more of who sent it.
    Tick { sent: Moment },
    /// These agents are so from now on, all of them or none; those that are not named stay.
    Agents(Vec<AgentOrder>),
    /// This agent is no more. Its connections end.
    Remove { agent: u64 },
    /// Serve an agent in a network namespace, with the listeners in the order of [`LISTENERS`].
    Listen { agent: u64, netns: u64, ipv6: bool },
    /// Stop to.
    Unlisten { agent: u64, netns: u64 },
    /// Write this into the audit log.
    Note(Note),
    /// What this session did so far.
    Summary { session: String },
    /// End in good order.
    Stop,
}

/// How many listeners come with [`Order::Listen`]: the interceptor's, DNS over TCP, DNS over UDP,
/// and with IPv6 the same three again.
pub(crate) const LISTENERS: usize = 3;

/// What an interceptor is given for life.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) state: PathBuf,
    /// The folder of the names of each agent.
    pub(crate) names: PathBuf,
    pub(crate) confinement: Confinement,
    pub(crate) lease: Duration,
    /// Records survive a power failure before the first byte goes upstream.
    pub(crate) power: bool,
    /// Of each agent, at one time.
    pub(crate) connections: usize,
    pub(crate) authority_certificate: String,
    pub(crate) authority_key: Pem,
    /// What the log is opened with.
    pub(crate) opening: String,
}

/// A private key as text.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Pem(pub(crate) Zeroizing<String>);

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(…)")
    }
}

/// An agent as it is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AgentOrder {
    /// Its cgroup's id.
    pub(crate) agent: u64,
    /// Its cgroup's path inside the hierarchy, as /proc/PID/cgroup shows it.
    pub(crate) cgroup: String,
    pub(crate) session: String,
    /// Names that no rule could allow are answered all the same, so that the refusal can be read.
    pub(crate) synthesize: bool,
    /// Outermost first. Empty: refused everything.
    pub(crate) chain: Vec<LinkOrder>,
}

/// One level of an agent's chain.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LinkOrder {
    pub(crate) name: String,
    pub(crate) policy: PolicyBundle,
    pub(crate) credentials: Vec<HandedOver>,
}

/// Something that the warden did or refused to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) kind: NoteKind,
    pub(crate) decision: Decision,
    pub(crate) reason: Option<Reason>,
    /// The chain of the agent that it is about.
    pub(crate) agent: Vec<String>,
    pub(crate) session: Option<String>,
    pub(crate) message: String,
    pub(crate) ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NoteKind {
    Admin,
    Policy,
    SessionStart,
    SessionEnd,
}

/// From the interceptor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It has given everything up and serves.
    Ready(Confined),
    /// The lease is renewed.
    Beat,
    Done,
    Summary(Summary),
    /// Nothing of the order was done.
    Failed(String),
}

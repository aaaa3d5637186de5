//! Stage 2: who is speaking. The cgroup is the identity; this module turns it into a chain of
//! agents (outermost first), a session, and what is known of the process.

mod cell;
pub mod names;
pub mod pattern;
mod process;
pub mod target;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::inject::CredentialSet;
use crate::policy::Policy;

pub use cell::{AgentCell, AgentWatch};
pub use pattern::Pattern;
pub use process::describe;
pub use target::Target;

/// A cgroup v2 id, as `bpf_get_current_cgroup_id()` and `name_to_handle_at(2)` give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupId(pub u64);

/// The cookie of a network namespace (`SO_NETNS_COOKIE`, kernel 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsCookie(pub u64);

/// The address the agent dialled, before the kernel hook rewrote it. Never dialled by egret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalDst(pub SocketAddr);

/// A session of an agent: random, printed as 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub Arc<str>);

impl SessionId {
    /// A new random session id.
    pub fn random() -> Self {
        let n: u64 = rand::random();
        Self(format!("{n:016x}").into())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of the process that opened a flow. The kernel's facts are always there; `exe`
/// and `cgroup` need /proc and are `None` when the process could not be proven to be the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub tgid: u32,
    pub uid: u32,
    /// Never used to decide: a process names itself.
    pub comm: String,
    pub exe: Option<PathBuf>,
    pub cgroup: Option<String>,
}

/// One link of an agent's chain.
#[derive(Clone, Debug)]
pub struct AgentLink {
    pub name: Arc<str>,
    pub policy: Arc<Policy>,
    pub credentials: Arc<CredentialSet>,
}

/// An agent: its chain of links, outermost ancestor first, and its session. Effective permission
/// is the conjunction over the chain.
#[derive(Clone, Debug)]
pub struct Agent {
    pub chain: Vec<AgentLink>,
    pub session: SessionId,
}

impl Agent {
    /// The policies of the chain, outermost first, as `policy::decide` takes them.
    pub fn policies(&self) -> Vec<&Policy> {
        self.chain.iter().map(|l| &*l.policy).collect()
    }

    /// The names of the chain, outermost first, as audit records carry them.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.chain.iter().map(|l| Arc::clone(&l.name)).collect()
    }
}

/// A redirected connection with everything the kernel said about it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Whose it is. The agent may be replaced while the connection is open.
    pub agent: Arc<AgentCell>,
    pub process: Process,
    pub original: OriginalDst,
}

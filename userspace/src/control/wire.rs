//! Pure: what the command line asks of the daemon, and what it answers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::audit::Summary;
use crate::config::{PolicyArgs, PolicyBundle};
use crate::confine::Confined;
use crate::identify::Target;
use crate::inject::HandedOver;

/// One request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Status,
    Attach(Box<Attach>),
    Detach {
        name: String,
        deny: bool,
    },
    /// Takes a `detach --deny` back.
    Reopen {
        name: String,
    },
    Reload,
    /// Comes with the descriptors of standard input, output and error.
    Run(Box<Run>),
    /// What a session of `run` did.
    Summary {
        session: String,
    },
}

/// `egret attach`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attach {
    pub name: String,
    pub target: Target,
    /// The daemon reads what these name, now and at each reload and restart.
    pub policy: PolicyArgs,
}

/// `egret run`, on behalf of a user. The policy and the secrets are the user's own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub name: Option<String>,
    pub policy: PolicyBundle,
    pub credentials: Vec<HandedOver>,
    pub command: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub cwd: OsString,
    /// `--user`: for root alone.
    pub user: Option<String>,
    /// Files that hold secrets, to be covered.
    pub covered: Vec<PathBuf>,
    pub keep_privileges: bool,
    pub allow_io_uring: bool,
    /// Which of the three standard streams are terminals; None: no terminal.
    pub terminal: Option<[bool; 3]>,
    pub foreground: bool,
    /// Soft limits for the command: (RLIMIT number, value).
    pub limits: Vec<(u32, u64)>,
    pub umask: u32,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Status(Box<Status>),
    /// Done, in one sentence.
    Done(String),
    Attached(Attached),
    /// Comes with the socket to the command's init process and its pidfd.
    Started {
        session: String,
        pid: i32,
    },
    Summary(Summary),
    /// Nothing was done, and why; the daemon is as before.
    Refused(String),
}

/// What attaching did to what ran already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub name: String,
    pub cgroup: String,
    /// Sockets that were open and no longer are.
    pub destroyed: usize,
    /// Of these, the ones made elsewhere: their processes can use them again, ungoverned.
    pub foreign: usize,
    pub namespaces: usize,
}

/// `egret status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub config: PathBuf,
    pub lease_ms: u64,
    pub interceptor: InterceptorStatus,
    pub agents: Vec<AgentStatus>,
    /// Groups whose unknown members are refused everything.
    pub guards: Vec<String>,
    /// Attached by an egret before, and nobody knows their policy: closed.
    pub orphans: Vec<String>,
    pub kernel: KernelStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterceptorStatus {
    /// None: it is being started; everything is refused meanwhile.
    pub pid: Option<i32>,
    pub restarts: u64,
    pub confined: Option<Confined>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    pub name: String,
    /// Names, outermost ancestor first.
    pub chain: Vec<String>,
    pub cgroup: String,
    pub session: String,
    pub policy: String,
    /// `config`, `attach` or `run`.
    pub source: String,
    /// Why it is refused everything; None: enforced.
    pub closed: Option<String>,
    /// Whether the kernel programs are on its own group, or on that of an agent above it.
    pub linked: bool,
    pub processes: usize,
    pub namespaces: usize,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KernelStatus {
    pub events_dropped: u64,
    pub flows_lost: u64,
    pub runs: BTreeMap<String, u64>,
}

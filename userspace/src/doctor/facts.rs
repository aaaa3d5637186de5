//! Pure: what the probes saw, as plain values. Nothing here judges.

use std::fmt;
use std::path::PathBuf;

use crate::audit::verify::Condition;

/// What a probe saw, or why it could not look. Whatever the kernel refused for a reason of its own
/// is a fact; not being allowed to ask is not.
pub type Seen<T> = Result<T, NotSeen>;

/// Why a probe could not look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSeen {
    /// The question is root's to ask.
    NeedsRoot,
    /// It builds on another probe, which did not succeed.
    Without(&'static str),
    /// The file system of this kind that would tell is not mounted there.
    NotMounted(&'static str, &'static str),
    Error(String),
}

impl fmt::Display for NotSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsRoot => f.write_str("it needs root"),
            Self::Without(what) => write!(f, "it needs {what}"),
            Self::NotMounted(kind, at) => write!(f, "no {kind} is mounted at {at}"),
            Self::Error(why) => f.write_str(why),
        }
    }
}

/// Everything that was probed.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Release and architecture, for the reader; nothing is concluded from it.
    pub kernel: String,
    pub privileges: Privileges,
    pub cgroups: Cgroups,
    pub programs: Programs,
    pub settings: Settings,
    pub host: Host,
    pub state: State,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Privileges {
    pub root: bool,
    /// The effective set, one bit per capability.
    pub effective: Seen<u64>,
    pub initial_user_namespace: Seen<bool>,
    /// Signs that this is the inside of a container.
    pub container: Vec<String>,
    /// Actions that the kernel's seccomp knows.
    pub seccomp_actions: Seen<Vec<String>>,
    /// A network namespace was made, or why not.
    pub private_namespace: Seen<Result<(), String>>,
}

/// Where cgroup v2 is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Where it is mounted.
    pub root: Option<PathBuf>,
    /// Controllers of version 1 that are mounted.
    pub v1: usize,
    pub read_only: bool,
    /// What is mounted is not the top of the hierarchy.
    pub part: bool,
}

#[derive(Clone, Debug)]
pub struct Cgroups {
    pub layout: Seen<Layout>,
    /// A group was made, or why not.
    pub created: Seen<Result<(), String>>,
    /// Whether the files `cgroup.freeze` and `cgroup.kill` work there.
    pub freeze: Seen<bool>,
    pub kill: Seen<bool>,
    /// Programs of others that sessions inherit.
    pub others: Seen<Vec<Other>>,
}

/// Programs of somebody else on one of egret's hooks, above the sessions' groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub hook: &'static str,
    /// The group that has them; None if it lies outside of what can be seen from here.
    pub cgroup: Option<PathBuf>,
    /// Names of the programs, or their ids.
    pub programs: Vec<String>,
    /// No group below may attach anything.
    pub exclusive: bool,
}

/// What became of egret's own programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    All(usize),
    /// bpf(2) is not for this process.
    NotPermitted(String),
    /// The verifier does not take this one.
    Refused {
        program: &'static str,
        why: String,
    },
    Failed(String),
}

#[derive(Clone, Debug)]
pub struct Programs {
    pub syscall: Seen<Result<(), String>>,
    pub ring_buffer: Seen<bool>,
    pub socket_storage: Seen<bool>,
    pub btf: Seen<bool>,
    /// /sys/kernel/btf/vmlinux.
    pub kernel_btf: bool,
    pub netns_cookie: Seen<Result<(), String>>,
    pub loaded: Seen<Loaded>,
    /// How many hooks fired, and whether there is IPv6; or what is wrong.
    pub proven: Seen<Result<(usize, bool), String>>,
    pub link_update: Seen<Result<(), String>>,
    pub unix_connect: Seen<bool>,
    /// A program for an LSM hook on a cgroup was loaded, or why not.
    pub lsm_cgroup: Seen<Result<(), String>>,
}

/// Switches and lists of the kernel. None: the kernel has no such switch.
#[derive(Clone, Debug)]
pub struct Settings {
    pub jit: Seen<Option<u64>>,
    pub unprivileged_bpf: Seen<Option<u64>>,
    /// The text of /sys/kernel/security/lockdown.
    pub lockdown: Seen<Option<String>>,
    pub lsm: Seen<Vec<String>>,
    /// Mount points of bpffs, in the order of mounting.
    pub bpffs: Seen<Vec<PathBuf>>,
    pub ptrace_scope: Seen<Option<u64>>,
    pub io_uring_disabled: Seen<Option<u64>>,
    pub max_user_namespaces: Seen<Option<u64>>,
    /// Debian's and AppArmor's own switches keep users without privileges from making them.
    pub user_namespaces_restricted: bool,
    pub core_pattern: Seen<String>,
}

#[derive(Clone, Debug)]
pub struct Host {
    /// Devices and files that are swapped to, with their size in KiB.
    pub swap: Seen<Vec<(String, u64)>>,
    /// A page could be locked in memory, or why not.
    pub lock: Result<(), String>,
    pub clocksource: Seen<String>,
    /// Seconds since 1970.
    pub now: u64,
    pub ipv6: bool,
    pub systemd: Option<Systemd>,
    /// How many root certificates are trusted.
    pub roots: usize,
    /// Whether egret can use /etc/resolv.conf: the name servers in it, or why not.
    pub resolver: Result<Vec<String>, String>,
}

/// A running systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Systemd {
    /// As `systemctl --version` says it.
    pub version: Option<String>,
    /// Its slices are groups of the cgroup v2 hierarchy.
    pub slices: Seen<bool>,
}

#[derive(Clone, Debug)]
pub struct State {
    pub path: PathBuf,
    /// None: it is not there yet.
    pub folder: Seen<Option<Folder>>,
    pub space: Seen<Space>,
    pub audit: Seen<Log>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    pub is_dir: bool,
    pub owner: u32,
    /// Who asks, which must be the owner.
    pub expected: u32,
    /// Permission bits.
    pub mode: u32,
    /// A folder above in which others may put something else in its place.
    pub exposed: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub bytes: u64,
    /// None where the file system does not count them.
    pub inodes: Option<u64>,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    None,
    /// Not verified, because that would take long; its bytes.
    Large(u64),
    Verified {
        condition: Condition,
        records: u64,
        journals: u64,
        first: Option<String>,
    },
}

//! Beside the flow: how `run` starts a command that has nowhere else to go.
//!
//! [`spawn`] starts egret's own program again as pid 1 of new PID, mount and IPC namespaces,
//! already inside the agent's cgroup. That process ([`init`]) enters the network namespace, lays
//! out what the agent may see of the file system, starts the command without privileges, and
//! stays to reap, to pass signals on and to wait until nothing is left. It is a new program, not
//! a fork, so none of egret's memory, secrets among it, is ever in it.
//!
//! ```text
//! egret ──clone3 into cgroup──▶ init (pid 1): netns, mounts ──fork──▶ command (uid of the user)
//!   ▲  ◀── packets: terminal, started, stopped, exited ──┘
//!   └── signals, "go on", and its own end: when this socket closes, everything inside dies
//! ```

mod child;
pub mod env;
pub mod hardening;
pub mod init;
pub(crate) mod mountinfo;
mod plan;
pub(crate) mod seccomp;
mod spawn;
mod terminal;
pub mod trust;
pub mod user;
mod wire;

pub use child::{Child, ExitStatus, Killer};
pub use plan::{Plan, TrustFiles};
pub use spawn::{ContainError, Remote, Spec, Terminals, launch_for, spawn};

/// Where the agent finds the certificates to trust. On a file system of its own, read-only.
pub const TRUST_DIR: &str = "/run/egret/trust";

//! Why the daemon does not start, or does not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use super::agents::PlaceError;
use super::link::LinkError;
use crate::config::LoadError;
use crate::contain::ContainError;
use crate::contain::user::UserError;
use crate::redirect::attach::AttachError;
use crate::redirect::bpffs::BpffsError;
use crate::redirect::cgroup::CgroupError;
use crate::redirect::ebpf::KernelError;
use crate::redirect::listener::ListenerError;
use crate::redirect::netns::NetnsError;
use crate::redirect::pins::PinError;
use crate::redirect::self_test::SelfTestError;
use crate::redirect::target::TargetError;
use crate::tls::authority::store::StoreError;

/// What can fail. Whatever it is, what was enforced before is enforced still, or closed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("`egret daemon` needs root: it loads kernel programs and attaches them to cgroups")]
    NotRoot,
    #[error("another egret daemon has {0}; one folder has one daemon (see --run)")]
    Running(PathBuf),
    #[error("{0}")]
    Config(#[from] LoadError),
    #[error("the daemon's folder: {0}")]
    Bpffs(#[from] BpffsError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    #[error(transparent)]
    Authority(#[from] StoreError),
    #[error(transparent)]
    Interceptor(#[from] LinkError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listener(#[from] ListenerError),
    #[error("the decision cannot be recorded, so nothing was done: {0}")]
    Audit(#[source] LinkError),
    #[error("no agent named `{0}` is attached; `egret status` lists them")]
    NoAgent(String),
    #[error("`{name}` is not opened: {why}")]
    StaysClosed { name: String, why: String },
    #[error("`{0}` is no name for an agent: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`")]
    BadName(String),
    #[error("the policy of `{name}`: {why}")]
    Policy { name: String, why: String },
    #[error("{path}: {source}")]
    At { path: PathBuf, source: io::Error },
    #[error("only root may run a command as another user ({0})")]
    User(String),
    #[error(
        "the daemon has given up new privileges, for what it starts as well: --allow-new-privileges needs root and --no-daemon"
    )]
    Privileges,
    #[error(transparent)]
    UnknownUser(UserError),
    #[error(transparent)]
    Contain(ContainError),
    #[error("cannot {doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
}

impl DaemonError {
    pub(super) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::At { path: path.clone(), source }
    }
}

//! Why `run` did not run: what happened, to which thing, what to do next.

use std::fmt;
use std::io;

use crate::audit::AuditError;
use crate::contain::{ContainError, trust::TrustError, user::UserError};
use crate::control::client::ClientError;
use crate::redirect::cgroup::CgroupError;
use crate::redirect::ebpf::KernelError;
use crate::redirect::listener::ListenerError;
use crate::redirect::netns::NetnsError;
use crate::redirect::self_test::SelfTestError;
use crate::secrets::SecretError;
use crate::tls::{authority::AuthorityError, leaf::LeafError};

/// The ways a session fails before, or instead of, its command.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "`egret run` needs root, or a daemon that does it for you: start it as `sudo egret run …` \
         (with `sudo -E` if the policy reads secrets from your environment; the command itself runs \
         as you), or start the daemon and join its group"
    )]
    NotRoot,
    #[error(transparent)]
    User(#[from] UserError),
    #[error("{}", Lines(.0))]
    Secrets(Vec<SecretError>),
    #[error(
        "the audit log cannot be written, so nothing is started: {0}. Name another folder with --state, or make room"
    )]
    Audit(#[from] AuditError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(
        "{0}. `egret run` needs BPF and the right to load it (root, not a container without CAP_BPF)"
    )]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listener(#[from] ListenerError),
    #[error("the session's certificate authority cannot be made: {0}")]
    Authority(#[from] AuthorityError),
    #[error("the session's certificate authority cannot be made: {0}")]
    Leaf(#[from] LeafError),
    #[error("the agent's trust store cannot be made: {0}")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Contain(#[from] ContainError),
    #[error(transparent)]
    Daemon(#[from] ClientError),
    #[error("cannot {doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    #[error("egret failed while {0}; this is a bug")]
    Panicked(&'static str),
}

impl SessionError {
    /// The exit code of `run`: 126 not executable, 127 not found, 125 egret failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Contain(error) => error.exit_code(),
            _ => 125,
        }
    }
}

/// One error a line.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

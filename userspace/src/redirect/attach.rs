//! `egret attach`: governing a group whose processes run already.
//!
//! ```text
//! freeze     none of them runs, so none can slip through what follows
//! attach     from here on every packet meets the programs
//! prepare    the caller opens listeners in each network namespace found among them
//! destroy    what was connected before, and what other groups' sockets they hold
//! thaw       they go on, governed
//! ```
//!
//! A socket keeps the group that it was made in. One that was made elsewhere (before its process
//! came into the group, or passed to it) is destroyed if it is bound or connected; afterwards it can
//! be used again, ungoverned. The kernel offers no way to move it, so such sockets are counted in
//! [`Attached::foreign`], and the caller should end their processes rather than trust them.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::{Cgroup, CgroupError};
use super::ebpf::{Attachment, Kernel, KernelError, Overlap};
use super::held::{Held, destroy};
use super::netns::{Netns, NetnsError};
use crate::sys::sock_diag::DiagError;

/// How to attach.
#[derive(Clone, Debug)]
pub struct How<'a> {
    /// Pin under this name; None: the attachment ends with the process.
    pub name: Option<&'a str>,
    /// How long the group may take to come to a stop.
    pub freeze: Duration,
    /// What may be attached around it, if it is pinned.
    pub overlap: Overlap,
}

/// What was done.
#[derive(Debug)]
pub struct Attached<T> {
    pub attachment: Attachment,
    /// What the caller's `prepare` made of the namespaces.
    pub prepared: T,
    /// Sockets that were open and no longer are.
    pub destroyed: usize,
    /// Of these, the ones made in other groups: their processes can use them again, ungoverned.
    pub foreign: usize,
}

/// What was done to a group that was governed already.
#[derive(Debug)]
pub struct Joined<T> {
    /// What the caller's `prepare` made of the namespaces.
    pub prepared: T,
    /// Sockets that were open and no longer are.
    pub destroyed: usize,
    /// Of these, the ones made in other groups, as in [`Attached::foreign`].
    pub foreign: usize,
}

/// Why a running group could not be governed. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{0} is not a group of cgroup v2")]
    NotCgroup2(PathBuf),
    #[error("{0} holds egret itself, which would be cut off with it")]
    HoldsEgret(PathBuf),
    #[error("{0} holds processes that cannot be seen from this PID namespace")]
    HiddenProcess(PathBuf),
    #[error("{path} did not come to a stop within {limit:?}: a process in it hangs in the kernel")]
    DoesNotFreeze { path: PathBuf, limit: Duration },
    #[error("{path}: {source}")]
    Proc { path: PathBuf, source: io::Error },
    #[error("{left} sockets that were open before could not be destroyed")]
    Survivors { left: usize },
    #[error("the interceptor is not ready: {0}")]
    Prepare(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Diag(#[from] DiagError),
}

/// Attaches to a group of running processes. `prepare` is called while they stand still, with every
/// network namespace found among them: open listeners there
/// (`namespace.run(Listeners::open_here)`), and make the agent known to the kernel.
///
/// # Errors
/// The group is as it was before, except for sockets that were destroyed already, and runs on.
pub fn attach_running<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    kernel: &Kernel,
    cgroup: &Cgroup,
    how: &How<'_>,
    prepare: impl FnOnce(&[Netns]) -> Result<T, E>,
) -> Result<Attached<T>, AttachError> {
    check(cgroup)?;
    let frozen = Frozen::freeze(cgroup, how.freeze)?;
    let attachment = match how.name {
        Some(name) => kernel.attach_pinned(cgroup, name, how.overlap)?,
        None => kernel.attach(cgroup)?,
    };
    match settle(cgroup, prepare) {
        Ok(Joined { prepared, destroyed, foreign }) => {
            frozen.thaw()?;
            Ok(Attached { attachment, prepared, destroyed, foreign })
        }
        Err(error) => {
            if let Err(stuck) = attachment.detach() {
                tracing::warn!(%stuck, path = %cgroup.path().display(), "stays attached, and closed");
            }
            Err(error)
        }
    }
}

/// Makes an agent of its own of a group of running processes that lies below an attached one. The
/// programs are there already; from `prepare` on they see the new agent, so what was connected under
/// the old one is destroyed. `prepare` is called as by [`attach_running`].
///
/// # Errors
/// The group runs on. What `prepare` did stays done.
pub fn join_running<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    cgroup: &Cgroup,
    freeze: Duration,
    prepare: impl FnOnce(&[Netns]) -> Result<T, E>,
) -> Result<Joined<T>, AttachError> {
    check(cgroup)?;
    let frozen = Frozen::freeze(cgroup, freeze)?;
    let joined = settle(cgroup, prepare)?;
    frozen.thaw()?;
    Ok(joined)
}

/// Runs `f` while a group stands still, for changes to what is attached that nobody may see half
/// done.
///
/// # Errors
/// When the group does not come to a stop (then `f` has not run), or cannot go on.
pub fn while_frozen<T>(
    cgroup: &Cgroup,
    limit: Duration,
    f: impl FnOnce() -> T,
) -> Result<T, AttachError> {
    check(cgroup)?;
    let frozen = Frozen::freeze(cgroup, limit)?;
    let result = f();
    frozen.thaw()?;
    Ok(result)
}

/// What happens while the group stands still: the caller prepares, and what was open is destroyed.
fn settle<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    cgroup: &Cgroup,
    prepare: impl FnOnce(&[Netns]) -> Result<T, E>,
) -> Result<Joined<T>, AttachError> {
    let held = Held::by(&cgroup.processes()?)?;
    let prepared = prepare(&held.namespaces).map_err(|e| AttachError::Prepare(e.into()))?;
    let (destroyed, foreign) = destroy(&held, &cgroup.subtree()?)?;
    Ok(Joined { prepared, destroyed, foreign })
}

/// The network namespaces of every process in the group and below it, and those that they hold open.
///
/// # Errors
/// When a process cannot be looked at.
pub fn namespaces(cgroup: &Cgroup) -> Result<Vec<Netns>, AttachError> {
    Ok(Held::by(&cgroup.processes()?)?.namespaces)
}

fn check(cgroup: &Cgroup) -> Result<(), AttachError> {
    if !cgroup.is_v2() {
        return Err(AttachError::NotCgroup2(cgroup.path().into()));
    }
    let processes = cgroup.processes()?;
    if processes.contains(&std::process::id()) {
        return Err(AttachError::HoldsEgret(cgroup.path().into()));
    }
    // This is how the kernel writes a process that has no number here (cgroup.procs, cgroups(7)).
    if processes.contains(&0) {
        return Err(AttachError::HiddenProcess(cgroup.path().into()));
    }
    Ok(())
}

/// A group that stands still. It goes on when this is dropped, unless somebody else had stopped it.
struct Frozen<'a> {
    cgroup: &'a Cgroup,
    was_frozen: bool,
}

impl<'a> Frozen<'a> {
    fn freeze(cgroup: &'a Cgroup, limit: Duration) -> Result<Self, AttachError> {
        let path = cgroup.path().join("cgroup.freeze");
        let before = fs::read_to_string(&path).map_err(proc_error(&path))?;
        let frozen = Self { cgroup, was_frozen: before.trim() == "1" };
        cgroup.freeze()?;
        let deadline = Instant::now() + limit;
        loop {
            let events = cgroup.events()?;
            let text = io::read_to_string(&events).map_err(proc_error(&path))?;
            if text.lines().any(|line| line == "frozen 1") {
                return Ok(frozen);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AttachError::DoesNotFreeze { path: cgroup.path().into(), limit });
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
        }
    }

    fn thaw(self) -> Result<(), CgroupError> {
        let result = if self.was_frozen { Ok(()) } else { self.cgroup.thaw() };
        std::mem::forget(self);
        result
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if !self.was_frozen
            && let Err(error) = self.cgroup.thaw()
        {
            tracing::error!(%error, "the group stays frozen");
        }
    }
}

pub(super) fn proc_error(path: &Path) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Proc { path: path.into(), source }
}

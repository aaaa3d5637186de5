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

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::{Cgroup, CgroupError};
use super::ebpf::{Attachment, Kernel, KernelError, Overlap};
use super::netns::{Netns, NetnsError};
use crate::identify::{CgroupId, NetnsCookie};
use crate::sys::sock_diag::{Diag, DiagError, Socket};

/// Rounds of destroying until nothing is left. While all are frozen one is enough, unless a
/// connection is being accepted in the kernel.
const ROUNDS: usize = 8;

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

/// Destroys what a group has open while it runs: for one that is refused everything already, so
/// that nothing new comes. Answers how many sockets that were.
///
/// # Errors
/// When a process cannot be looked at, or a socket not be destroyed.
pub fn destroy_open(cgroup: &Cgroup) -> Result<usize, AttachError> {
    let held = Held::by(&cgroup.processes()?)?;
    Ok(destroy(&held, &cgroup.subtree()?)?.0)
}

/// Destroys what a group has on loopback with these ports: connections to ports of `connect` where
/// others listen, and listeners at ports of `listen` on other addresses.
///
/// # Errors
/// As [`destroy_open`].
pub fn destroy_ports(cgroup: &Cgroup, connect: &[u16], listen: &[u16]) -> Result<(), AttachError> {
    let held = Held::by(&cgroup.processes()?)?;
    let groups = cgroup.subtree()?;
    for netns in &held.namespaces {
        netns.run(|| -> Result<(), AttachError> {
            let diag = Diag::open_here()?;
            let sockets = diag.sockets()?;
            let mut own = sockets.iter().filter(|s| is_inside(s, &groups));
            let own_ports: BTreeSet<u16> = own.clone().map(|s| s.ports().0).collect();
            own.try_for_each(|socket| {
                let (local, peer) = socket.ports();
                let (from, to) = socket.addresses();
                let dialled = !socket.waits()
                    && to.is_loopback()
                    && connect.contains(&peer)
                    && !own_ports.contains(&peer);
                let seen = listen.contains(&local) && !from.is_loopback();
                if dialled || seen {
                    diag.destroy(socket)?;
                }
                Ok(())
            })
        })??;
    }
    Ok(())
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

/// What processes hold: network namespaces, and sockets by inode.
struct Held {
    namespaces: Vec<Netns>,
    sockets: BTreeSet<u64>,
}

impl Held {
    /// Threads count one by one: each may have its own namespace and its own table of descriptors.
    fn by(processes: &BTreeSet<u32>) -> Result<Self, AttachError> {
        let mut namespaces: BTreeMap<NetnsCookie, Netns> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut sockets = BTreeSet::new();
        let mut namespace = |path: &Path, name: String| -> Result<(), AttachError> {
            if seen.insert(name) {
                let file = File::open(path).map_err(proc_error(path))?;
                let netns = Netns::from_file(file)?;
                namespaces.entry(netns.cookie()).or_insert(netns);
            }
            Ok(())
        };
        for pid in processes {
            let tasks = Path::new("/proc").join(pid.to_string()).join("task");
            for task in list(&tasks)? {
                let own = task.join("ns/net");
                if let Some(name) = link(&own)? {
                    namespace(&own, name)?;
                }
                for fd in list(&task.join("fd"))? {
                    match link(&fd)? {
                        Some(name) if name.starts_with("net:[") => namespace(&fd, name)?,
                        Some(name) => sockets.extend(socket_inode(&name)),
                        None => {}
                    }
                }
            }
        }
        Ok(Self { namespaces: namespaces.into_values().collect(), sockets })
    }
}

/// The entries of a folder in /proc; none if the process is gone (a frozen one can be killed).
fn list(folder: &Path) -> Result<Vec<PathBuf>, AttachError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        other => other.map_err(proc_error(folder))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(e) if is_gone(&e) => break,
            Err(e) => return Err(proc_error(folder)(e)),
        }
    }
    Ok(paths)
}

fn link(path: &Path) -> Result<Option<String>, AttachError> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(proc_error(path)(e)),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// `socket:[12345]`
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Destroys, in each namespace, what these groups and processes had open. Answers how many, and how
/// many of them were made in other groups.
fn destroy(held: &Held, groups: &BTreeSet<CgroupId>) -> Result<(usize, usize), AttachError> {
    let (mut destroyed, mut foreign) = (0, 0);
    for netns in &held.namespaces {
        let (d, f) = netns.run(|| destroy_here(&held.sockets, groups))??;
        destroyed += d;
        foreign += f;
    }
    Ok((destroyed, foreign))
}

fn destroy_here(
    inodes: &BTreeSet<u64>,
    groups: &BTreeSet<CgroupId>,
) -> Result<(usize, usize), AttachError> {
    let diag = Diag::open_here()?;
    diag.probe()?;
    let (mut destroyed, mut foreign, mut left) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut doomed = diag.sockets()?;
        // One that was made elsewhere and waits is still listed after it was destroyed.
        doomed.retain(|s| is_doomed(s, inodes, groups) && (round == 0 || !s.waits()));
        left = doomed.len();
        if left == 0 {
            return Ok((destroyed, foreign));
        }
        for socket in &doomed {
            if diag.destroy(socket)? {
                destroyed += 1;
                foreign += usize::from(!is_inside(socket, groups));
            }
        }
    }
    Err(AttachError::Survivors { left })
}

fn is_inside(socket: &Socket, groups: &BTreeSet<CgroupId>) -> bool {
    socket.cgroup.is_some_and(|id| groups.contains(&CgroupId(id)))
}

/// A socket of the group is spared while it waits: what it sends meets the programs. One that was
/// made elsewhere is not, if a process of the group holds it.
fn is_doomed(socket: &Socket, inodes: &BTreeSet<u64>, groups: &BTreeSet<CgroupId>) -> bool {
    if is_inside(socket, groups) { !socket.waits() } else { inodes.contains(&socket.inode) }
}

fn proc_error(path: &Path) -> impl FnOnce(io::Error) -> AttachError {
    move |source| AttachError::Proc { path: path.into(), source }
}

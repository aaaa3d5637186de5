//! What the processes of a group hold open: network namespaces to be served in, and sockets to be
//! destroyed, since they were opened under another policy or under none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::attach::{AttachError, proc_error};
use super::cgroup::Cgroup;
use super::netns::Netns;
use crate::identify::{CgroupId, NetnsCookie};
use crate::sys::sock_diag::{Diag, Socket};

/// Rounds of destroying until nothing is left. While all are frozen one is enough, unless a
/// connection is being accepted in the kernel.
const ROUNDS: usize = 8;

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

/// What processes hold: network namespaces, and sockets by inode.
pub(super) struct Held {
    pub(super) namespaces: Vec<Netns>,
    sockets: BTreeSet<u64>,
}

impl Held {
    /// Threads count one by one: each may have its own namespace and its own table of descriptors.
    pub(super) fn by(processes: &BTreeSet<u32>) -> Result<Self, AttachError> {
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
pub(super) fn destroy(
    held: &Held,
    groups: &BTreeSet<CgroupId>,
) -> Result<(usize, usize), AttachError> {
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

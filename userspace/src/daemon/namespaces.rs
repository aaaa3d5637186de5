//! The listeners of an agent, in each network namespace that a process of its is in.
//!
//! Listeners in the daemon's own namespace are always there, so that what starts in a group that
//! was empty is served from its first connection on. A namespace without listeners is refused everything by the hooks. Listeners hold their
//! namespace, so those of one that nobody is in any more are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::sys::stat::fstat;

use super::error::DaemonError;
use super::governor::{Governor, Now};
use super::link::Link;
use crate::identify::{CgroupId, NetnsCookie};
use crate::intercept::wire::Order;
use crate::redirect::listener::Listeners;
use crate::redirect::netns::Netns;

/// A namespace without a process of the agent's for so many looks is left.
const EMPTY_LOOKS: u32 = 8;

/// The listeners of one agent.
#[derive(Debug, Default)]
pub(super) struct Sockets(BTreeMap<NetnsCookie, Place>);

#[derive(Debug)]
struct Place {
    listeners: Listeners,
    /// The namespace's inode, by which /proc names it. It comes again only after the namespace is
    /// gone, and the listeners hold it.
    inode: u64,
    empty: u32,
}

impl Sockets {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    fn has(&self, inode: u64) -> bool {
        self.0.values().any(|place| place.inode == inode)
    }

    /// The namespaces, so that they can be left.
    pub(super) fn cookies(&self) -> Vec<NetnsCookie> {
        self.0.keys().copied().collect()
    }

    /// Tells an interceptor that has just started of every listener.
    pub(super) fn pass_all(&self, link: &Link, agent: CgroupId) -> Result<(), DaemonError> {
        self.0.iter().try_for_each(|(cookie, place)| pass(link, agent, *cookie, &place.listeners))
    }
}

impl Governor {
    /// Opens listeners for an agent in a namespace. The interceptor has them before the kernel
    /// sends anything there.
    pub(super) fn open_listeners(
        &self,
        link: &Link,
        agent: CgroupId,
        netns: &Netns,
        sockets: &mut Sockets,
    ) -> Result<(), DaemonError> {
        let cookie = netns.cookie();
        if sockets.0.contains_key(&cookie) {
            return Ok(());
        }
        let meta = fstat(netns).map_err(|e| DaemonError::io("look at a namespace")(e.into()))?;
        let listeners = netns.run(Listeners::open_here)??;
        pass(link, agent, cookie, &listeners)?;
        self.kernel.set_listeners(cookie, agent, listeners.ports().into())?;
        sockets.0.insert(cookie, Place { listeners, inode: meta.st_ino, empty: 0 });
        Ok(())
    }

    /// Opens listeners for an agent in the daemon's own namespace.
    pub(super) fn open_own_listeners(
        &self,
        link: &Link,
        agent: CgroupId,
        sockets: &mut Sockets,
    ) -> Result<(), DaemonError> {
        self.open_listeners(link, agent, &self.netns, sockets)
    }

    /// Closes an agent's listeners in a namespace.
    pub(super) fn close_listeners(
        &self,
        agent: CgroupId,
        cookie: NetnsCookie,
        sockets: &mut Sockets,
    ) -> Result<(), DaemonError> {
        self.kernel.remove_listeners(cookie, agent)?;
        if let Ok(link) = self.supervisor.link() {
            link.tell(Order::Unlisten { agent: agent.0, netns: cookie.0 }, &[])?;
        }
        sockets.0.remove(&cookie);
        Ok(())
    }

    /// Opens what is missing and closes what nobody needs, for every agent.
    pub(super) fn follow_namespaces(&self, now: &mut Now) {
        let Ok(link) = self.supervisor.link() else { return };
        for (name, governed) in &mut now.agents {
            if governed.private {
                continue; // it has one namespace for life, and no way into another
            }
            let id = governed.cgroup.id();
            let Ok(processes) = governed.cgroup.processes() else { continue };
            let found = namespaces_of(&processes);
            for (inode, path) in &found {
                if governed.sockets.has(*inode) {
                    continue;
                }
                let opened = fs::File::open(path)
                    .map_err(DaemonError::at(path))
                    .and_then(|file| Ok(Netns::from_file(file)?))
                    .and_then(|ns| self.open_listeners(&link, id, &ns, &mut governed.sockets));
                match opened {
                    Ok(()) => tracing::info!(agent = name, "serves another network namespace"),
                    // The process is gone by now, or the next look finds it again.
                    Err(error) => tracing::debug!(agent = name, %error, "a namespace stays closed"),
                }
            }
            let mut left = Vec::new();
            for (cookie, place) in &mut governed.sockets.0 {
                place.empty = if found.contains_key(&place.inode) { 0 } else { place.empty + 1 };
                let stays = *cookie == self.netns.cookie();
                if place.empty > EMPTY_LOOKS && !stays {
                    left.push(*cookie);
                }
            }
            for cookie in left {
                if let Err(error) = self.close_listeners(id, cookie, &mut governed.sockets) {
                    tracing::warn!(agent = name, %error, "listeners could not be closed");
                }
            }
        }
    }
}

/// The namespaces that threads of these processes are in: inode and where to open it.
fn namespaces_of(processes: &BTreeSet<u32>) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    for pid in processes {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let path = task.path().join("ns/net");
            if let Ok(meta) = fs::metadata(&path) {
                found.entry(meta.ino()).or_insert(path);
            }
        }
    }
    found
}

fn pass(
    link: &Link,
    agent: CgroupId,
    cookie: NetnsCookie,
    l: &Listeners,
) -> Result<(), DaemonError> {
    let mut fds: Vec<BorrowedFd<'_>> =
        vec![l.intercept_v4.as_fd(), l.dns_tcp_v4.as_fd(), l.dns_udp_v4.as_fd()];
    let six = (&l.intercept_v6, &l.dns_tcp_v6, &l.dns_udp_v6);
    let ipv6 = if let (Some(tcp), Some(dns), Some(udp)) = six {
        fds.extend([tcp.as_fd(), dns.as_fd(), udp.as_fd()]);
        true
    } else {
        false
    };
    let order = Order::Listen { agent: agent.0, netns: cookie.0, ipv6 };
    Ok(link.tell(order, &fds)?)
}

//! Who asks: the kernel's word for the process at the other end of a control connection.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::sys::pidfd;

/// The process that connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its cgroup's path inside the hierarchy.
    pub(crate) cgroup: PathBuf,
}

impl Peer {
    /// Reads the peer of a connected socket. It must still be alive, and be the process that
    /// connected: the pid is held by a pidfd while /proc is read.
    ///
    /// # Errors
    /// When it is gone, or its group cannot be told. Refuse it then.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let credentials = getsockopt(&socket, PeerCredentials)?;
        let pid = u32::try_from(credentials.pid()).map_err(io::Error::other)?;
        // From Linux 6.5 on the socket itself has the pidfd; before, the pid could have been
        // recycled between connect and here, by a process that would have had to wait for it.
        let held = match crate::sys::socket::peer_pidfd(socket.as_fd()) {
            Ok(fd) => fd,
            Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => pidfd::open(pid)?,
            Err(e) => return Err(e),
        };
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let cgroup = text.lines().find_map(|line| line.strip_prefix("0::"));
        let cgroup = cgroup.ok_or_else(|| io::Error::other("no cgroup v2 group"))?.into();
        if !pidfd::is_alive(&held) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { pid, uid: credentials.uid(), gid: credentials.gid(), cgroup })
    }

    /// Whether the peer's user belongs to a group, by the user database: what a process claims in
    /// its supplementary groups is not asked.
    pub(crate) fn belongs_to(&self, group: u32) -> bool {
        if self.gid == group {
            return true;
        }
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.uid)) else { return false };
        let Ok(name) = std::ffi::CString::new(user.name) else { return false };
        getgrouplist(&name, user.gid).is_ok_and(|all| all.contains(&Gid::from_raw(group)))
    }
}

//! Every Unix socket of the machine that has a file, as it is at this moment.
//!
//! /proc/net/unix alone does not find them: it lists one network namespace, shows the name that
//! was bound (relative to a folder that only the owner knows, through /proc/self/fd, or since
//! renamed), and knows nothing of hard links. So the kernel is also asked for the inodes of the
//! files (unix_diag, linux/unix_diag.h), in every network namespace that a process lives in, and
//! the folders where such files are usual are searched for those inodes. A file system is not
//! searched as a whole: a renamed socket in a folder that nothing points to is not found.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::contain::mountinfo::{BoundSocket, bound_sockets};
use crate::contain::plan::Plan;

/// Folders that are searched with the folders in them.
const USUAL: &[&str] = &["/tmp", "/var/tmp", "/var/lib"];

/// Entries that are looked at in the search, so that a huge folder does not delay the start.
const MOST_ENTRIES: usize = 50_000;

/// Finds them. Reads the /proc of the machine, and leaves this process in some network namespace.
///
/// # Errors
/// When /proc cannot be read at all. What cannot be asked for (a kernel without unix_diag) falls
/// back to the names.
pub(super) fn find(plan: &Plan) -> io::Result<BTreeSet<PathBuf>> {
    let namespaces = network_namespaces()?;
    let mut bound = Vec::new();
    for (process, _) in namespaces.values() {
        if let Ok(text) = fs::read(format!("/proc/{process}/net/unix")) {
            bound.extend(bound_sockets(&text));
        }
    }
    let mut inodes = HashSet::new();
    for (_, namespace) in namespaces.values() {
        if let Ok(found) = inodes_in(namespace) {
            inodes.extend(found);
        }
    }

    let absolute = |b: &&BoundSocket| b.name.is_absolute();
    let mut paths: BTreeSet<PathBuf> =
        bound.iter().filter(absolute).map(|b| b.name.clone()).collect();
    let mut search = Search { inodes: &inodes, found: BTreeSet::new(), left: MOST_ENTRIES };
    for path in &paths {
        search.folder(path.parent().unwrap_or(path), 0);
    }
    for folder in owners_folders(&bound) {
        search.folder(&folder, 0);
    }
    search.folder(Path::new(&plan.cwd), 1);
    search.folder(Path::new(&plan.user.home), 1);
    for folder in USUAL {
        search.folder(Path::new(folder), 1);
    }
    paths.append(&mut search.found);
    Ok(paths)
}

/// One task of each network namespace, and the namespace itself, held open: this process is about
/// to change its own.
fn network_namespaces() -> io::Result<HashMap<PathBuf, (String, File)>> {
    let mut namespaces = HashMap::new();
    let mut add = |task: String| {
        let path = format!("/proc/{task}/ns/net");
        if let Ok(name) = fs::read_link(&path)
            && let Entry::Vacant(place) = namespaces.entry(name)
            && let Ok(namespace) = File::open(&path)
        {
            place.insert((task, namespace));
        }
    };
    add("self".into());
    for process in fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        for task in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            add(format!("{pid}/task/{}", task.file_name().to_string_lossy()));
        }
    }
    Ok(namespaces)
}

/// The inodes of the files of all Unix sockets in a namespace, the lower 32 bits. This process
/// stays in it.
fn inodes_in(namespace: &File) -> io::Result<Vec<u32>> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    sendto(netlink.as_raw_fd(), &diag::REQUEST, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut inodes = Vec::new();
    let mut answer = vec![0; 64 * 1024];
    loop {
        let len = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if len == 0 || diag::read(&answer[..len], &mut inodes) {
            return Ok(inodes);
        }
    }
}

/// Where the owners of sockets with names that are not whole are: a relative name begins in the
/// owner's working folder, and /proc/self/fd/N is one of its descriptors.
fn owners_folders(bound: &[BoundSocket]) -> BTreeSet<PathBuf> {
    let unclear: HashMap<u64, &Path> = bound
        .iter()
        .filter(|b| b.name.is_relative() || b.name.starts_with("/proc"))
        .map(|b| (b.inode, b.name.as_path()))
        .collect();
    let mut folders = BTreeSet::new();
    if unclear.is_empty() {
        return folders;
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        for fd in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Some(name) = socket_inode(&fd.path()).and_then(|inode| unclear.get(&inode)) else {
                continue;
            };
            let parent = name.parent().unwrap_or(Path::new(""));
            let start = match parent.strip_prefix("/proc/self") {
                Ok(rest) => fs::canonicalize(process.path().join(rest)),
                Err(_) => fs::read_link(process.path().join("cwd")).map(|cwd| cwd.join(parent)),
            };
            folders.extend(start);
        }
    }
    folders
}

/// The inode in `socket:[123]`.
fn socket_inode(fd: &Path) -> Option<u64> {
    let target = fs::read_link(fd).ok()?;
    let inner = target.as_os_str().as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    OsStr::from_bytes(inner).to_str()?.parse().ok()
}

/// Looks in folders for socket files that belong to living sockets.
struct Search<'a> {
    inodes: &'a HashSet<u32>,
    found: BTreeSet<PathBuf>,
    left: usize,
}

impl Search<'_> {
    fn folder(&mut self, folder: &Path, deeper: u8) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() && self.inodes.contains(&low(entry.ino())) {
                self.found.insert(entry.path());
            } else if kind.is_dir() && deeper > 0 {
                self.folder(&entry.path(), deeper - 1);
            }
        }
    }
}

/// The part of an inode number that unix_diag tells.
fn low(inode: u64) -> u32 {
    (inode & 0xffff_ffff) as u32
}

/// The places at which the same file is to be seen besides `path`.
pub(super) fn other_views(
    mounts: &[crate::contain::mountinfo::Mount],
    path: &Path,
) -> Vec<PathBuf> {
    let id = |p: &Path| fs::symlink_metadata(p).map(|m| (m.dev(), m.ino())).ok();
    let Some(own) = id(path) else { return Vec::new() };
    crate::contain::mountinfo::aliases(mounts, path)
        .into_iter()
        .filter(|alias| id(alias) == Some(own))
        .collect()
}

/// unix_diag in bytes (linux/netlink.h, linux/sock_diag.h, linux/unix_diag.h).
mod diag {
    const HEADER: usize = 16;
    const MESSAGE: usize = 16; // struct unix_diag_msg
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const UNIX_DIAG_VFS: u16 = 1;

    /// A dump of all Unix sockets with their files: length 40, SOCK_DIAG_BY_FAMILY (20),
    /// NLM_F_REQUEST | NLM_F_DUMP (0x301), family AF_UNIX (1), all states, UDIAG_SHOW_VFS (2).
    pub(super) const REQUEST: [u8; 40] = {
        let mut m = [0; 40];
        put(&mut m, 0, &40_u32.to_ne_bytes());
        put(&mut m, 4, &20_u16.to_ne_bytes());
        put(&mut m, 6, &0x301_u16.to_ne_bytes());
        m[HEADER] = 1;
        put(&mut m, 20, &u32::MAX.to_ne_bytes());
        put(&mut m, 28, &2_u32.to_ne_bytes());
        m
    };

    const fn put(to: &mut [u8; 40], at: usize, bytes: &[u8]) {
        let mut i = 0;
        while i < bytes.len() {
            to[at + i] = bytes[i];
            i += 1;
        }
    }

    /// Takes the inodes out of one datagram; answers whether it was the last.
    pub(super) fn read(mut data: &[u8], inodes: &mut Vec<u32>) -> bool {
        while let (Some(len), Some(kind)) = (u32_at(data, 0), u16_at(data, 4)) {
            let len = len as usize;
            if kind == NLMSG_DONE || kind == NLMSG_ERROR || len < HEADER || len > data.len() {
                return true;
            }
            attributes(data.get(HEADER + MESSAGE..len).unwrap_or_default(), inodes);
            data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        false
    }

    fn attributes(mut data: &[u8], inodes: &mut Vec<u32>) {
        while let (Some(len), Some(kind)) = (u16_at(data, 0), u16_at(data, 2)) {
            let len = usize::from(len);
            if len < 4 {
                return;
            }
            if kind == UNIX_DIAG_VFS {
                inodes.extend(u32_at(data, 4)); // struct unix_diag_vfs: inode, device
            }
            data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn u32_at(data: &[u8], at: usize) -> Option<u32> {
        data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn u16_at(data: &[u8], at: usize) -> Option<u16> {
        data.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn inodes_are_read_and_nonsense_ends_it() {
            let mut m = Vec::new();
            m.extend(44_u32.to_ne_bytes());
            m.extend([20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            m.extend([0; MESSAGE]);
            m.extend([12, 0, 1, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
            let twice = [m.clone(), m.clone()].concat();
            let mut inodes = Vec::new();
            assert!(!read(&twice, &mut inodes));
            assert_eq!(inodes, [u32::from_ne_bytes([7, 0, 0, 0]); 2]);
            for end in 0..m.len() {
                inodes.clear();
                read(&m[..end], &mut inodes);
                assert!(inodes.is_empty(), "{end}");
            }
            let mut done = m;
            done[4] = 3;
            assert!(read(&done, &mut inodes));
        }
    }
}

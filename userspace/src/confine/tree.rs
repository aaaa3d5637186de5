//! The file system as the confined process sees it: as it is, but read-only and without devices
//! and programs, with a few folders to write in and a few that are empty.
//!
//! Nothing lies over a single file, so one that is replaced by renaming is seen as it becomes; a
//! device is the exception, since it is only replaced at boot. The namespace is private: what is
//! mounted later outside does not appear.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount as remount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{ConfineError, Confinement, step};
use crate::contain::mountinfo::{Mount, aliases, mounts};
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};

/// What nothing in the namespace needs. Root's devices, disks among them, can be written through a
/// read-only mount, so devices go too.
const HARMLESS: u64 = NO_SUID | NO_DEV | NO_EXEC;

/// Makes it, for this process alone.
pub(super) fn build(c: &Confinement) -> Result<(), ConfineError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace (it needs root)"))?;
    let none: Option<&str> = None;
    remount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(step("make the mounts private"))?;

    // Copied while they are as they were, and laid over what is sealed below.
    let mut layers = Vec::new();
    for path in &c.writable {
        let real = folder(path)?;
        let tree = mount::clone_tree(&real, true).map_err(at("copy", path))?;
        mount::add_attributes(&tree, HARMLESS, true).map_err(at("restrict", path))?;
        layers.push((real, tree));
    }
    for path in c.readable.iter().filter(|p| is_device(p)) {
        let real = fs::canonicalize(path).map_err(at("find", path))?;
        let tree = mount::clone_tree(&real, false).map_err(at("copy", path))?;
        mount::add_attributes(&tree, READ_ONLY | NO_SUID | NO_EXEC, false)
            .map_err(at("restrict", path))?;
        layers.push((real, tree));
    }
    let text = fs::read("/proc/self/mountinfo").map_err(step("read /proc/self/mountinfo"))?;
    let mounted = mounts(&text);
    for path in &c.hidden {
        let real = folder(path)?;
        for view in other_views(&mounted, &real).into_iter().chain([real]) {
            take_away(&mounted, &view);
            layers.push((view, empty()?));
        }
    }

    let root = open(Path::new("/")).map_err(at("open", Path::new("/")))?;
    mount::add_attributes(&root, READ_ONLY | HARMLESS, true)
        .map_err(step("make every mount read-only"))?;
    // A folder before what is in it, so that none hides another.
    layers.sort_by_key(|(path, _)| path.components().count());
    for (path, tree) in layers {
        open(&path)
            .and_then(|target| mount::attach(&tree, target.as_fd()))
            .map_err(at("mount over", &path))?;
    }
    std::env::set_current_dir("/").map_err(step("leave the working folder"))
}

/// Where a folder is, without symlinks.
fn folder(path: &Path) -> Result<PathBuf, ConfineError> {
    let real = fs::canonicalize(path).map_err(at("find", path))?;
    if real.is_dir() {
        return Ok(real);
    }
    Err(at("cover what is no folder,", path)(nix::errno::Errno::ENOTDIR.into()))
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.file_type().is_char_device())
}

/// Other mounts under which the folder is seen.
fn other_views(mounted: &[Mount], path: &Path) -> Vec<PathBuf> {
    let id = |p: &Path| fs::symlink_metadata(p).map(|m| (m.dev(), m.ino())).ok();
    let own = id(path);
    aliases(mounted, path).into_iter().filter(|alias| own.is_some() && id(alias) == own).collect()
}

/// Takes away what is mounted there, so that it is not even underneath (and ends with its last
/// mount outside, as egret's own bpffs must). Where that is refused it is underneath, out of reach.
fn take_away(mounted: &[Mount], folder: &Path) {
    for mount in mounted.iter().rev().filter(|m| m.point.starts_with(folder)) {
        let _ = umount2(&mount.point, MntFlags::MNT_DETACH);
    }
}

/// An empty file system to cover a folder with.
fn empty() -> Result<OwnedFd, ConfineError> {
    mount::new_filesystem(c"tmpfs", &[(c"mode", c"0555")], READ_ONLY | HARMLESS)
        .map_err(step("make an empty file system"))
}

fn open(path: &Path) -> std::io::Result<fs::File> {
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Adds what was being done, and to what, to an error.
fn at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ConfineError {
    move |source| ConfineError::Path { doing, path: path.to_owned(), source }
}

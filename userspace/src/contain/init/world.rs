//! What the agent may see: the host's file system, minus every interface that leads out of its
//! namespaces, plus what makes its clients trust egret.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::{Doing, cover, kernel_files, runtime_files, sockets, trust_files};
use crate::contain::plan::Plan;
use crate::contain::wire::Failure;
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};

/// A file system of egret's own, sealed read-only: the trust store and what covers are made of.
pub(super) const OWN: &str = "/run/egret";

/// Attributes of everything that is only to be looked at.
pub(super) const SEALED: u64 = READ_ONLY | NO_SUID | NO_DEV | NO_EXEC;

/// Makes the world of this process, which must be alone in its mount namespace.
pub(super) fn build(plan: &Plan, netns: OwnedFd) -> Result<(), Failure> {
    // The machine's sockets, found while its /proc is still there.
    let sockets = sockets::find(plan).doing("find the machine's Unix sockets")?;
    setns(netns, CloneFlags::CLONE_NEWNET).doing("enter the network namespace")?;
    // A namespace of cgroups has its root where this process is now: in the agent's own.
    unshare(CloneFlags::CLONE_NEWCGROUP).doing("make a cgroup namespace")?;
    std::env::set_current_dir("/").doing("leave the working folder")?;
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .doing("make the mounts private")?;

    runtime_files::build(plan)?;
    kernel_files::build()?;
    trust_files::place(plan)?;
    cover::all(plan, &sockets)
}

/// Puts a mount over `path`, which must exist; a symlink at its end is followed.
pub(super) fn place(mount: &OwnedFd, path: &Path) -> Result<(), Failure> {
    open_path(path, 0)
        .and_then(|target| mount::attach(mount, target.as_fd()))
        .doing(&format!("mount over {}", path.display()))
}

/// As [`place`], and a symlink at the end is an error.
pub(super) fn place_exactly(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    mount::attach(mount, open_path(path, libc::O_NOFOLLOW)?.as_fd())
}

fn open_path(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC | flags).open(path)
}

/// Lays a new file system over `path`. What was there is taken away first, so that it is not
/// even underneath; where that is refused it is underneath, out of reach.
pub(super) fn replace(
    path: &str,
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attrs: u64,
) -> Result<(), Failure> {
    let new = mount::new_filesystem(kind, options, attrs)
        .doing(&format!("make a file system for {path}"))?;
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
    place(&new, Path::new(path))
}

/// Shows `source` at `target`, read-only.
pub(super) fn show(source: &Path, target: &Path) -> Result<(), Failure> {
    let doing = format!("show {} at {}", source.display(), target.display());
    let tree = mount::clone_tree(source, false).doing(&doing)?;
    mount::add_attributes(&tree, SEALED, false).doing(&doing)?;
    place(&tree, target)
}

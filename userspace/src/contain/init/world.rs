//! What the agent may see: the host's file system, minus every interface that leads out of its
//! namespaces, plus what makes its clients trust egret.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
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

/// What the machine runs by itself, as root and outside: programs, libraries, cron, units, PAM.
const SYSTEM: &[&str] = &[
    "/etc",
    "/boot",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/var/spool",
    "/var/lib/systemd",
];

/// The part of [`SYSTEM`] that stays writable: package managers of languages install there.
const LOCAL: &str = "/usr/local";

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

    seal_system(plan)?;
    runtime_files::build(plan)?;
    kernel_files::build()?;
    trust_files::place(plan)?;
    cover::all(plan, &sockets)
}

/// An agent of uid 0 owns root's files even without capabilities. What it wrote to a crontab or a
/// unit would run outside, so for it the system is read-only. For every user, egret's own program
/// is: the next start of it would run as root.
fn seal_system(plan: &Plan) -> Result<(), Failure> {
    let egret = fs::read_link("/proc/self/exe").doing("find egret's own program")?;
    let local = mount::clone_tree(Path::new(LOCAL), true);
    if plan.user.uid == 0 {
        for path in SYSTEM.iter().map(Path::new) {
            // A symlink (/bin on a merged system) leads to what is sealed anyway.
            if fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
                seal_in_place(path)?;
            }
        }
        if let Ok(local) = local {
            place(&local, Path::new(LOCAL))?;
        }
    }
    // After an upgrade the running program has no path any more, and none that needs a seal.
    if egret.exists() { seal_in_place(&egret) } else { Ok(()) }
}

fn seal_in_place(path: &Path) -> Result<(), Failure> {
    let doing = format!("make {} read-only", path.display());
    let tree = mount::clone_tree(path, true).doing(&doing)?;
    mount::add_attributes(&tree, READ_ONLY, true).doing(&doing)?;
    place(&tree, path)
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

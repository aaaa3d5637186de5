//! Covers: what stays on the host's file system and must not be seen.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use super::Doing;
use super::sockets::other_views;
use super::trust_files::{EMPTY_FILE, EMPTY_FOLDER};
use super::world::{place, place_exactly};
use crate::contain::mountinfo::{allows, mounts};
use crate::contain::plan::Plan;
use crate::contain::user::Target;
use crate::contain::wire::Failure;
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID};

/// Files and folders that tell about the whole machine.
const MACHINE: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Folders in /tmp in which programs of the user's session keep sockets: a whole name, or how
/// the name begins.
const SOCKET_FOLDERS: &[&str] =
    &[".X11-unix", ".ICE-unix", ".font-unix", ".XIM-unix", "tmux-", "ssh-", "dbus-", "keyring-"];

/// Lays every cover.
pub(super) fn all(plan: &Plan, sockets: &BTreeSet<PathBuf>) -> Result<(), Failure> {
    let mounted = mounts(&fs::read("/proc/self/mountinfo").doing("read mountinfo")?);
    for path in MACHINE {
        cover_if_there(Path::new(path))?;
    }
    for path in &plan.covered {
        // Before the cover lies there: what it covers is no longer the same file.
        let views = fs::canonicalize(path).map(|real| other_views(&mounted, &real));
        cover_if_there(path)?;
        for view in views.unwrap_or_default() {
            cover_if_there(&view)?;
        }
    }
    kernel_interfaces_elsewhere()?;
    make_folder_of_tmux(&plan.user);
    for folder in socket_folders(Path::new("/tmp")) {
        if !plan.unix_sockets.iter().any(|p| Path::new(p).starts_with(&folder)) {
            empty_folder_like(&folder)?;
        }
    }
    for socket in sockets {
        if plan.unix_sockets.iter().any(|p| allows(p, socket)) {
            continue;
        }
        let views = other_views(&mounted, socket);
        cover_socket(socket)?;
        for view in views {
            cover_socket(&view)?;
        }
    }
    Ok(())
}

/// Covers what `path` leads to; what is not there needs no cover.
fn cover_if_there(path: &Path) -> Result<(), Failure> {
    let doing = || format!("cover {}", path.display());
    match fs::canonicalize(path) {
        Ok(real) => cover(&real),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(e) => Err(e).doing(&doing()),
    }
}

fn cover(path: &Path) -> Result<(), Failure> {
    let empty = if path.is_dir() { EMPTY_FOLDER } else { EMPTY_FILE };
    let tree = mount::clone_tree(Path::new(empty), false).doing("copy an empty cover")?;
    place(&tree, path)
}

/// A chroot's /proc, a second mount of cgroups or of bpffs: as good as the original.
fn kernel_interfaces_elsewhere() -> Result<(), Failure> {
    let text = fs::read("/proc/self/mountinfo").doing("read mountinfo")?;
    let known = ["/proc", "/sys", "/dev", "/run"];
    for mount in mounts(&text) {
        if mount.is_kernel_interface() && !known.iter().any(|k| mount.point.starts_with(k)) {
            cover_if_there(&mount.point)?;
        }
    }
    Ok(())
}

/// The user's tmux runs what it is told by whoever reaches its socket. The folder gets its cover
/// also when tmux is started later than the agent.
fn make_folder_of_tmux(user: &Target) {
    let folder = PathBuf::from(format!("/tmp/tmux-{}", user.uid));
    if DirBuilder::new().mode(0o700).create(&folder).is_ok() {
        let _ = lchown(&folder, Some(user.uid), Some(user.gid));
    }
}

fn socket_folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            SOCKET_FOLDERS.iter().any(|s| *s == name || s.ends_with('-') && name.starts_with(s))
        })
        .map(|e| e.path())
        .collect()
}

/// A new, empty folder of the same owner and mode, so that the same programs work inside among
/// themselves.
fn empty_folder_like(path: &Path) -> Result<(), Failure> {
    let doing = format!("cover {}", path.display());
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    let option = |n: u32| std::ffi::CString::new(n.to_string()).unwrap_or_default();
    let mode = std::ffi::CString::new(format!("{:o}", meta.mode() & 0o7777)).unwrap_or_default();
    let (uid, gid) = (option(meta.uid()), option(meta.gid()));
    let options = [(c"mode", mode.as_c_str()), (c"uid", &uid), (c"gid", &gid)];
    let tree =
        mount::new_filesystem(c"tmpfs", &options, NO_SUID | NO_DEV | NO_EXEC).doing(&doing)?;
    gone_is_fine(place_exactly(&tree, path)).doing(&doing)
}

fn cover_socket(path: &Path) -> Result<(), Failure> {
    if !fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        return Ok(()); // gone, or already out of sight
    }
    let doing = format!("cover the socket {}", path.display());
    let tree = mount::clone_tree(Path::new(EMPTY_FILE), false).doing(&doing)?;
    gone_is_fine(place_exactly(&tree, path)).doing(&doing)
}

/// Others may remove a socket at any moment.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

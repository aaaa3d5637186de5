//! Mounts as file descriptors: the interface of Linux 5.2 (`open_tree`, `fsmount`,
//! `move_mount`) and 5.12 (`mount_setattr`). A mount is made detached, filled, sealed, and only
//! then put in its place, so no half-made tree is ever visible.

#![expect(unsafe_code, reason = "libc has the numbers of these calls but no functions")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

// linux/mount.h
const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// Attributes of a mount (`MOUNT_ATTR_*`).
pub const READ_ONLY: u64 = 1;
pub const NO_SUID: u64 = 2;
pub const NO_DEV: u64 = 4;
pub const NO_EXEC: u64 = 8;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

const EMPTY: &CStr = c"";

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(check(result)?).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A new mount of a file system, detached. Options are `(key, value)`; an empty value is a flag.
///
/// # Errors
/// The error of `fsopen`, `fsconfig` or `fsmount` (Linux 5.2).
pub fn new_filesystem(kind: &CStr, options: &[(&CStr, &CStr)], attrs: u64) -> io::Result<OwnedFd> {
    // SAFETY: `kind` is a C string that lives over the call.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = context.as_raw_fd();
    for (key, value) in options {
        let (command, value) = if value.is_empty() {
            (FSCONFIG_SET_FLAG, std::ptr::null())
        } else {
            (FSCONFIG_SET_STRING, value.as_ptr())
        };
        // SAFETY: key is a C string; value is null for a flag, a C string otherwise.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) })?;
    }
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes null for key and value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) })?;
    // SAFETY: integers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attrs) })
}

/// A detached copy of the mount at `path` (what a bind mount would show); with `recursive`,
/// with everything that is mounted below. A symlink at the end is followed.
///
/// # Errors
/// The error of `open_tree` (Linux 5.2).
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let deep = if recursive { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | deep;
    // SAFETY: `path` is a C string that lives over the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Puts a detached mount over what `target` (an `O_PATH` descriptor) refers to.
///
/// # Errors
/// The error of `move_mount` (Linux 5.2).
pub fn attach(mount: impl AsFd, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty C strings, both descriptors are open.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            target.as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Adds attributes to the mount that `mount` refers to; with `recursive`, to all below it.
///
/// # Errors
/// The error of `mount_setattr` (Linux 5.12).
pub fn add_attributes(mount: impl AsFd, attrs: u64, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set: attrs, clear: 0, propagation: 0, userns_fd: 0 };
    let deep = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the structure and the size given with it agree.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH | deep,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

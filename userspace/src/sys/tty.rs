//! Terminals: a pseudoterminal pair, its size, and who controls it.

#![expect(unsafe_code, reason = "terminal ioctls have no safe wrapper")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A new pair from the devpts instance whose multiplexer is `ptmx`: master, then slave. Neither
/// becomes the controlling terminal.
///
/// # Errors
/// The error of `open(2)` or of the ioctls (`TIOCGPTPEER` needs Linux 4.13).
pub fn new_pair(ptmx: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let master: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(ptmx)?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer and returns a new descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: as above: new, and nobody else's.
    Ok((master.into(), unsafe { OwnedFd::from_raw_fd(slave) }))
}

/// Makes `tty` the controlling terminal of this session, whose leader the caller must be.
///
/// # Errors
/// The error of the ioctl.
pub fn make_controlling(tty: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// The size of a terminal.
///
/// # Errors
/// The error of the ioctl.
pub fn size(tty: impl AsFd) -> io::Result<Size> {
    let mut w = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    check(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut w) })?;
    Ok(Size { rows: w.ws_row, columns: w.ws_col })
}

/// Sets the size; the kernel tells the foreground process group with SIGWINCH.
///
/// # Errors
/// The error of the ioctl.
pub fn set_size(tty: impl AsFd, size: Size) -> io::Result<()> {
    let w = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const w) }).map(drop)
}

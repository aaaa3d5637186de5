//! Socket options that neither std nor nix know.
#![expect(unsafe_code, reason = "getsockopt(2) with options that nix lacks")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SO_NETNS_COOKIE: i32 = 71;

fn u64_option(socket: BorrowedFd<'_>, name: i32) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `value` and `length` are live, and `length` says how much may be written.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The cookie of the network namespace that a socket belongs to.
///
/// # Minimum kernel version
/// 5.14
///
/// # Errors
/// ENOPROTOOPT on an older kernel.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    u64_option(socket, SO_NETNS_COOKIE)
}

/// The cookie of a socket, the same as the kernel programs see.
///
/// # Errors
/// What getsockopt(2) answers.
pub fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    u64_option(socket, libc::SO_COOKIE)
}

/// `SO_PEERPIDFD` of asm-generic/socket.h.
const SO_PEERPIDFD: i32 = 77;

/// A pidfd of the process that connected a Unix socket.
///
/// # Minimum kernel version
/// 6.5
///
/// # Errors
/// ENOPROTOOPT on an older kernel, ESRCH when the process is gone.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` and `length` are live, and `length` says how much may be written.
    let ret = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just installed this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Accepts one connection of a listening socket, close-on-exec.
///
/// # Errors
/// The error of `accept4(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let fd = nix::sys::socket::accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just installed this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

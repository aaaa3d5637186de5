//! Socket options that neither std nor nix know.
#![expect(unsafe_code, reason = "getsockopt(2) with options that nix lacks")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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

//! The kernel's name for a network namespace.

#![expect(unsafe_code, reason = "getsockopt(2) of SO_NETNS_COOKIE has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The cookie of the namespace in which `socket` was made: unique until the next boot, and what
/// `bpf_get_netns_cookie()` gives in the kernel programs. Linux 5.14 (`SO_NETNS_COOKIE`,
/// net/core/sock.c).
///
/// # Errors
/// The error of `getsockopt(2)`: `ENOPROTOOPT` before 5.14.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut value = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `value` and `len` live over the call, and `len` is the size of `value`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

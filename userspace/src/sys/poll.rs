//! `poll(2)` on bare descriptor numbers, because -1 ("skip this one") is no descriptor.

#![expect(unsafe_code, reason = "poll(2) takes a pointer")]

use std::io;
use std::os::fd::RawFd;

use nix::poll::PollFlags;

/// Waits, without a limit, until one of `wanted` is ready. A descriptor of -1 never is. An
/// interruption by a signal counts as "nothing ready".
///
/// # Errors
/// The error of `poll(2)`.
pub fn wait(wanted: &[(RawFd, PollFlags)]) -> io::Result<Vec<PollFlags>> {
    let mut fds: Vec<libc::pollfd> = wanted
        .iter()
        .map(|&(fd, events)| libc::pollfd { fd, events: events.bits(), revents: 0 })
        .collect();
    // SAFETY: the pointer and the length are those of a live vector.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        for fd in &mut fds {
            fd.revents = 0;
        }
    }
    Ok(fds.iter().map(|f| PollFlags::from_bits_truncate(f.revents)).collect())
}

//! Signals as bytes on a pipe, for a thread that waits in `poll(2)`.

#![expect(unsafe_code, reason = "sigaction(2) takes a function that runs between instructions")]

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The write end; -1 while nothing is installed.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: libc::c_int) {
    let fd = WRITE_END.load(Ordering::Relaxed);
    if fd >= 0 {
        let byte = signal.to_le_bytes()[0];
        // SAFETY: write(2) is async-signal-safe and errno is restored below; a full pipe drops
        // the byte, and then the same signal is in it already or hundreds of others are.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(fd, (&raw const byte).cast(), 1);
            *libc::__errno_location() = errno;
        }
    }
}

/// Signals caught while this value lives; dropping it restores what was there before. One at a
/// time in a process. A signal that was ignored before (nohup) stays ignored.
#[derive(Debug)]
pub struct Caught {
    read_end: UnixStream,
    previous: Vec<(Signal, SigAction)>,
}

impl Caught {
    /// Catches `signals` from now on.
    ///
    /// # Errors
    /// The error of `socketpair(2)` or `sigaction(2)`, or `AlreadyExists`.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let (read_end, write_end) = UnixStream::pair()?;
        read_end.set_nonblocking(true)?;
        write_end.set_nonblocking(true)?;
        let fd = write_end.into_raw_fd();
        if WRITE_END.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            // SAFETY: `fd` was just released by into_raw_fd and is nobody else's.
            unsafe { libc::close(fd) };
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut caught = Self { read_end, previous: Vec::new() };
        let action =
            SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        for &signal in signals {
            // SAFETY: `note` calls nothing but write(2).
            let old = unsafe { sigaction(signal, &action)? };
            if matches!(old.handler(), SigHandler::SigIgn) {
                // SAFETY: the action is the one the kernel has just returned.
                unsafe { sigaction(signal, &old)? };
            } else {
                caught.previous.push((signal, old));
            }
        }
        Ok(caught)
    }

    /// The next signal, if one has arrived.
    pub fn take(&mut self) -> Option<Signal> {
        let mut byte = [0];
        match self.read_end.read(&mut byte) {
            Ok(1) => Signal::try_from(i32::from(byte[0])).ok(),
            _ => None,
        }
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read_end.as_fd()
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, old) in &self.previous {
            // SAFETY: `old` is what the kernel returned when the handler was installed.
            let _ = unsafe { sigaction(*signal, old) };
        }
        let fd = WRITE_END.swap(-1, Ordering::SeqCst);
        // SAFETY: `fd` is the write end that `new` released; no handler uses it any more.
        unsafe { libc::close(fd) };
    }
}

/// Does to this process what `signal` does by default, and returns when it goes on: for SIGTSTP
/// and its kin, stops it (with `group`: its whole process group) until SIGCONT. In an orphaned
/// process group the kernel ignores it and this returns at once.
pub fn stop_as_default(signal: Signal, group: bool) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL runs no code of ours.
    let Ok(old) = (unsafe { sigaction(signal, &default) }) else { return };
    let pid = nix::unistd::Pid::from_raw(0);
    let _ =
        if group { nix::sys::signal::kill(pid, signal) } else { nix::sys::signal::raise(signal) };
    // SAFETY: `old` is what the kernel returned two lines above.
    let _ = unsafe { sigaction(signal, &old) };
}

/// Sets SIGPIPE to its default, which the Rust runtime changed to "ignore".
pub fn restore_sigpipe() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: SIG_DFL runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &default) };
}

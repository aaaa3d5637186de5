//! A short-lived child in another cgroup and a fresh network namespace, for the self-test.
#![expect(unsafe_code, reason = "clone3(2) and an ioctl that nix lacks")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// `struct clone_args` as of Linux 5.7, when CLONE_INTO_CGROUP came.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Ends the process if the stack is unwound: the frames above belong to the parent.
struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        // SAFETY: ends this process at once, which is the point.
        unsafe { libc::_exit(101) }
    }
}

/// Runs `child` in a copy of this process, inside `cgroup` and a new network namespace, and
/// answers the number it returns. SIGALRM ends it after `seconds`.
///
/// `child` runs after a fork of a process that may have threads: it must not allocate, lock or log.
///
/// # Errors
/// When the process cannot be made, or was ended by a signal (then `TimedOut`).
pub fn in_child(
    cgroup: BorrowedFd<'_>,
    seconds: u32,
    child: impl FnOnce() -> u8,
) -> io::Result<u8> {
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP | libc::CLONE_NEWNET as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is live and its size is passed. Without CLONE_VM the child has its own copy of
    // memory and goes on here, as after fork(2).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        let _guard = ExitOnUnwind;
        // SAFETY: async-signal-safe calls; `_exit` leaves without running the parent's cleanup.
        unsafe {
            libc::signal(libc::SIGALRM, libc::SIG_DFL);
            libc::alarm(seconds);
            let code = child();
            libc::_exit(code.into())
        }
    }
    let pid = Pid::from_raw(pid as i32);
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code as u8),
            Ok(_) => return Err(io::ErrorKind::TimedOut.into()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Brings up `lo` in the network namespace of the calling thread.
///
/// # Errors
/// Without CAP_NET_ADMIN there.
pub fn loopback_up() -> io::Result<()> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all zero is a valid ifreq: a name that ends at once, and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is live, and is what SIOCSIFFLAGS reads.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

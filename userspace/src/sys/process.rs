//! Starting processes: `clone3(2)` straight into a cgroup and new namespaces, and `fork(2)`.

#![expect(unsafe_code, reason = "clone3, fork, exec and close_range have no safe wrapper")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

/// `CLONE_PIDFD` and `CLONE_INTO_CGROUP` of linux/sched.h.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A program to start, all memory for it allocated beforehand.
#[derive(Debug)]
pub struct Launch<'a> {
    pub program: &'a CStr,
    pub argv: &'a [CString],
    pub env: &'a [CString],
    /// What becomes 0, 1 and 2; `None`: the caller's own.
    pub stdio: Option<[BorrowedFd<'a>; 3]>,
    /// Descriptors that stay open over exec besides 0, 1 and 2.
    pub keep: &'a [BorrowedFd<'a>],
    /// The cgroup v2 folder in which the process begins its life (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Starts a program; returns its pid and a pidfd. The process begins in its cgroup and its
/// namespaces, with every signal blocked. An exec that fails ends it with the error's number as
/// exit code.
///
/// # Errors
/// The error of `clone3(2)`.
pub fn launch(l: &Launch<'_>) -> io::Result<(Pid, OwnedFd)> {
    let (argv, env) = (pointers(l.argv), pointers(l.env));
    let keep: Vec<RawFd> = l.keep.iter().map(|f| f.as_raw_fd()).collect();
    let stdio = l.stdio.map(|fds| fds.map(|f| f.as_raw_fd()));
    if stdio.is_some_and(|fds| fds.iter().any(|fd| *fd < 3)) {
        return Err(io::ErrorKind::InvalidInput.into()); // one would be overwritten by another
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = l.namespaces | CLONE_PIDFD;
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    args.exit_signal = Signal::SIGCHLD as u64;
    if let Some(cgroup) = l.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    let mut old = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut old))?;
    // SAFETY: without CLONE_VM the child has its own copy of memory. Until exec it makes only
    // the system calls below, on values made before, so no lock that another thread held
    // at this moment can matter.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        // SAFETY: raw system calls with arguments that live in the child's copy of memory.
        unsafe {
            if let Some(fds) = &stdio {
                for (to, from) in fds.iter().enumerate() {
                    if libc::dup2(*from, to as RawFd) < 0 {
                        libc::_exit(*libc::__errno_location());
                    }
                }
            }
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            for &fd in &keep {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
            libc::execve(l.program.as_ptr(), argv.as_ptr(), env.as_ptr());
            libc::_exit(*libc::__errno_location());
        }
    }
    let result = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&old), None)?;
    result?;
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: CLONE_PIDFD made this descriptor for us.
    Ok((Pid::from_raw(pid), unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// `fork(2)` for a process with one thread. `None` in the child.
///
/// # Errors
/// The error of `fork(2)`, or `Unsupported` when the process has more than one thread.
pub fn fork_single_threaded() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: with one thread, no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Replaces this process. Returns only the error.
pub fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end in null and their strings live over the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running anything else.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on to be closed at exec (Linux 5.11).
///
/// # Errors
/// The error of `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: integers only; nothing is closed before exec.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes ownership of a descriptor that was passed over exec by number.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD checks that the descriptor is open.
    if fd < 3 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: open, and named to this process by whoever started it as its own.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process of `pidfd` (Linux 5.1); never to a reused pid.
///
/// # Errors
/// The error of `pidfd_send_signal(2)`.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, none, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

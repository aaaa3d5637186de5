//! System calls that a confined process must not make, as attempts that change nothing where they
//! are let through: the kernel stumbles over an address, a descriptor or a flag before it does
//! anything. A filter in front of it does not look that far, so its EPERM tells the two apart.

#![expect(unsafe_code, reason = "each attempt is a bare system call")]

use std::ffi::{c_int, c_long};

/// No address of this process.
const NOWHERE: c_long = -1;
/// No descriptor.
const NONE: c_long = -1;
/// Every flag, among them some that no kernel knows.
const ALL: c_long = -1;
/// No process has this number (PID_MAX_LIMIT is 2^22).
const NOBODY: c_long = 0x7fff_ffff;
/// The machine's first process. Only signal 0, which asks and sends nothing, is sent to it.
const INIT: c_long = 1;

/// One of [`all`].
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    name: &'static str,
    call: c_long,
    args: [c_long; 6],
}

impl Attempt {
    /// What is attempted, for people.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes the call. Answers the error's number, or `None` if it was let through and succeeded.
    pub fn answer(&self) -> Option<i32> {
        let [a, b, c, d, e, f] = self.args;
        // SAFETY: the fields are private and every value stands in `all`: the call gets no address
        // of this process, so it can neither read nor write its memory, and it either fails before
        // it does anything, or only asks, or makes a socket.
        let result = unsafe { libc::syscall(self.call, a, b, c, d, e, f) };
        if result < 0 {
            return std::io::Error::last_os_error().raw_os_error();
        }
        if self.call == libc::SYS_socket {
            // SAFETY: a descriptor that the call above has just made.
            unsafe { libc::close(result as c_int) };
        }
        None
    }
}

const fn int(value: c_int) -> c_long {
    value as c_long
}

const fn call<const N: usize>(name: &'static str, call: c_long, given: [c_long; N]) -> Attempt {
    let mut args = [0; 6];
    let mut i = 0;
    while i < N {
        args[i] = given[i];
        i += 1;
    }
    Attempt { name, call, args }
}

/// Only from uid 0 with every capability does each of them answer something other than EPERM.
pub fn all() -> impl Iterator<Item = Attempt> {
    let bpf = BPF.iter().map(|(name, command)| call(name, libc::SYS_bpf, [*command, 0, 0]));
    let sockets = SOCKETS.iter().map(|&(name, family, kind, protocol)| {
        call(name, libc::SYS_socket, [int(family), int(kind), int(protocol)])
    });
    CALLS.iter().copied().chain(bpf).chain(sockets)
}

const CALLS: &[Attempt] = &[
    call("execve", libc::SYS_execve, [NOWHERE, NOWHERE, NOWHERE]),
    call("execveat", libc::SYS_execveat, [NONE, NOWHERE, NOWHERE, NOWHERE, ALL]),
    // A user namespace cannot share a root folder with its maker.
    call("clone", libc::SYS_clone, [int(libc::CLONE_NEWUSER | libc::CLONE_FS)]),
    call("ptrace", libc::SYS_ptrace, [-1, NOBODY]),
    call("process_vm_readv", libc::SYS_process_vm_readv, [NOBODY, 0, 0, 0, 0, ALL]),
    call("process_vm_writev", libc::SYS_process_vm_writev, [NOBODY, 0, 0, 0, 0, ALL]),
    call("process_madvise", libc::SYS_process_madvise, [NONE, 0, 0, 0, 0]),
    call("pidfd_getfd", libc::SYS_pidfd_getfd, [NONE, NONE, 0]),
    call("pidfd_send_signal", libc::SYS_pidfd_send_signal, [NONE, 0, 0, 0]),
    call("kill", libc::SYS_kill, [INIT, 0]),
    call("tkill", libc::SYS_tkill, [INIT, 0]),
    call("tgkill of another process", libc::SYS_tgkill, [INIT, INIT, 0]),
    call("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, [INIT, 0, NOWHERE]),
    call("fcntl F_SETOWN", libc::SYS_fcntl, [NONE, 8, INIT]),
    call("fcntl F_SETSIG", libc::SYS_fcntl, [NONE, 10, 0]),
    call("fcntl O_ASYNC", libc::SYS_fcntl, [NONE, int(libc::F_SETFL), int(libc::O_ASYNC)]),
    call("prlimit64 of another process", libc::SYS_prlimit64, [INIT, 0, 0, 0]),
    call("sched_setaffinity", libc::SYS_sched_setaffinity, [NOBODY, 0, 0]),
    call("setpriority", libc::SYS_setpriority, [99, 0, 0]),
    call("mount", libc::SYS_mount, [NOWHERE, NOWHERE, NOWHERE, 0, 0]),
    call("umount2", libc::SYS_umount2, [NOWHERE, 0]),
    call("pivot_root", libc::SYS_pivot_root, [NOWHERE, NOWHERE]),
    call("chroot", libc::SYS_chroot, [NOWHERE]),
    call("open_tree", libc::SYS_open_tree, [NONE, NOWHERE, ALL]),
    call("move_mount", libc::SYS_move_mount, [NONE, NOWHERE, NONE, NOWHERE, ALL]),
    call("fsopen", libc::SYS_fsopen, [NOWHERE, ALL]),
    call("mount_setattr", libc::SYS_mount_setattr, [NONE, NOWHERE, ALL, NOWHERE, 0]),
    call("setns", libc::SYS_setns, [NONE, 0]),
    call("unshare", libc::SYS_unshare, [ALL]),
    call("io_uring_setup", libc::SYS_io_uring_setup, [0, NOWHERE]),
    call("io_uring_enter", libc::SYS_io_uring_enter, [NONE, 0, 0, 0, 0, 0]),
    call("io_uring_register", libc::SYS_io_uring_register, [NONE, 0, 0, 0]),
    call("memfd_create", libc::SYS_memfd_create, [NOWHERE, 0]),
    call("mmap of code", libc::SYS_mmap, [0, 0, int(libc::PROT_EXEC), int(MAP_OWN), NONE, 0]),
    call("mprotect of code", libc::SYS_mprotect, [1, 0, int(libc::PROT_EXEC)]),
    call("userfaultfd", libc::SYS_userfaultfd, [ALL]),
    call("perf_event_open", libc::SYS_perf_event_open, [NOWHERE, 0, 0, NONE, 0]),
    call("keyctl", libc::SYS_keyctl, [-1]),
    call("add_key", libc::SYS_add_key, [NOWHERE, NOWHERE, 0, 0, 0]),
    call("request_key", libc::SYS_request_key, [NOWHERE, NOWHERE, 0, 0]),
    call("open_by_handle_at", libc::SYS_open_by_handle_at, [NONE, NOWHERE, 0]),
    call("mknodat", libc::SYS_mknodat, [NONE, NOWHERE, 0, 0]),
    call("finit_module", libc::SYS_finit_module, [NONE, NOWHERE, 0]),
    call("seccomp", libc::SYS_seccomp, [99, 0, 0]),
    call("capset", libc::SYS_capset, [NOWHERE, NOWHERE]),
    call("personality", libc::SYS_personality, [0xffff_ffff]), // asks
    call("prctl PR_SET_DUMPABLE", libc::SYS_prctl, [int(libc::PR_SET_DUMPABLE), 9]),
    call("prctl PR_SET_PDEATHSIG", libc::SYS_prctl, [int(libc::PR_SET_PDEATHSIG), 999]),
    call("ioctl TIOCSTI", libc::SYS_ioctl, [NONE, libc::TIOCSTI as c_long, NOWHERE]),
    call("ioctl FIOASYNC", libc::SYS_ioctl, [NONE, libc::FIOASYNC as c_long, NOWHERE]),
    call(
        "setsockopt SO_ATTACH_FILTER",
        libc::SYS_setsockopt,
        [NONE, int(libc::SOL_SOCKET), int(libc::SO_ATTACH_FILTER), NOWHERE, 0],
    ),
    call(
        "setsockopt TCP_ULP",
        libc::SYS_setsockopt,
        [NONE, int(libc::IPPROTO_TCP), int(libc::TCP_ULP), NOWHERE, 0],
    ),
    // One end of such a pair could be connected to any socket with a name.
    call(
        "socketpair of datagrams",
        libc::SYS_socketpair,
        [int(libc::AF_UNIX), int(libc::SOCK_DGRAM), 0, NOWHERE],
    ),
];

/// Private and anonymous; of no bytes, which is refused.
const MAP_OWN: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Commands of linux/bpf.h, each with attributes that are all zero.
const BPF: &[(&str, c_long)] = &[
    ("bpf MAP_CREATE", 0),
    ("bpf PROG_LOAD", 5),
    ("bpf OBJ_PIN", 6),
    ("bpf OBJ_GET", 7),
    ("bpf PROG_ATTACH", 8),
    ("bpf PROG_DETACH", 9),
    ("bpf PROG_GET_FD_BY_ID", 13),
    ("bpf MAP_GET_FD_BY_ID", 14),
    ("bpf BTF_LOAD", 18),
    ("bpf MAP_FREEZE", 22),
    ("bpf LINK_CREATE", 28),
    ("bpf LINK_UPDATE", 29),
    ("bpf LINK_DETACH", 34),
];

const SOCKETS: &[(&str, c_int, c_int, c_int)] = &[
    ("socket AF_UNIX", libc::AF_UNIX, libc::SOCK_STREAM, 0),
    ("socket AF_NETLINK", libc::AF_NETLINK, libc::SOCK_RAW, 0),
    ("socket AF_PACKET", libc::AF_PACKET, libc::SOCK_RAW, 0),
    ("socket AF_VSOCK", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ("socket AF_ALG", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ("raw socket, IPv4", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    ("raw socket, IPv6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
    ("socket of SCTP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
    ("socket of MPTCP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
    ("socket of UDP-Lite", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
    ("ping socket", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
];

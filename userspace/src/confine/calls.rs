//! Pure: the seccomp filter of a confined process: what tokio, rustls, hickory, sled and the
//! standard library need, and nothing else. Any other call answers EPERM; none ends the process,
//! because a library that probes for a call must hear "no" and go on.
//!
//! - `socket` makes TCP and UDP sockets on IPv4 and IPv6; `socketpair` only Unix streams, since
//!   one end of a pair of datagram sockets can be connected to any name;
//! - `clone` makes threads; `clone3` does not exist, so that the C library uses `clone`, whose
//!   flags can be seen;
//! - signals go to this process only, and not by the ways around `kill` either: a descriptor can
//!   be told to send any signal to any process (F_SETOWN, F_SETSIG, O_ASYNC);
//! - `bpf` reads and writes maps that the process was given;
//! - memory never becomes code.
//!
//! `pidfd_open` stays: it tells processes apart ([`crate::identify`]), and what could be done with
//! such a descriptor is refused.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use crate::contain::seccomp::clone3_guard;

/// Allowed whatever the arguments.
const FREE: &[c_long] = &[
    // Descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_pidfd_open,
    // Files: which ones, mounts, modes and Landlock say.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    // Sockets that exist.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getcpu,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall, // what a sleep becomes after SIGSTOP and SIGCONT
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals that arrive.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    // Questions.
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_capget,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Older spellings of some of them, which C libraries use where they exist, and what the crate libc
/// does not name everywhere.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_sync_file_range,
    libc::SYS_renameat,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_link,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[84, 38]; // sync_file_range and renameat of asm-generic/unistd.h

/// What pthread_create(3) asks for.
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// bpf(2) on maps that one holds: look up, update, delete, next key, describe, take.
const BPF: &[i32] = &[1, 2, 3, 4, 15, 21];

const PRCTL: &[i32] =
    &[libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_GET_DUMPABLE, libc::PR_GET_NO_NEW_PRIVS];

const FCNTL: &[i32] =
    &[libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];

/// Non-blocking mode, waiting bytes, close-on-exec, and what isatty(3) and the log ask.
const IOCTL: &[u64] =
    &[libc::FIONBIO, libc::FIONREAD, libc::FIOCLEX, libc::TCGETS, libc::TIOCGWINSZ];

/// Level and name.
const SOCKET_OPTIONS: &[(i32, &[i32])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_KEEPALIVE,
            libc::SO_LINGER,
            libc::SO_SNDBUF,
            libc::SO_RCVBUF,
            libc::SO_SNDTIMEO,
            libc::SO_RCVTIMEO,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_QUICKACK,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_USER_TIMEOUT,
        ],
    ),
    (libc::IPPROTO_IP, &[libc::IP_TOS, libc::IP_TTL, libc::IP_PKTINFO, libc::IP_MTU_DISCOVER]),
    (libc::IPPROTO_IPV6, &[libc::IPV6_V6ONLY, libc::IPV6_RECVPKTINFO, libc::IPV6_MTU_DISCOVER]),
];

type Rules = Result<Vec<SeccompRule>, BackendError>;

/// Builds the filter for the process `own`.
///
/// # Errors
/// On an architecture for which no filter can be built.
pub(super) fn filter(own: u32) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FREE.iter().chain(OLDER).map(|&call| (call, vec![])).collect();
    rules.insert(libc::SYS_socket, sockets()?);
    let streams = [is(0, libc::AF_UNIX)?, kind(libc::SOCK_STREAM)?];
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(streams.into())?]);
    rules.insert(libc::SYS_setsockopt, socket_options()?);
    rules.insert(libc::SYS_clone, threads()?);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![without(2, libc::PROT_EXEC)?])?]);
    }
    rules.insert(libc::SYS_tgkill, one_of(0, [u64::from(own)])?);
    rules.insert(libc::SYS_prlimit64, one_of(0, [0])?); // its own limits
    rules.insert(libc::SYS_bpf, one_of(0, numbers(BPF))?);
    rules.insert(libc::SYS_prctl, one_of(0, numbers(PRCTL))?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTL.iter().copied())?);
    let mut fcntl = one_of(1, numbers(FCNTL))?;
    fcntl.push(SeccompRule::new(vec![is(1, libc::F_SETFL)?, without(2, libc::O_ASYNC)?])?);
    rules.insert(libc::SYS_fcntl, fcntl);

    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let program: BpfProgram =
        SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?;
    // The program's own answer to another architecture is to end the process.
    Ok(architecture_guard(&program).into_iter().chain(clone3_guard()).chain(program).collect())
}

fn sockets() -> Rules {
    let kinds = [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)];
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for (of, protocol) in kinds {
            for protocol in [0, protocol] {
                rules.push(SeccompRule::new(vec![is(0, family)?, kind(of)?, is(2, protocol)?])?);
            }
        }
    }
    Ok(rules)
}

fn socket_options() -> Rules {
    let mut rules = Vec::new();
    for &(level, names) in SOCKET_OPTIONS {
        for &name in names {
            rules.push(SeccompRule::new(vec![is(1, level)?, is(2, name)?])?);
        }
    }
    Ok(rules)
}

/// musl adds CLONE_DETACHED, which means nothing.
fn threads() -> Rules {
    let mask = u64::from(!libc::CLONE_DETACHED.cast_unsigned());
    let exactly = SeccompCmpOp::MaskedEq(mask);
    Ok(vec![SeccompRule::new(vec![SeccompCondition::new(0, Dword, exactly, number(THREAD))?])?])
}

fn one_of(arg: u8, values: impl IntoIterator<Item = u64>) -> Rules {
    let equal = |v| SeccompRule::new(vec![SeccompCondition::new(arg, Dword, SeccompCmpOp::Eq, v)?]);
    values.into_iter().map(equal).collect()
}

fn is(arg: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, Dword, SeccompCmpOp::Eq, number(value))
}

fn without(arg: u8, flag: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(arg, Dword, SeccompCmpOp::MaskedEq(number(flag)), 0)
}

/// The kind of socket, which shares its argument with flags (SOCK_TYPE_MASK of linux/net.h).
fn kind(of: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(1, Dword, SeccompCmpOp::MaskedEq(0xf), number(of))
}

fn number(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn numbers(values: &[i32]) -> impl Iterator<Item = u64> {
    values.iter().copied().map(number)
}

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const ARCHITECTURE: u32 = 4; // offset in struct seccomp_data

/// EPERM for calls of another architecture. Which one is ours, `program` compares first thing.
fn architecture_guard(program: &[sock_filter]) -> Vec<sock_filter> {
    let ours = program.iter().find(|i| i.code == JUMP_IF_EQUAL).map_or(0, |i| i.k);
    let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: ARCHITECTURE },
        sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: ours },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: eperm },
    ]
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

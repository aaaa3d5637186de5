//! The seccomp filter of a contained command: what no cgroup hook sees.
//!
//! The hooks govern TCP and UDP on IPv4 and IPv6. Everything else that could carry bytes out, or
//! that gets past the hooks or past this filter, is refused with EPERM:
//!
//! - `socket` of any family but AF_UNIX, AF_INET, AF_INET6 and NETLINK_ROUTE (glibc's
//!   getaddrinfo asks the latter for addresses): so no AF_PACKET, AF_VSOCK, AF_XDP, AF_ALG …;
//!   `socketpair` of any family but AF_UNIX;
//! - io_uring, unless asked for: it creates sockets that this filter never sees;
//! - bpf, perf_event_open, userfaultfd, kexec, modules, and file handles (they name files past
//!   what mounts cover): nothing an agent needs;
//! - the keyrings, which still hold what the operator's session put there;
//! - the ioctls TIOCSTI and TIOCLINUX, which type into a terminal.
//!
//! User namespaces and ptrace stay: browsers, debuggers and sandboxes of the agent's own use
//! them. Neither leads out. A user namespace owns only what was made inside it; mounts that came
//! from outside are locked together, so a cover cannot be taken off; and the PID namespace holds
//! no process but the agent's own.
//!
//! For an agent of uid 0, or one that may become it, user namespaces are refused: inside one it
//! could mount the hierarchies of cgroups v1, which no cgroup namespace roots at the agent's own
//! group, and their files belong to it. Nothing is lost: without CAP_SETFCAP such a process
//! cannot map its user anyway (user_namespaces(7), since Linux 5.12).
//!
//! System calls of another architecture end the process (32-bit programs do not run); those of
//! x32 get EPERM.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

/// linux/tty ioctls that inject input or drive the console.
const REFUSED_IOCTLS: [u64; 2] = [libc::TIOCSTI, 0x541c];

const ALWAYS_REFUSED: &[libc::c_long] = &[
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_open_by_handle_at,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

const IO_URING: &[libc::c_long] =
    &[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Builds the filter; `root`: for a process that is, or may become, uid 0.
///
/// # Errors
/// On an architecture for which no filter can be built.
pub(super) fn filter(allow_io_uring: bool, root: bool) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let io_uring: &[libc::c_long] = if allow_io_uring { &[] } else { IO_URING };
    for &call in ALWAYS_REFUSED.iter().chain(io_uring) {
        rules.insert(call, vec![]); // whatever the arguments
    }
    rules.insert(libc::SYS_socket, refused_sockets()?);
    rules.insert(libc::SYS_socketpair, vec![rule(&[(0, SeccompCmpOp::Ne, libc::AF_UNIX)])?]);
    let ioctls = REFUSED_IOCTLS
        .iter()
        .map(|&request| {
            SeccompRule::new(vec![SeccompCondition::new(1, Dword, SeccompCmpOp::Eq, request)?])
        })
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    if root {
        let new_user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        let masked = SeccompCmpOp::MaskedEq(new_user);
        let condition = SeccompCondition::new(0, Dword, masked, new_user)?;
        for call in [libc::SYS_unshare, libc::SYS_clone] {
            rules.insert(call, vec![SeccompRule::new(vec![condition.clone()])?]);
        }
    }

    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    let clone3 = if root { clone3_guard() } else { vec![] };
    Ok(x32_guard().into_iter().chain(clone3).chain(program).collect())
}

/// Refused: a family outside the list, and netlink other than NETLINK_ROUTE (0).
fn refused_sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let ne = SeccompCmpOp::Ne;
    Ok(vec![
        rule(&[
            (0, ne.clone(), libc::AF_UNIX),
            (0, ne.clone(), libc::AF_INET),
            (0, ne.clone(), libc::AF_INET6),
            (0, ne.clone(), libc::AF_NETLINK),
        ])?,
        rule(&[(0, SeccompCmpOp::Eq, libc::AF_NETLINK), (2, ne, libc::NETLINK_ROUTE)])?,
    ])
}

fn rule(conditions: &[(u8, SeccompCmpOp, i32)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions
        .iter()
        .map(|(arg, op, value)| {
            SeccompCondition::new(*arg, Dword, op.clone(), u64::from(value.cast_unsigned()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    SeccompRule::new(conditions)
}

const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS, offset 0: seccomp_data.nr
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The flags of clone3 are in memory, where no filter can look. ENOSYS makes the C library use
/// clone instead.
pub(crate) fn clone3_guard() -> Vec<sock_filter> {
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    let number = u32::try_from(libc::SYS_clone3).expect("435");
    let enosys = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: number },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: enosys },
    ]
}

/// x32 shares the architecture number of x86_64 and marks its calls with bit 30, so a filter by
/// number alone lets all of them pass. Three instructions in front refuse them.
fn x32_guard() -> Vec<sock_filter> {
    if !cfg!(target_arch = "x86_64") {
        return vec![];
    }
    const JUMP_IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
    let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: eperm },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_io_uring_is_a_choice() {
        let strict = filter(false, false).unwrap();
        let loose = filter(true, false).unwrap();
        assert!(strict.len() > loose.len());
        assert!(filter(false, true).unwrap().len() > strict.len());
        assert!(strict.len() < 400, "{}", strict.len());
    }
}

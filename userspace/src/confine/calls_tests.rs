//! What the filter answers, by a small machine for its instructions.

use super::*;

const OWN: u32 = 4321;
/// AUDIT_ARCH_* of linux/audit.h.
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const I386: u32 = 0x4000_0003;

fn ours() -> u32 {
    if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 }
}

/// Runs a classic BPF program on `struct seccomp_data`.
fn run(program: &[sock_filter], call: c_long, arch: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend([0; 8]);
    data.extend(args.iter().flat_map(|a| a.to_le_bytes()));
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let i = &program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                let from = i.k as usize;
                value = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => value &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(value == i.k),
            0x25 => at += jump(value > i.k),
            0x35 => at += jump(value >= i.k),
            0x06 => return i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn answer(call: c_long, args: &[i64]) -> &'static str {
    let mut all = [0; 6];
    for (to, from) in all.iter_mut().zip(args) {
        *to = from.cast_unsigned();
    }
    name(run(&filter(OWN).unwrap(), call, ours(), all))
}

fn name(answer: u32) -> &'static str {
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    match answer {
        libc::SECCOMP_RET_ALLOW => "allow",
        EPERM => "EPERM",
        ENOSYS => "ENOSYS",
        _ => "something else",
    }
}

#[test]
fn arguments_decide() {
    let exec = i64::from(libc::PROT_READ | libc::PROT_EXEC);
    let thread = i64::from(THREAD);
    let fork = i64::from(libc::SIGCHLD);
    let flags = i64::from(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let (tcp, udp) = (i64::from(libc::SOCK_STREAM), i64::from(libc::SOCK_DGRAM));
    let asynchronous = i64::from(libc::O_ASYNC | libc::O_NONBLOCK);
    let (unix, inet) = (i64::from(libc::AF_UNIX), i64::from(libc::AF_INET));
    let inet6 = i64::from(libc::AF_INET6);
    let high = 1_i64 << 32; // the kernel reads an int, so the rest says nothing
    let cases: &[(&str, c_long, &[i64], &str)] = &[
        ("a read", libc::SYS_read, &[0], "allow"),
        ("exec", libc::SYS_execve, &[], "EPERM"),
        ("a call of the future", 9999, &[], "EPERM"),
        ("clone3", libc::SYS_clone3, &[], "ENOSYS"),
        ("a thread", libc::SYS_clone, &[thread], "allow"),
        ("a thread of musl", libc::SYS_clone, &[thread | 0x0040_0000], "allow"),
        ("fork", libc::SYS_clone, &[fork], "EPERM"),
        ("vfork", libc::SYS_clone, &[fork | 0x4100], "EPERM"),
        ("a thread in a namespace", libc::SYS_clone, &[thread | 0x1000_0000], "EPERM"),
        ("a thread with a signal", libc::SYS_clone, &[thread | fork], "EPERM"),
        ("TCP", libc::SYS_socket, &[inet, tcp | flags, 0], "allow"),
        ("TCP by number", libc::SYS_socket, &[inet6, tcp, 6], "allow"),
        ("UDP", libc::SYS_socket, &[inet6, udp | flags, 17], "allow"),
        ("UDP that is TCP", libc::SYS_socket, &[inet, udp, 6], "EPERM"),
        ("MPTCP", libc::SYS_socket, &[inet, tcp, 262], "EPERM"),
        ("ping", libc::SYS_socket, &[inet, udp, 1], "EPERM"),
        ("raw", libc::SYS_socket, &[inet, 3, 17], "EPERM"),
        ("a Unix socket", libc::SYS_socket, &[unix, tcp, 0], "EPERM"),
        ("a Unix socket, padded", libc::SYS_socket, &[unix | high, tcp, 0], "EPERM"),
        ("a pair", libc::SYS_socketpair, &[unix, tcp | flags, 0], "allow"),
        ("a pair of datagrams", libc::SYS_socketpair, &[unix, udp, 0], "EPERM"),
        ("a pair of packets", libc::SYS_socketpair, &[unix, 5, 0], "EPERM"),
        ("TCP_NODELAY", libc::SYS_setsockopt, &[0, 6, 1], "allow"),
        ("TCP_NODELAY elsewhere", libc::SYS_setsockopt, &[0, 0, 1000], "EPERM"),
        ("TCP_REPAIR", libc::SYS_setsockopt, &[0, 6, 19], "EPERM"),
        ("memory", libc::SYS_mmap, &[0, 4096, 3], "allow"),
        ("code", libc::SYS_mmap, &[0, 4096, exec], "EPERM"),
        ("memory becomes code", libc::SYS_mprotect, &[0, 4096, exec], "EPERM"),
        ("its own thread", libc::SYS_tgkill, &[i64::from(OWN), 1, 6], "allow"),
        ("another's thread", libc::SYS_tgkill, &[1, 1, 6], "EPERM"),
        ("kill", libc::SYS_kill, &[i64::from(OWN), 6], "EPERM"),
        ("its limits", libc::SYS_prlimit64, &[0, 7], "allow"),
        ("another's limits", libc::SYS_prlimit64, &[1, 7], "EPERM"),
        ("a map read", libc::SYS_bpf, &[1], "allow"),
        ("a map taken from", libc::SYS_bpf, &[21], "allow"),
        ("a map made", libc::SYS_bpf, &[0], "EPERM"),
        ("a program", libc::SYS_bpf, &[5], "EPERM"),
        ("a batch", libc::SYS_bpf, &[24], "EPERM"),
        ("a thread's name", libc::SYS_prctl, &[15], "allow"),
        ("dumpable", libc::SYS_prctl, &[4, 1], "EPERM"),
        ("non-blocking", libc::SYS_fcntl, &[0, 4, 0x800], "allow"),
        ("signals of a descriptor", libc::SYS_fcntl, &[0, 4, asynchronous], "EPERM"),
        ("its owner", libc::SYS_fcntl, &[0, 8, 1], "EPERM"),
        ("FIONBIO", libc::SYS_ioctl, &[0, 0x5421], "allow"),
        ("TIOCSTI", libc::SYS_ioctl, &[0, 0x5412], "EPERM"),
    ];
    for (what, call, args, expected) in cases {
        assert_eq!(answer(*call, args), *expected, "{what}");
    }
}

#[test]
fn calls_of_another_architecture_are_refused_and_end_nobody() {
    let program = filter(OWN).unwrap();
    let of = |call, arch| name(run(&program, call, arch, [0; 6]));
    assert_eq!(of(libc::SYS_read, ours()), "allow", "control");
    assert_eq!(of(libc::SYS_read, I386), "EPERM");
    assert_eq!(of(libc::SYS_clone3, I386), "EPERM");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(of(0x4000_0000, ours()), "EPERM", "read of x32");
    }
}

#[test]
fn the_program_fits() {
    let program = filter(OWN).unwrap();
    assert!(program.len() < 4096, "BPF_MAXINSNS: {}", program.len());
    let ends = |i: &sock_filter| i.code == RETURN && i.k == libc::SECCOMP_RET_KILL_PROCESS;
    assert!(program.iter().filter(|i| ends(i)).count() <= 1, "only behind the guard");
}

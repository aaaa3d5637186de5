//! What the command may not do, whoever it runs as.

use std::fs;
use std::os::fd::AsRawFd;

use crate::harness::{Box, cgroup_root, outside, skipped};

#[test]
fn no_capability_is_left_and_no_new_privileges_come() {
    if skipped("no_capability_is_left_and_no_new_privileges_come") {
        return;
    }
    let b = Box::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status; id -u; id -g";
    for uid in ["0", "1000"] {
        let out = b.output(b.as_user(b.script(script), uid));
        let caps: Vec<&str> = out.lines().filter(|l| l.starts_with("Cap")).collect();
        assert_eq!(caps.len(), 5, "{out}");
        assert!(caps.iter().all(|l| l.ends_with("\t0000000000000000")), "{out}");
        assert!(out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"), "{out}");
        assert!(out.contains(&format!("\n{uid}\n")), "{out}");

        let mut plan = b.as_user(b.script(script), uid);
        plan.keep_privileges = true;
        let out = b.output(plan);
        assert!(out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t2"), "{out}");
        assert!(out.contains("CapBnd:\t0000000000000000"), "{out}");
    }
    let bounding = outside("grep CapBnd /proc/self/status");
    assert!(!bounding.contains("0000000000000000"), "control: {bounding}");
}

#[test]
fn descriptors_of_egret_are_closed() {
    if skipped("descriptors_of_egret_are_closed") {
        return;
    }
    let b = Box::new();
    let secret = b.path("secret");
    fs::write(&secret, "hunter2").unwrap();
    // Deliberately inheritable: what close-on-exec alone would not catch.
    let file = fs::File::open(&secret).unwrap();
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let fd = file.as_raw_fd();
    let list = format!("ls -l /proc/self/fd; cat <&{fd}");
    assert!(outside(&list).contains("hunter2"), "control");
    let out = b.output(b.script(&list));
    assert!(!out.contains("hunter2") && !out.contains("secret"), "{out}");
    assert!(!out.contains("socket:") && !out.contains("memfd"), "{out}");
}

/// `perl -e` is in every Debian base system and makes bare system calls.
const CALLS: &str = r#"
    sub try_call { my ($n, @a) = @_; my $r = syscall($a[0], @a[1..$#a]);
        print "$n ", ($r < 0 ? $!+0 : "ok"), "\n"; }
    try_call("unix", 41, 1, 1, 0); try_call("inet", 41, 2, 1, 0); try_call("inet6", 41, 10, 1, 0);
    try_call("route", 41, 16, 3, 0);
    try_call("packet", 41, 17, 3, 0); try_call("vsock", 41, 40, 1, 0);
    try_call("alg", 41, 38, 5, 0); try_call("netfilter", 41, 16, 3, 12);
    try_call("audit", 41, 16, 3, 9); try_call("sockpair", 53, 2, 1, 0, "x" x 8);
    try_call("x32", 0x40000000 + 41, 2, 1, 0);
    my $p = "\0" x 256; try_call("io_uring", 425, 4, $p);
    try_call("bpf", 321, 0, $p, 72); try_call("keyctl", 250, 0, -3, 0, 0, 0);
    try_call("userfaultfd", 323, 0); try_call("perf", 298, $p, 0, -1, -1, 0);
    my $c = "x"; try_call("tiocsti", 16, 0, 0x5412, $c);
"#;

fn answers(out: &str) -> std::collections::BTreeMap<String, String> {
    let pairs = out.lines().filter_map(|l| l.split_once(' '));
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_filter_refuses_what_no_hook_sees() {
    if skipped("the_filter_refuses_what_no_hook_sees") {
        return;
    }
    let script = format!("exec perl -e '{CALLS}'");
    let control = answers(&outside(&script));
    let b = Box::new();
    let refused = [
        "packet",
        "vsock",
        "alg",
        "netfilter",
        "audit",
        "sockpair",
        "x32",
        "io_uring",
        "bpf",
        "keyctl",
        "userfaultfd",
        "perf",
        "tiocsti",
    ];
    for uid in ["0", "65534"] {
        let inside = answers(&b.output(b.as_user(b.script(&script), uid)));
        for allowed in ["unix", "inet", "inet6", "route"] {
            assert_eq!(inside[allowed], "ok", "uid {uid}: {allowed}");
        }
        for call in refused {
            assert_eq!(inside[call], libc::EPERM.to_string(), "uid {uid}: {call}");
        }
    }
    for call in ["packet", "netfilter", "io_uring", "keyctl", "userfaultfd"] {
        assert_ne!(control[call], libc::EPERM.to_string(), "control: {call}");
    }
    let mut plan = b.script(&script);
    plan.allow_io_uring = true;
    assert_ne!(answers(&b.output(plan))["io_uring"], libc::EPERM.to_string());
}

#[test]
fn cgroups_cannot_be_left_by_uid_0() {
    if skipped("cgroups_cannot_be_left_by_uid_0") {
        return;
    }
    let b = Box::new();
    let elsewhere = Box::new();
    let target = elsewhere.cgroup.join("cgroup.procs");
    let root = cgroup_root().join("cgroup.procs");
    let script = format!(
        "for f in {} {} $(find /sys/fs/cgroup -name cgroup.procs); do\n\
           echo $$ >$f && echo MOVED $f; done\n\
         ls /sys/fs/cgroup; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/child && echo MADE",
        target.display(),
        root.display()
    );
    let out = b.output(b.script(&script));
    assert!(!out.contains("MOVED") && !out.contains("MADE"), "{out}");
    assert!(out.contains("cgroup.procs"), "its own cgroup can be read: {out}");
    let moved = format!("sh -c 'echo $$ >{} && echo MOVED'", target.display());
    assert!(outside(&moved).contains("MOVED"), "control");
}

#[test]
fn a_user_namespace_does_not_take_covers_off() {
    if skipped("a_user_namespace_does_not_take_covers_off") {
        return;
    }
    let b = Box::new();
    let state = b.path("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("key"), "hunter2").unwrap();
    let script = format!(
        "unshare -Urm sh -c 'umount {0}; umount -l /run; mount --bind / /mnt; \
           mount -o remount,bind,rw /sys/fs/cgroup && echo REMOUNTED; \
           cat {0}/key /mnt{0}/key; echo done'",
        state.display()
    );
    let mut plan = b.as_user(b.script(&script), "65534");
    plan.covered = vec![state.clone()];
    let out = b.output(plan);
    assert!(!out.contains("hunter2") && !out.contains("REMOUNTED"), "{out}");
    assert!(outside(&format!("cat {}/key", state.display())).contains("hunter2"), "control");
}

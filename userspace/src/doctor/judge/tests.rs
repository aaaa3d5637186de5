//! Each case spoils one fact of a machine on which everything is right. The control is that
//! machine itself: nothing but the spoilt finding may change.

use super::super::facts::{
    Cgroups, Facts, Folder, Host, Layout, Loaded, Log, NotSeen, Other, Privileges, Programs,
    Settings, Space, State, Systemd,
};
use super::super::finding::{Finding, Run, Status};
use super::judge;
use crate::audit::verify::Condition;

const NEEDS_ROOT: NotSeen = NotSeen::NeedsRoot;

fn good() -> Facts {
    Facts {
        kernel: "Linux 6.12.0 x86_64".to_owned(),
        privileges: Privileges {
            root: true,
            effective: Ok((1 << 41) - 1),
            initial_user_namespace: Ok(true),
            container: Vec::new(),
            seccomp_actions: Ok(["kill_process", "errno", "allow"].map(str::to_owned).to_vec()),
            private_namespace: Ok(Ok(())),
        },
        cgroups: Cgroups {
            layout: Ok(Layout { root: Some("/sys/fs/cgroup".into()), ..Layout::default() }),
            created: Ok(Ok(())),
            freeze: Ok(true),
            kill: Ok(true),
            others: Ok(Vec::new()),
        },
        programs: Programs {
            syscall: Ok(Ok(())),
            ring_buffer: Ok(true),
            socket_storage: Ok(true),
            btf: Ok(true),
            kernel_btf: true,
            netns_cookie: Ok(Ok(())),
            loaded: Ok(Loaded::All(14)),
            proven: Ok(Ok((14, true))),
            link_update: Ok(Ok(())),
            unix_connect: Ok(true),
            lsm_cgroup: Ok(Ok(())),
        },
        settings: Settings {
            jit: Ok(Some(1)),
            unprivileged_bpf: Ok(Some(2)),
            lockdown: Ok(Some("none [integrity] confidentiality".to_owned())),
            lsm: Ok(["capability", "bpf"].map(str::to_owned).to_vec()),
            bpffs: Ok(vec!["/sys/fs/bpf".into()]),
            ptrace_scope: Ok(Some(1)),
            io_uring_disabled: Ok(Some(2)),
            max_user_namespaces: Ok(Some(1000)),
            user_namespaces_restricted: false,
            core_pattern: Ok("core".to_owned()),
        },
        host: Host {
            swap: Ok(Vec::new()),
            lock: Ok(()),
            clocksource: Ok("tsc".to_owned()),
            now: 1_800_000_000,
            ipv6: true,
            systemd: Some(Systemd { version: Some("systemd 252".to_owned()), slices: Ok(true) }),
            roots: 140,
            resolver: Ok(vec!["192.0.2.1".to_owned()]),
        },
        state: State {
            path: "/var/lib/egret".into(),
            folder: Ok(Some(folder(0, 0o700))),
            space: Ok(Space { bytes: 1 << 40, inodes: Some(1 << 20), read_only: false }),
            audit: Ok(log(Condition::Intact)),
        },
    }
}

fn folder(owner: u32, mode: u32) -> Folder {
    Folder { is_dir: true, owner, expected: 0, mode, exposed: None }
}

fn log(condition: Condition) -> Log {
    Log::Verified { condition, records: 9, journals: 2, first: None }
}

fn other(exclusive: bool) -> Other {
    let programs = vec!["cil_sock4 (7)".to_owned()];
    Other { hook: "connect4", cgroup: Some("/sys/fs/cgroup".into()), programs, exclusive }
}

/// The findings that `spoil` changes, and what it does to `egret run`.
fn spoilt(spoil: impl FnOnce(&mut Facts)) -> (Vec<Finding>, Run) {
    let mut facts = good();
    spoil(&mut facts);
    let (before, after) = (judge(&good()), judge(&facts));
    assert_eq!(before.findings.len(), after.findings.len(), "every finding is always there");
    let pairs = before.findings.into_iter().zip(after.findings);
    let changed = pairs.filter(|(b, a)| b != a).map(|(_, a)| a).collect();
    (changed, after.run)
}

type Spoil = fn(&mut Facts);

/// Every case: what is wrong, the one finding that says so, how, and with which word.
fn table(cases: &[(Spoil, &str, Status, &str)], run: Run) {
    for (spoil, id, status, word) in cases {
        let (changed, concluded) = spoilt(spoil);
        let [finding] = &changed[..] else { panic!("{id}: {changed:?}") };
        assert_eq!((finding.id, finding.status), (*id, *status), "{finding:?}");
        assert!(finding.found.contains(word), "{id}: `{word}` is not in `{}`", finding.found);
        assert_eq!(concluded, run, "{id}: {finding:?}");
        let todo = finding.fix.is_some();
        assert!(todo || *status != Status::Fail, "a failure says what to do: {finding:?}");
    }
}

#[test]
fn on_a_good_machine_all_is_well() {
    let report = judge(&good());
    for f in &report.findings {
        assert_eq!(f.status, Status::Ok, "{f:?}");
    }
    assert_eq!((report.run, report.exit_code()), (Run::Possible, 0));
    let mut ids: Vec<_> = report.findings.iter().map(|f| f.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), report.findings.len(), "ids are unique");
}

#[test]
fn what_p1_needs_keeps_run_from_starting() {
    use Status::Fail;
    let cases: &[(Spoil, &str, Status, &str)] = &[
        (|f| f.privileges.root = false, "root", Fail, "not root"),
        (|f| f.privileges.effective = Ok(0), "capabilities", Fail, "CAP_SYS_ADMIN"),
        (
            |f| f.privileges.effective = Ok(((1 << 41) - 1) & !(1 << 12)),
            "capabilities",
            Fail,
            "missing: CAP_NET_ADMIN",
        ),
        (
            |f| f.privileges.initial_user_namespace = Ok(false),
            "user_namespace",
            Fail,
            "user namespace",
        ),
        (
            |f| f.privileges.seccomp_actions = Ok(vec!["errno".to_owned()]),
            "seccomp",
            Fail,
            "kill_process",
        ),
        (
            |f| f.privileges.private_namespace = Ok(Err("no CONFIG_NET_NS".to_owned())),
            "network_namespace",
            Fail,
            "CONFIG_NET_NS",
        ),
        (
            |f| f.cgroups.layout = Ok(Layout { v1: 9, ..Layout::default() }),
            "cgroup2",
            Fail,
            "only version 1",
        ),
        (|f| f.cgroups.layout = Ok(Layout::default()), "cgroup2", Fail, "no cgroup hierarchy"),
        (
            |f| {
                let root = Some("/c".into());
                f.cgroups.layout = Ok(Layout { root, read_only: true, ..Layout::default() });
            },
            "cgroup2",
            Fail,
            "read-only at /c",
        ),
        (|f| f.cgroups.created = Ok(Err("EROFS".to_owned())), "cgroup_create", Fail, "EROFS"),
        (|f| f.cgroups.others = Ok(vec![other(true)]), "other_programs", Fail, "alone"),
        (|f| f.programs.syscall = Ok(Err("ENOSYS".to_owned())), "bpf", Fail, "ENOSYS"),
        (|f| f.programs.ring_buffer = Ok(false), "ring_buffer", Fail, "5.8"),
        (|f| f.programs.socket_storage = Ok(false), "socket_storage", Fail, "5.2"),
        (|f| f.programs.btf = Ok(false), "btf", Fail, "types"),
        (|f| f.programs.netns_cookie = Ok(Err("5.14".to_owned())), "netns_cookie", Fail, "5.14"),
        (
            |f| f.programs.loaded = Ok(Loaded::NotPermitted("EPERM".to_owned())),
            "programs",
            Fail,
            "EPERM",
        ),
        (
            |f| {
                let why = "EINVAL; invalid access".to_owned();
                f.programs.loaded = Ok(Loaded::Refused { program: "getpeername6", why });
            },
            "programs",
            Fail,
            "`getpeername6`: EINVAL; invalid access",
        ),
        (
            |f| f.programs.proven = Ok(Err("the kernel hook `egress` does not fire".to_owned())),
            "self_test",
            Fail,
            "`egress`",
        ),
        (
            |f| f.state.space = Ok(Space { bytes: 0, inodes: None, read_only: false }),
            "disk",
            Fail,
            "0 MiB",
        ),
        (
            |f| f.state.space = Ok(Space { bytes: 1 << 40, inodes: Some(0), read_only: false }),
            "disk",
            Fail,
            "0 inodes",
        ),
        (
            |f| f.state.space = Ok(Space { bytes: 1 << 40, inodes: None, read_only: true }),
            "disk",
            Fail,
            "read-only",
        ),
    ];
    table(cases, Run::Impossible);
}

#[test]
fn a_broken_promise_fails_although_run_starts() {
    use Status::Fail;
    let cases: &[(Spoil, &str, Status, &str)] = &[
        (|f| f.state.folder = Ok(Some(folder(1000, 0o700))), "state", Fail, "owner 1000"),
        (|f| f.state.folder = Ok(Some(folder(0, 0o770))), "state", Fail, "0770"),
        (|f| f.state.folder = Ok(Some(folder(0, 0o702))), "state", Fail, "0702"),
        (|f| f.state.audit = Ok(log(Condition::Tampered)), "audit", Fail, "tampered"),
        (|f| f.state.audit = Ok(log(Condition::Shorter)), "audit", Fail, "shorter"),
        (|f| f.state.audit = Ok(log(Condition::Unreadable)), "audit", Fail, "unreadable"),
    ];
    table(cases, Run::Possible);
}

#[test]
fn what_is_weaker_is_a_warning() {
    use Status::Warn;
    let cases: &[(Spoil, &str, Status, &str)] = &[
        (|f| f.privileges.container = vec!["docker".to_owned()], "container", Warn, "docker"),
        (
            |f| {
                let root = Some("/c".into());
                f.cgroups.layout = Ok(Layout { root, part: true, ..Layout::default() });
            },
            "cgroup2",
            Warn,
            "a part",
        ),
        (|f| f.cgroups.freeze = Ok(false), "cgroup_freeze", Warn, "5.2"),
        (|f| f.cgroups.kill = Ok(false), "cgroup_kill", Warn, "5.14"),
        (
            |f| f.cgroups.others = Ok(vec![other(false)]),
            "other_programs",
            Warn,
            "connect4 on /sys/fs/cgroup: cil_sock4 (7)",
        ),
        (|f| f.programs.link_update = Ok(Err("EINVAL".to_owned())), "link_update", Warn, "EINVAL"),
        (|f| f.programs.unix_connect = Ok(false), "connect_unix", Warn, "6.7"),
        (|f| f.programs.lsm_cgroup = Ok(Err("EPERM".to_owned())), "lsm_cgroup", Warn, "EPERM"),
        (|f| f.settings.jit = Ok(Some(0)), "jit", Warn, "off"),
        (|f| f.settings.unprivileged_bpf = Ok(Some(0)), "unprivileged_bpf", Warn, "allowed"),
        (|f| f.settings.lsm = Ok(vec!["capability".to_owned()]), "lsm", Warn, "capability"),
        (|f| f.settings.lsm = Ok(vec!["nobpf".to_owned()]), "lsm", Warn, "nobpf"),
        (
            |f| f.settings.bpffs = Ok(vec!["/b".into(), "/a".into(), "/b".into()]),
            "bpffs",
            Warn,
            "more than once at /b",
        ),
        (
            |f| f.host.swap = Ok(vec![("/dev/sda2".to_owned(), 2 << 20)]),
            "swap",
            Warn,
            "/dev/sda2 (2048 MiB); pages can be locked",
        ),
        (|f| f.host.now = 60, "clock", Warn, "2025"),
        (|f| f.host.clocksource = Ok("refined-jiffies".to_owned()), "clock", Warn, "jiffies"),
        (
            |f| f.host.systemd = Some(Systemd { version: None, slices: Ok(false) }),
            "systemd",
            Warn,
            "without slices",
        ),
        (|f| f.host.roots = 0, "ca_bundle", Warn, "none"),
        (|f| f.host.resolver = Ok(Vec::new()), "resolv_conf", Warn, "no server"),
        (|f| f.host.resolver = Err("line 3".to_owned()), "resolv_conf", Warn, "line 3"),
        (|f| f.state.folder = Ok(Some(folder(0, 0o755))), "state", Warn, "0755"),
        (
            |f| {
                let exposed = Some("/srv".into());
                f.state.folder = Ok(Some(Folder { exposed, ..folder(0, 0o700) }));
            },
            "state",
            Warn,
            "below /srv",
        ),
        (
            |f| f.state.space = Ok(Space { bytes: 9 << 20, inodes: None, read_only: false }),
            "disk",
            Warn,
            "9 MiB",
        ),
        (|f| f.state.audit = Ok(log(Condition::TornTail)), "audit", Warn, "torn"),
    ];
    table(cases, Run::Possible);
}

#[test]
fn what_could_not_be_probed_is_unknown_and_says_why() {
    use Status::Unknown;
    let essential: &[(Spoil, &str, Status, &str)] = &[
        (|f| f.privileges.effective = Err(NEEDS_ROOT), "capabilities", Unknown, "needs root"),
        (|f| f.cgroups.others = Err(NEEDS_ROOT), "other_programs", Unknown, "needs root"),
        (|f| f.programs.loaded = Err(NEEDS_ROOT), "programs", Unknown, "needs root"),
        (
            |f| f.programs.proven = Err(NotSeen::Without("egret's programs")),
            "self_test",
            Unknown,
            "it needs egret's programs",
        ),
        (|f| f.state.space = Err(NotSeen::Error("EIO".to_owned())), "disk", Unknown, "EIO"),
    ];
    table(essential, Run::Unknown);
    let others: &[(Spoil, &str, Status, &str)] = &[
        (|f| f.programs.unix_connect = Err(NEEDS_ROOT), "connect_unix", Unknown, "needs root"),
        (|f| f.settings.jit = Err(NEEDS_ROOT), "jit", Unknown, "needs root"),
        (|f| f.settings.lockdown = Ok(Some("?".to_owned())), "lockdown", Unknown, "?"),
        (
            |f| f.settings.lsm = Err(NotSeen::NotMounted("securityfs", "/s")),
            "lsm",
            Unknown,
            "no securityfs is mounted at /s",
        ),
        (|f| f.state.audit = Ok(Log::Large(70 << 20)), "audit", Unknown, "70 MiB"),
    ];
    table(others, Run::Possible);
}

#[test]
fn what_differs_without_being_worse_stays_ok() {
    let cases: &[(Spoil, &str, Status, &str)] = &[
        (
            |f| f.privileges.effective = Ok(((1 << 41) - 1) & !(1 << 39)),
            "capabilities",
            Status::Ok,
            "all but CAP_BPF",
        ),
        (
            |f| {
                let root = Some("/sys/fs/cgroup/unified".into());
                f.cgroups.layout = Ok(Layout { root, v1: 9, ..Layout::default() });
            },
            "cgroup2",
            Status::Ok,
            "hybrid",
        ),
        (|f| f.programs.proven = Ok(Ok((9, false))), "self_test", Status::Ok, "without IPv6"),
        (|f| f.settings.lockdown = Ok(None), "lockdown", Status::Ok, "none"),
        (|f| f.settings.io_uring_disabled = Ok(None), "io_uring", Status::Ok, "enabled"),
        (|f| f.host.systemd = None, "systemd", Status::Ok, "not running"),
        (|f| f.host.ipv6 = false, "ipv6", Status::Ok, "off"),
        (|f| f.state.folder = Ok(None), "state", Status::Ok, "does not exist yet"),
        (|f| f.state.audit = Ok(Log::None), "audit", Status::Ok, "no records"),
    ];
    table(cases, Run::Possible);
}

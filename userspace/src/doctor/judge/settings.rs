//! Pure: switches and lists of the kernel.

use std::path::PathBuf;

use super::super::facts::Settings;
use super::super::finding::{Finding, Promise};
use super::programs::WITHOUT_LSM;
use super::{Topic, Verdict, ok, unknown, warn};

const JIT: Topic = Topic {
    id: "jit",
    name: "BPF JIT",
    promises: &[Promise::P1],
    essential: false,
    why: "lets programs run as machine code",
};
const UNPRIVILEGED: Topic = Topic {
    id: "unprivileged_bpf",
    name: "BPF for unprivileged users",
    promises: &[Promise::P1],
    essential: false,
    why: "programs are for privileged processes to load; `egret run` also refuses bpf(2) inside",
};
const LOCKDOWN: Topic = Topic {
    id: "lockdown",
    name: "kernel lockdown",
    promises: &[Promise::P8],
    essential: false,
    why: "restricts what even root may load or read in the kernel",
};
const LSM: Topic = Topic {
    id: "lsm",
    name: "security modules",
    promises: &[Promise::P1],
    essential: false,
    why: "without `bpf` among them LSM programs load and never run",
};
const BPFFS: Topic = Topic {
    id: "bpffs",
    name: "bpffs",
    promises: &[Promise::P6],
    essential: false,
    why: "where programs are pinned that must survive egret; `egret run` pins nothing",
};
const PTRACE: Topic = Topic {
    id: "ptrace_scope",
    name: "ptrace between processes of a user",
    promises: &[Promise::P5, Promise::P7],
    essential: false,
    why: "egret cannot be traced by its user, and a command under `egret run` sees no process \
          outside of its PID namespace; programs of the same user outside are not held apart",
};
const IO_URING: Topic = Topic {
    id: "io_uring",
    name: "io_uring",
    promises: &[Promise::P1],
    essential: false,
    why: "`egret run` refuses it unless --allow-io-uring lets it in, since it makes sockets past \
          seccomp",
};
const USER_NAMESPACES: Topic = Topic {
    id: "user_namespaces",
    name: "user namespaces",
    promises: &[Promise::P1],
    essential: false,
    why: "lead nowhere: one made by an agent owns only what is made inside it, and an agent of \
          uid 0 gets none",
};
const CORE: Topic = Topic {
    id: "core_pattern",
    name: "core files",
    promises: &[Promise::P5],
    essential: false,
    why: "egret is not dumpable, so its memory is in none; the command's own core files are as usual",
};

pub(super) fn judge(s: &Settings) -> Vec<Finding> {
    vec![
        JIT.judge(&s.jit, |jit| match jit {
            Some(0) => warn("off")
                .means("programs are interpreted: they hold, but each packet costs more")
                .fix("sysctl net.core.bpf_jit_enable=1"),
            Some(_) => ok("on"),
            None => ok("no switch"),
        }),
        UNPRIVILEGED.judge(&s.unprivileged_bpf, |value| match value {
            Some(0) => warn("allowed")
                .means(
                    "any user of the host can bring programs to the verifier, where kernels have \
                     had holes; a command under `egret run` cannot, its seccomp filter refuses it",
                )
                .fix("sysctl kernel.unprivileged_bpf_disabled=2"),
            Some(n) => ok(format!("disabled ({n})")),
            None => ok("no switch"),
        }),
        LOCKDOWN.judge(&s.lockdown, |text| lockdown(text.as_deref())),
        LSM.judge(&s.lsm, |list| lsm(list)),
        BPFFS.judge(&s.bpffs, |mounts| bpffs(mounts)),
        PTRACE.judge(&s.ptrace_scope, |value| match value {
            Some(0) => ok("allowed (0)"),
            Some(n) => ok(format!("restricted ({n})")),
            None => ok("allowed (no Yama)"),
        }),
        IO_URING.judge(&s.io_uring_disabled, |value| match value {
            Some(2) => ok("disabled on this machine (2)"),
            Some(1) => ok("restricted on this machine (1)"),
            Some(_) | None => ok("enabled on this machine"),
        }),
        USER_NAMESPACES.judge(&s.max_user_namespaces, |max| match max {
            Some(0) | None => {
                ok("none can be made; sandboxes of browsers will not start in a session")
            }
            Some(_) if s.user_namespaces_restricted => {
                ok("restricted on this machine; sandboxes of browsers may not start in a session")
            }
            Some(_) => ok("allowed on this machine"),
        }),
        CORE.judge(&s.core_pattern, |pattern| match pattern.strip_prefix('|') {
            Some(program) => {
                ok(format!("piped to {}", program.split_whitespace().next().unwrap_or("")))
            }
            None => ok(format!("files named {pattern}")),
        }),
    ]
}

/// The mode in use stands in brackets: `none [integrity] confidentiality`.
fn lockdown(text: Option<&str>) -> Verdict {
    let Some(text) = text else { return ok("none: the kernel has no lockdown") };
    let mode =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode);
    match mode {
        Some("confidentiality") => ok("confidentiality").means(
            "programs may not read kernel memory; egret's read only what is theirs, and whether \
             they load is judged above",
        ),
        Some(mode) => ok(mode),
        None => unknown(format!("not understood: {}", text.trim())),
    }
}

fn lsm(list: &[String]) -> Verdict {
    let active = list.join(", ");
    if list.iter().any(|l| l == "bpf") {
        return ok(format!("`bpf` is among {active}"));
    }
    warn(format!("`bpf` is not among {active}"))
        .means(WITHOUT_LSM)
        .fix("boot with `bpf` in lsm= (see /sys/kernel/security/lsm for the rest of the list)")
}

fn bpffs(mounts: &[PathBuf]) -> Verdict {
    let mut stacked: Vec<_> = mounts
        .iter()
        .enumerate()
        .filter(|(i, point)| mounts[..*i].contains(point))
        .map(|(_, point)| point.display().to_string())
        .collect();
    stacked.dedup();
    if !stacked.is_empty() {
        return warn(format!("mounted more than once at {}", stacked.join(", ")))
            .means("what was pinned in the lower mount is still there, and cannot be found")
            .fix("`umount` the upper one, if nothing is pinned there");
    }
    if mounts.is_empty() {
        return ok("not mounted");
    }
    let points: Vec<String> = mounts.iter().map(|p| p.display().to_string()).collect();
    ok(format!("mounted at {}", points.join(", ")))
}

//! Pure: egret's programs in this kernel.

use super::super::facts::{Loaded, Programs};
use super::super::finding::{Finding, Promise};
use super::{Topic, Verdict, fail, ok, warn};

const SYSCALL: Topic = Topic {
    id: "bpf",
    name: "bpf(2)",
    promises: &[Promise::P1],
    essential: true,
    why: "everything that egret does in the kernel begins there",
};
const RING: Topic = Topic {
    id: "ring_buffer",
    name: "BPF ring buffer",
    promises: &[Promise::P9],
    essential: true,
    why: "carries the refusals of the kernel into the audit log",
};
const STORAGE: Topic = Topic {
    id: "socket_storage",
    name: "BPF socket storage",
    promises: &[Promise::P1, Promise::P7],
    essential: true,
    why: "remembers with each socket where it was meant to go, and dies with it",
};
const BTF: Topic = Topic {
    id: "btf",
    name: "BTF",
    promises: &[Promise::P1],
    essential: true,
    why: "socket storage must name its types; optional hooks need those of the kernel too",
};
const COOKIE: Topic = Topic {
    id: "netns_cookie",
    name: "cookies of network namespaces",
    promises: &[Promise::P1, Promise::P7],
    essential: true,
    why: "tells the connections of one session from those of another",
};
const LOADED: Topic = Topic {
    id: "programs",
    name: "egret's programs load",
    promises: &[Promise::P1],
    essential: true,
    why: "each governs one way to connect or to send; without it that way would be free",
};
const PROVEN: Topic = Topic {
    id: "self_test",
    name: "each hook fires",
    promises: &[Promise::P1, Promise::P8],
    essential: true,
    why: "what is attached is not proof: a child in an agent's place tries each hook first",
};
const UPDATE: Topic = Topic {
    id: "link_update",
    name: "BPF_LINK_UPDATE",
    promises: &[Promise::P6],
    essential: false,
    why: "replaces attached programs without a moment in between",
};
const UNIX: Topic = Topic {
    id: "connect_unix",
    name: "hook for Unix sockets",
    promises: &[Promise::P1],
    essential: false,
    why: "an optional hook on connections to Unix sockets",
};

const LSM: Topic = Topic {
    id: "lsm_cgroup",
    name: "LSM programs on cgroups",
    promises: &[Promise::P1],
    essential: false,
    why: "optional hooks that refuse sockets of families that the others do not see",
};

pub(super) fn judge(p: &Programs) -> Vec<Finding> {
    let map = |there: &bool, since: &str| {
        if *there { ok("yes") } else { fail(format!("the kernel has none ({since})")).fix(KERNEL) }
    };
    vec![
        SYSCALL.works(&p.syscall, "allowed", |why| {
            fail(why).fix(
                "a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF; in a container, its \
                 seccomp profile must let bpf(2) pass",
            )
        }),
        RING.judge(&p.ring_buffer, |there| map(there, "Linux 5.8")),
        STORAGE.judge(&p.socket_storage, |there| map(there, "Linux 5.2")),
        BTF.judge(&p.btf, |there| btf(*there, p.kernel_btf)),
        COOKIE.works(&p.netns_cookie, "yes", |why| fail(why).fix(KERNEL)),
        LOADED.judge(&p.loaded, loaded),
        PROVEN.judge(&p.proven, proven),
        UPDATE.works(&p.link_update, "works", |why| {
            warn(why).means("a restarted egret could not replace programs under live sessions")
        }),
        UNIX.judge(&p.unix_connect, |there| {
            if *there {
                return ok("yes");
            }
            warn("the kernel has none (Linux 6.7)").means(
                "`egret run` hides the sockets of the host by mounts and does not need it; a group \
                 that is governed where it stands reaches Unix sockets as its user may",
            )
        }),
        LSM.works(&p.lsm_cgroup, "can be loaded", |why| warn(why).means(WITHOUT_LSM)),
    ]
}

/// What it means that there are no LSM hooks.
pub(super) const WITHOUT_LSM: &str = "`egret run` refuses such sockets by seccomp and does not need them; a group that is governed \
     where it stands can open AF_PACKET with CAP_NET_RAW, and AF_VSOCK";

const KERNEL: &str = "Linux 5.15 or RHEL 9.2, or newer";

fn btf(there: bool, kernel: bool) -> Verdict {
    match (there, kernel) {
        (false, _) => {
            fail("the kernel does not take types").fix("a kernel with CONFIG_BPF_SYSCALL")
        }
        (true, true) => ok("of programs and of the kernel"),
        (true, false) => ok("of programs; the kernel shows none of its own (no LSM hooks)"),
    }
}

fn loaded(loaded: &Loaded) -> Verdict {
    match loaded {
        Loaded::All(n) => ok(format!("all {n}")),
        Loaded::NotPermitted(why) => {
            fail(why).fix("run egret as root, outside of containers that forbid bpf(2)")
        }
        Loaded::Refused { program, why } => {
            fail(format!("the kernel does not accept `{program}`: {why}"))
                .means("the connections that this hook governs would be free, so egret stays out")
                .fix(KERNEL)
        }
        Loaded::Failed(why) => fail(why).fix(KERNEL),
    }
}

fn proven(proven: &Result<(usize, bool), String>) -> Verdict {
    match proven {
        Ok((n, true)) => ok(format!("all {n}")),
        Ok((n, false)) => ok(format!("all {n} that there are without IPv6")),
        Err(why) => fail(why)
            .means("egret refuses to start, because egress would not be governed")
            .fix("report this with the kernel's version"),
    }
}

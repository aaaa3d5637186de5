//! Pure: may this process do what egret has to do.

use super::super::facts::Privileges;
use super::super::finding::{Finding, Promise};
use super::{Topic, Verdict, fail, ok, warn};

const ROOT: Topic = Topic {
    id: "root",
    name: "root",
    promises: &[Promise::P1],
    essential: true,
    why: "`egret run` loads kernel programs and makes namespaces; the command itself runs as you",
};
const CAPABILITIES: Topic = Topic {
    id: "capabilities",
    name: "capabilities",
    promises: &[Promise::P1, Promise::P7],
    essential: true,
    why: "to load and attach programs, make namespaces, and start the command with less than that",
};
const INITIAL: Topic = Topic {
    id: "user_namespace",
    name: "initial user namespace",
    promises: &[Promise::P1],
    essential: true,
    why: "capabilities for BPF count only in the host's own user namespace",
};
const CONTAINER: Topic = Topic {
    id: "container",
    name: "outside of containers",
    promises: &[Promise::P1, Promise::P7],
    essential: false,
    why: "what egret governs is under nobody's control but that of the host's root",
};
const SECCOMP: Topic = Topic {
    id: "seccomp",
    name: "seccomp",
    promises: &[Promise::P1],
    essential: true,
    why: "refuses the sockets that no cgroup hook sees: AF_PACKET, AF_VSOCK, io_uring",
};
const NAMESPACE: Topic = Topic {
    id: "network_namespace",
    name: "private network namespace",
    promises: &[Promise::P1, Promise::P6],
    essential: true,
    why: "the second wall: a command whose programs are gone still has no route",
};

/// Bit, name, and whether `run` cannot do without it. CAP_SYS_ADMIN includes what CAP_BPF and
/// CAP_NET_ADMIN permit in bpf(2) (bpf_token_capable in include/linux/bpf.h).
const NEEDED: &[(u32, &str, bool)] = &[
    (6, "CAP_SETGID", true),
    (7, "CAP_SETUID", true),
    (8, "CAP_SETPCAP", true),
    (12, "CAP_NET_ADMIN", true),
    (21, "CAP_SYS_ADMIN", true),
    (39, "CAP_BPF", false),
];

/// The actions of the filter that `run` installs.
const ACTIONS: [&str; 2] = ["errno", "kill_process"];

pub(super) fn judge(p: &Privileges) -> Vec<Finding> {
    vec![
        ROOT.finding(if p.root {
            ok("uid 0")
        } else {
            fail("not root")
                .means("`egret run` refuses to start as this user, and most probes need root")
                .fix("run `sudo egret doctor`, and `sudo egret run …`")
        }),
        CAPABILITIES.judge(&p.effective, |set| capabilities(*set)),
        INITIAL.judge(&p.initial_user_namespace, |initial| {
            if *initial {
                return ok("yes");
            }
            fail("no: this is root of a user namespace").fix("run egret on the host itself")
        }),
        CONTAINER.finding(container(&p.container)),
        SECCOMP.judge(&p.seccomp_actions, |actions| seccomp(actions)),
        NAMESPACE.works(&p.private_namespace, "can be made", |why| {
            fail(why).fix("a kernel with CONFIG_NET_NS, and CAP_SYS_ADMIN")
        }),
    ]
}

fn capabilities(set: u64) -> Verdict {
    let missing = |essential: bool| -> Vec<&str> {
        let lacks = |bit: u32| set & (1 << bit) == 0;
        NEEDED.iter().filter(|(bit, _, e)| *e == essential && lacks(*bit)).map(|n| n.1).collect()
    };
    let (needed, implied) = (missing(true), missing(false));
    if !needed.is_empty() {
        return fail(format!("missing: {}", needed.join(", ")))
            .fix("start egret with these capabilities (root on the host has them)");
    }
    if !implied.is_empty() {
        return ok(format!("all but {}, which CAP_SYS_ADMIN includes", implied.join(", ")));
    }
    ok("all that are needed")
}

fn container(signs: &[String]) -> Verdict {
    if signs.is_empty() {
        return ok("no sign of a container");
    }
    warn(format!("inside of one: {}", signs.join(", ")))
        .means(
            "egret governs what it starts here; the container's own root, and the host, are \
             outside of its reach, and programs on groups above may be out of sight",
        )
        .fix("prefer egret on the host, around the container")
}

fn seccomp(actions: &[String]) -> Verdict {
    let lacks = ACTIONS.iter().find(|a| !actions.iter().any(|known| known == *a));
    match lacks {
        None => ok("filters can refuse and kill"),
        Some(action) => fail(format!("the kernel does not know the action `{action}`"))
            .fix("a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

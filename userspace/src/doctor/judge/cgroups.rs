//! Pure: the hierarchy of cgroup v2, on which everything is attached.

use super::super::facts::{Cgroups, Layout, Other};
use super::super::finding::{Finding, Promise};
use super::{Topic, Verdict, fail, ok, warn};

const MOUNT: Topic = Topic {
    id: "cgroup2",
    name: "cgroup v2",
    promises: &[Promise::P1, Promise::P7],
    essential: true,
    why: "an agent is a cgroup: what is attached there holds for all that it starts, uid 0 included",
};
const CREATE: Topic = Topic {
    id: "cgroup_create",
    name: "groups can be made",
    promises: &[Promise::P1],
    essential: true,
    why: "each session gets a group of its own",
};
const FREEZE: Topic = Topic {
    id: "cgroup_freeze",
    name: "cgroup.freeze",
    promises: &[Promise::P1],
    essential: false,
    why: "holds a running group still while programs are attached to it",
};
const KILL: Topic = Topic {
    id: "cgroup_kill",
    name: "cgroup.kill",
    promises: &[Promise::P6],
    essential: false,
    why: "ends a session at once, whatever forks meanwhile",
};
const OTHERS: Topic = Topic {
    id: "other_programs",
    name: "other programs on the same hooks",
    promises: &[Promise::P1, Promise::P3],
    essential: true,
    why: "nobody else should decide about, or change, the connections of a session",
};

pub(super) fn judge(c: &Cgroups) -> Vec<Finding> {
    vec![
        MOUNT.judge(&c.layout, mount),
        CREATE.works(&c.created, "yes", |why| {
            fail(why).fix("make the hierarchy writable for egret (in a container: a delegated one)")
        }),
        FREEZE.judge(&c.freeze, |there| {
            let missing = "the kernel has none (Linux 5.2)";
            if *there { ok("works") } else { warn(missing).fix("a newer kernel") }
        }),
        KILL.judge(&c.kill, |there| {
            if *there {
                return ok("works");
            }
            warn("the kernel has none (Linux 5.14)")
                .means("egret freezes the group and ends its processes one by one instead")
        }),
        OTHERS.judge(&c.others, |others| self::others(others)),
    ]
}

fn mount(layout: &Layout) -> Verdict {
    let Some(root) = &layout.root else {
        let found = match layout.v1 {
            0 => "no cgroup hierarchy is mounted".to_owned(),
            n => format!("only version 1 ({n} hierarchies)"),
        };
        return fail(found).fix(
            "boot with systemd.unified_cgroup_hierarchy=1, or `mkdir /sys/fs/cgroup/unified && \
             mount -t cgroup2 none /sys/fs/cgroup/unified`",
        );
    };
    let at = root.display();
    if layout.read_only {
        return fail(format!("mounted read-only at {at}")).fix(format!("mount -o remount,rw {at}"));
    }
    if layout.part {
        return warn(format!("a part of the hierarchy, at {at}"))
            .means("sessions work; programs attached to groups above cannot be told apart");
    }
    if layout.v1 > 0 {
        return ok(format!("hybrid, at {at}, beside {} hierarchies of version 1", layout.v1));
    }
    ok(format!("unified, at {at}"))
}

fn others(others: &[Other]) -> Verdict {
    if others.is_empty() {
        return ok("none that a session inherits");
    }
    let list: Vec<String> = others.iter().map(describe).collect();
    let found = list.join("; ");
    if others.iter().any(|o| o.exclusive) {
        return fail(found)
            .means("a program that was attached alone lets no group below attach its own")
            .fix("attach that program with BPF_F_ALLOW_MULTI, or by a link");
    }
    // Effective programs run from the group itself upwards (compute_effective_progs in
    // kernel/bpf/cgroup.c).
    warn(found)
        .means(
            "they run after egret's own and may refuse, or redirect once more, what egret \
             redirected; the self-test shows whether connections still arrive, and the network \
             namespace of `egret run` has no route in any case",
        )
        .fix("`bpftool cgroup tree` shows who attached them; detach what is not needed")
}

fn describe(other: &Other) -> String {
    let at = other
        .cgroup
        .as_ref()
        .map_or_else(|| "a group out of sight".to_owned(), |cgroup| cgroup.display().to_string());
    let alone = if other.exclusive { ", alone" } else { "" };
    format!("{} on {at}: {}{alone}", other.hook, other.programs.join(", "))
}

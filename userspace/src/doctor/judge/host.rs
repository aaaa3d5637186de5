//! Pure: the machine around egret.

use super::super::facts::{Cgroups, Host, Layout, Systemd};
use super::super::finding::{Finding, Promise};
use super::{Topic, Verdict, ok, unknown, warn};

const SWAP: Topic = Topic {
    id: "swap",
    name: "swap",
    promises: &[Promise::P5],
    essential: false,
    why: "memory that holds a secret should never be written to a disk",
};
const CLOCK: Topic = Topic {
    id: "clock",
    name: "clock",
    promises: &[Promise::P4, Promise::P6, Promise::P9],
    essential: false,
    why: "certificates are checked against it, records carry it, and the lease counts its seconds",
};
const IPV6: Topic = Topic {
    id: "ipv6",
    name: "IPv6",
    promises: &[Promise::P1],
    essential: false,
    why: "governed by the same hooks; where there is none there is none to leak by",
};
const SYSTEMD: Topic = Topic {
    id: "systemd",
    name: "systemd",
    promises: &[Promise::P1],
    essential: false,
    why: "its slices and units are groups that egret can govern; `egret run` does not need it",
};
const ROOTS: Topic = Topic {
    id: "ca_bundle",
    name: "root certificates",
    promises: &[Promise::P4],
    essential: false,
    why: "every upstream's certificate is checked against them",
};
const RESOLVER: Topic = Topic {
    id: "resolv_conf",
    name: "name servers",
    promises: &[Promise::P4],
    essential: false,
    why: "egret itself resolves the names that it dials",
};

pub(super) fn judge(h: &Host, cgroups: &Cgroups) -> Vec<Finding> {
    vec![
        SWAP.judge(&h.swap, |areas| swap(areas, &h.lock)),
        CLOCK.judge(&h.clocksource, |source| clock(source, h.now)),
        IPV6.finding(ok(if h.ipv6 { "on" } else { "off" })),
        SYSTEMD.finding(systemd(h.systemd.as_ref(), cgroups.layout.as_ref().ok())),
        ROOTS.finding(match h.roots {
            0 => warn("none found")
                .means("every https upstream is refused, unless its policy has an [upstream] ca")
                .fix("install the package ca-certificates"),
            n => ok(format!("{n}")),
        }),
        RESOLVER.finding(match &h.resolver {
            Ok(servers) if !servers.is_empty() => ok(servers.join(", ")),
            Ok(_) => warn("/etc/resolv.conf names no server")
                .means("only names in /etc/hosts can be dialled; every other is refused")
                .fix("name a server in /etc/resolv.conf"),
            Err(why) => warn(why)
                .means("no upstream can be dialled by name: each is refused")
                .fix("mend /etc/resolv.conf"),
        }),
    ]
}

fn swap(areas: &[(String, u64)], lock: &Result<(), String>) -> Verdict {
    if areas.is_empty() {
        return ok("off");
    }
    let list: Vec<String> =
        areas.iter().map(|(name, kib)| format!("{name} ({} MiB)", kib / 1024)).collect();
    let locked = match lock {
        Ok(()) => "pages can be locked".to_owned(),
        Err(why) => format!("pages cannot be locked: {why}"),
    };
    warn(format!("on: {}; {locked}", list.join(", ")))
        .means(
            "buffers in which secrets pass are not locked, so memory of egret, secrets in it, may \
             be written there when memory is short",
        )
        .fix("encrypt the swap, or turn it off: `swapoff -a`")
}

/// 2025-01-01; egret is younger.
const YOUNGEST: u64 = 1_735_689_600;

fn clock(source: &str, now: u64) -> Verdict {
    if now < YOUNGEST {
        return warn(format!("before 2025 (source {source})"))
            .means("no certificate is valid yet, so every https upstream is refused")
            .fix("set the clock, or start a time service");
    }
    if source.contains("jiffies") {
        return warn(format!("source {source}"))
            .means("as coarse as the timer: the lease still ends, records have coarse times");
    }
    ok(format!("source {source}"))
}

fn systemd(systemd: Option<&Systemd>, layout: Option<&Layout>) -> Verdict {
    let Some(found) = systemd else { return ok("not running") };
    let version = found.version.as_deref().unwrap_or("of unknown version");
    match (&found.slices, layout) {
        (Ok(true), _) => ok(format!("{version}, with its slices in cgroup v2")),
        (Ok(false), Some(Layout { root: Some(_), .. })) => {
            warn(format!("{version}, without slices in cgroup v2"))
                .means("`egret run` works; slices and units cannot be governed where they stand")
                .fix("boot with systemd.unified_cgroup_hierarchy=1")
        }
        (Ok(false), _) => warn(format!("{version}, on cgroup v1 only"))
            .fix("boot with systemd.unified_cgroup_hierarchy=1"),
        (Err(why), _) => unknown(format!("{version}; its slices were not probed: {why}")),
    }
}

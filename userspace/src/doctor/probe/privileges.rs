//! Who asks, and what this process may do.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::facts::{NotSeen, Privileges, Seen};
use super::super::parse;
use super::{read, read_if_there};
use crate::redirect::netns::Netns;

/// Inodes of the first namespaces (include/linux/proc_ns.h; nsfs.h since Linux 6.18).
const FIRST_CGROUP: u64 = 0xeffffffb;
const FIRST_PID: u64 = 0xeffffffc;

/// Files that container runtimes leave inside.
const MARKS: [(&str, &str); 2] =
    [("/.dockerenv", "/.dockerenv"), ("/run/.containerenv", "/run/.containerenv")];

pub(super) fn probe(root: bool) -> Privileges {
    Privileges {
        root,
        // Of another user they say nothing about what root has here.
        effective: if root { effective() } else { Err(NotSeen::NeedsRoot) },
        initial_user_namespace: read("/proc/self/uid_map").map(|map| parse::maps_everybody(&map)),
        container: container(),
        seccomp_actions: read("/proc/sys/kernel/seccomp/actions_avail")
            .map(|text| text.split_whitespace().map(str::to_owned).collect()),
        private_namespace: if root {
            Ok(Netns::private().map(drop).map_err(|e| e.to_string()))
        } else {
            Err(NotSeen::NeedsRoot)
        },
    }
}

fn effective() -> Seen<u64> {
    let status = read("/proc/self/status")?;
    parse::hex_field(&status, "CapEff")
        .ok_or_else(|| NotSeen::Error("/proc/self/status has no CapEff".to_owned()))
}

fn container() -> Vec<String> {
    let mut signs = Vec::new();
    for (path, sign) in MARKS {
        if Path::new(path).exists() {
            signs.push(sign.to_owned());
        }
    }
    // systemd writes the manager's name there (systemd's CONTAINER_INTERFACE).
    if let Ok(Some(name)) = read_if_there("/run/systemd/container") {
        signs.push(name);
    }
    for (kind, first) in [("cgroup", FIRST_CGROUP), ("pid", FIRST_PID)] {
        if fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|m| m.ino() != first) {
            signs.push(format!("a {kind} namespace of its own"));
        }
    }
    signs
}

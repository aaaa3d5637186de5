//! What this machine is and has, and installing from Debian's packages what it lacks.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::sh;

/// Programs that the ladder and the demo use as they come, and the Debian package of each.
/// The kernel side and the VM need nothing from this list.
const CLIENTS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("sudo", "sudo"),
    ("setpriv", "util-linux"),
    ("mke2fs", "e2fsprogs"),
    ("gcc", "gcc"),
    ("dig", "bind9-dnsutils"),
    ("musl-gcc", "musl-tools"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("iodine", "iodine"),
    ("dns2tcpc", "dns2tcp"),
];

/// True for the effective user root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Where cgroup v2 is mounted, in a pure or hybrid layout.
pub(crate) fn cgroup2() -> Option<PathBuf> {
    cgroup2_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        (tail.split(' ').next() == Some("cgroup2")).then(|| head.split(' ').nth(4))?.map(Into::into)
    })
}

/// The full path of a program, looked for in PATH and in the folders of administrators.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|p| p.is_file())
}

/// Why the end-to-end tests cannot run on this kernel, or nothing.
pub(crate) fn no_e2e_here() -> Option<String> {
    if !is_root() {
        return Some("not root".to_owned());
    }
    if cgroup2().is_none() {
        return Some("no cgroup v2 is mounted".to_owned());
    }
    None
}

/// Install what is missing, when root on a Debian-like system; say so otherwise. A client that
/// stays missing makes tests skip by name, so this never fails.
pub(crate) fn install_clients() {
    let missing: Vec<&str> =
        CLIENTS.iter().filter(|(p, _)| find(p).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    if !is_root() || find("apt-get").is_none() {
        eprintln!("missing, and not installed without root and apt-get: {}", missing.join(" "));
        return;
    }
    eprintln!("installing {}", missing.join(" "));
    if install(&missing).is_err() {
        let _ = sh::output(Command::new("apt-get").args(["update", "-q"]));
        if let Err(error) = install(&missing) {
            eprintln!("could not install {}: {error:#}", missing.join(" "));
        }
    }
}

fn install(packages: &[&str]) -> Result<()> {
    sh::output(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_in_each_layout() {
        let pure = "26 23 0:24 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        let hybrid = "30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      39 29 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let optional = "26 23 0:24 / /cg rw shared:4 master:1 - cgroup2 none rw";
        for (text, expected) in [
            (pure, Some("/sys/fs/cgroup")),
            (hybrid, Some("/sys/fs/cgroup/unified")),
            (optional, Some("/cg")),
            ("30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw", None),
            ("", None),
        ] {
            assert_eq!(cgroup2_in(text).as_deref(), expected.map(Path::new), "{text}");
        }
    }
}

//! Switches and lists of the kernel.

use super::super::facts::{NotSeen, Seen, Settings};
use super::super::parse;
use super::{number, read, read_if_there};

pub(super) fn probe(mountinfo: &Seen<String>) -> Settings {
    let security = match mountinfo {
        Ok(text) if !parse::has_securityfs(text) => {
            Err(NotSeen::NotMounted("securityfs", "/sys/kernel/security"))
        }
        Ok(_) => Ok(()),
        Err(why) => Err(why.clone()),
    };
    Settings {
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        unprivileged_bpf: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        lockdown: security.clone().and_then(|()| read_if_there("/sys/kernel/security/lockdown")),
        lsm: security
            .and_then(|()| read("/sys/kernel/security/lsm"))
            .map(|text| text.split(',').map(str::to_owned).collect()),
        bpffs: mountinfo.clone().map(|text| parse::bpffs(&text)),
        ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
        max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        user_namespaces_restricted: restricted(),
        core_pattern: read("/proc/sys/kernel/core_pattern"),
    }
}

/// Debian's switch, and Ubuntu's.
fn restricted() -> bool {
    let debian = number("/proc/sys/kernel/unprivileged_userns_clone");
    let ubuntu = number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    debian == Ok(Some(0)) || ubuntu == Ok(Some(1))
}

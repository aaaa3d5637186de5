//! What maintainer scripts would have configured in the guest, written directly.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

/// The marker lines with which the guest speaks to xtask on its second serial port.
pub(super) const BOOTED: &str = "@egret-booted";
pub(super) const EXITED: &str = "@egret-exit";

/// Path, mode and content of each file.
const FILES: &[(&str, u32, &str)] = &[
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/bash\n\
         daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         messagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n\
         egret:x:990:990:egret:/nonexistent:/usr/sbin/nologin\n\
         agent:x:1000:1000:agent:/home/agent:/bin/bash\n\
         operator:x:1001:1001:operator:/home/operator:/bin/bash\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        0o644,
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\nsudo:x:27:agent\nshadow:x:42:\nmessagebus:x:100:\n\
         egret:x:990:operator\nagent:x:1000:\noperator:x:1001:\nnogroup:x:65534:\n",
    ),
    (
        "etc/shadow",
        0o640,
        "root::19000:0:99999:7:::\negret:!:19000::::::\nagent::19000:0:99999:7:::\n\
         operator::19000:0:99999:7:::\n",
    ),
    ("etc/hostname", 0o644, "egret-vm\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost egret-vm\n::1 localhost\n"),
    ("etc/machine-id", 0o444, "6567726574000000000000000000766d\n"),
    ("etc/resolv.conf", 0o644, "nameserver 127.0.0.1\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    ("etc/fstab", 0o644, "/dev/vda /egret ext4 ro 0 0\n"),
    ("etc/sudoers.d/agent", 0o440, "agent ALL=(ALL) NOPASSWD: ALL\n"),
    ("etc/pam.d/common-auth", 0o644, "auth sufficient pam_permit.so\n"),
    ("etc/pam.d/common-account", 0o644, "account sufficient pam_permit.so\n"),
    ("etc/pam.d/common-password", 0o644, "password sufficient pam_permit.so\n"),
    ("etc/pam.d/common-session", 0o644, "session sufficient pam_permit.so\n"),
    ("etc/pam.d/common-session-noninteractive", 0o644, "session sufficient pam_permit.so\n"),
    (
        // The image was built where files could not be given to root: do it now, as pid 1.
        "usr/lib/egret/chown-init",
        0o755,
        "#!/bin/sh\n\
         export PATH=/usr/sbin:/usr/bin\n\
         find / -xdev -perm -4000 -type f > /usr/lib/egret/suid\n\
         find / -xdev -exec chown -h 0:0 {} +\n\
         while read -r f; do chmod u+s \"$f\"; done < /usr/lib/egret/suid\n\
         chown -R 1000:1000 /home/agent\n\
         chown -R 1001:1001 /home/operator\n\
         exec /sbin/init\n",
    ),
    (
        "etc/systemd/system/egret-run.service",
        0o644,
        "[Unit]\n\
         Description=What this VM was booted for\n\
         ConditionKernelCommandLine=egret.run\n\
         After=multi-user.target\n\
         RequiresMountsFor=/egret\n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart=/bin/sh /usr/lib/egret/run\n\
         ExecStopPost=/usr/bin/systemctl poweroff --force\n\
         TimeoutStartSec=infinity\n",
    ),
    (
        "usr/lib/egret/run",
        0o755,
        "stty -F /dev/ttyS1 raw -echo\n\
         exec >/dev/ttyS1 2>&1\n\
         read -r up _ </proc/uptime\n\
         echo \"@egret-booted $(uname -r) $up\"\n\
         chown 1000:1000 /home/agent\n\
         chown 1001:1001 /home/operator\n\
         export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         /bin/sh /egret/run.sh\n\
         echo \"@egret-exit $?\"\n",
    ),
    (
        "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf",
        0o644,
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I 115200 linux\n",
    ),
];

/// Links: where, and to what.
const LINKS: &[(&str, &str)] = &[
    ("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target"),
    ("etc/systemd/system/multi-user.target.wants/egret-run.service", "../egret-run.service"),
    // Timers and services that a machine with a life of a minute has no use for.
    ("etc/systemd/system/systemd-update-utmp.service", "/dev/null"),
    ("etc/systemd/system/systemd-timesyncd.service", "/dev/null"),
    ("etc/systemd/system/ldconfig.service", "/dev/null"),
    ("etc/systemd/system/fstrim.timer", "/dev/null"),
    ("etc/systemd/system/dpkg-db-backup.timer", "/dev/null"),
    // What update-alternatives would have made.
    ("usr/bin/awk", "mawk"),
    ("usr/bin/nc", "nc.openbsd"),
    ("usr/bin/which", "which.debianutils"),
];

const FOLDERS: &[(&str, u32)] = &[
    ("egret", 0o755),
    ("root", 0o700),
    ("home/agent", 0o755),
    ("home/operator", 0o755),
    ("etc/cron.d", 0o755),
    ("tmp", 0o1777),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
];

/// Everything this module writes, so that a change of it makes a new image.
pub(super) fn text() -> String {
    format!("{FILES:?}{LINKS:?}{FOLDERS:?}\n")
}

/// Write it all below `root`.
pub(super) fn write(root: &Path) -> Result<()> {
    for (path, mode) in FOLDERS {
        let path = root.join(path);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode))?;
    }
    for (path, mode, content) in FILES {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        // A package may have brought a link of that name.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(*mode))?;
    }
    for (path, target) in LINKS {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().context("a parent")?)?;
        if path.symlink_metadata().is_err() {
            symlink(target, &path)?;
        }
    }
    ca_bundle(root)
}

/// What update-ca-certificates would have made. What it reads names some only: a test that runs it
/// would wait minutes for an emulated CPU to hash them all.
fn ca_bundle(root: &Path) -> Result<()> {
    let mut certificates: Vec<_> =
        std::fs::read_dir(root.join("usr/share/ca-certificates/mozilla"))
            .context("the package ca-certificates has moved its files")?
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "crt"))
            .collect();
    certificates.sort();
    let names = certificates.iter().filter_map(|c| Some(c.file_name()?.to_string_lossy()));
    let some: String = names.take(8).map(|name| format!("mozilla/{name}\n")).collect();
    std::fs::write(root.join("etc/ca-certificates.conf"), some)?;
    let mut bundle = Vec::new();
    for certificate in certificates {
        bundle.extend(std::fs::read(certificate)?);
    }
    let folder = root.join("etc/ssl/certs");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("ca-certificates.crt"), bundle)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_speaks_the_markers_that_xtask_waits_for() {
        let run = FILES.iter().find(|f| f.0 == "usr/lib/egret/run").unwrap().2;
        assert!(run.contains(BOOTED) && run.contains(EXITED));
    }
}

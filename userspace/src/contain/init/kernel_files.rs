//! /proc and /sys: new ones that show the new namespaces, with their levers read-only.
//!
//! Modes alone do not protect them: an agent of uid 0 owns the kernel's files even when it has
//! no capability. So what could be written is mounted read-only, and what tells about the whole
//! machine is covered (in [`super::cover`]).

use std::path::Path;

use super::Doing;
use super::world::{SEALED, place, replace};
use crate::contain::wire::Failure;
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID};

/// Parts of /proc that change the machine when written.
const LEVERS: &[&str] = &[
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/acpi",
    "/proc/scsi",
    "/proc/asound",
    "/proc/driver",
];

pub(super) fn build() -> Result<(), Failure> {
    replace("/proc", c"proc", &[], NO_SUID | NO_DEV | NO_EXEC)?;
    for lever in LEVERS {
        let path = Path::new(lever);
        if path.exists() {
            let tree = mount::clone_tree(path, true).doing(&format!("copy {lever}"))?;
            mount::add_attributes(&tree, SEALED, true).doing(&format!("seal {lever}"))?;
            place(&tree, path)?;
        }
    }
    // A new sysfs: it shows the network devices of this namespace, and nothing is mounted in it
    // (no bpffs, no debugfs, no tracefs, no other cgroup hierarchy).
    replace("/sys", c"sysfs", &[], SEALED)?;
    let cgroup = Path::new("/sys/fs/cgroup");
    if cgroup.is_dir() {
        // Rooted at the agent's own cgroup by the cgroup namespace, and read-only.
        let tree = mount::new_filesystem(c"cgroup2", &[], SEALED).doing("make a cgroup view")?;
        place(&tree, cgroup)?;
    }
    Ok(())
}

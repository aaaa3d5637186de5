//! The guest's root file system: packages unpacked, configured without maintainer scripts, and
//! made into an ext4 image. Built once; anything that changes the recipe builds it again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::apt::{self, Apt};
use super::kernels::Kernel;
use super::{guest_config, image};
use crate::sh;

/// What a test or the demo uses inside the guest; apt adds what these need.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "dbus",
    "debianutils",
    "dns2tcp",
    "findutils",
    "git",
    "grep",
    "gzip",
    "hostname",
    "iodine",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "mount",
    "netcat-openbsd",
    "openssl",
    "passwd",
    "procps",
    "python3",
    "sed",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tar",
    "udev",
    "usr-is-merged",
    "util-linux",
];

/// Changes when the code below changes what an image contains.
const RECIPE: &str = "4";

/// A bootable root file system.
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// The files belong to the user who built it; the first boot must hand them to root.
    pub(super) owners_are_ours: bool,
}

/// Build the image unless the one in place has the same recipe.
pub(super) fn provision(folder: &Path, apt: &mut Apt, kernels: &[Kernel]) -> Result<Image> {
    let path = folder.join("guest.ext4");
    let stamp_file = folder.join("guest.stamp");
    let stamp = stamp(kernels);
    let found = std::fs::read_to_string(&stamp_file).unwrap_or_default();
    if let Some(owners) = found.strip_prefix(&stamp)
        && path.is_file()
    {
        return Ok(Image { path, owners_are_ours: owners == "owners: ours\n" });
    }
    eprintln!("vm: building the guest's root file system");
    let _ = std::fs::remove_file(&stamp_file);
    let root = folder.join("guest");
    if root.exists() {
        std::fs::remove_dir_all(&root).context("cannot remove the old guest")?;
    }
    let archives = apt.closure("guest-packages", PACKAGES)?;
    apt::unpack(&archives, &root)?;
    for kernel in kernels {
        add_modules(&root, kernel)?;
    }
    guest_config::write(&root)?;
    let owners = image::ext4(&root, &path, 256 << 20)?;
    let line = if owners == image::Owners::Ours { "owners: ours\n" } else { "owners: root\n" };
    std::fs::write(&stamp_file, stamp + line)?;
    Ok(Image { path, owners_are_ours: owners == image::Owners::Ours })
}

fn stamp(kernels: &[Kernel]) -> String {
    let mut stamp = format!("recipe {RECIPE}\n{}\n", PACKAGES.join(" "));
    for kernel in kernels {
        stamp += &format!("{}\n", kernel.package);
    }
    stamp += &guest_config::text();
    stamp
}

/// Copy a kernel's modules and index them with the guest's own depmod.
fn add_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let modules = root.join("usr/lib/modules");
    std::fs::create_dir_all(&modules)?;
    sh::run(Command::new("cp").arg("-a").arg(&kernel.modules).arg(&modules))?;
    let release = kernel.modules.file_name().context("a kernel release")?;
    sh::run(
        apt::foreign(root, "usr/bin/kmod", "depmod")
            .arg("-b")
            .arg(root)
            .arg(release)
            .stderr(Stdio::null()),
    )
}

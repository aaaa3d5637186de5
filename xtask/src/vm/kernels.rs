//! Debian's cloud kernels: downloaded and unpacked, booted directly and without an initrd
//! (NVMe, ext4 and the serial console are built into them).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::KERNELS;
use super::apt::{self, Apt};

/// The metapackages that name a current cloud kernel in one Debian release or another.
const METAPACKAGES: &[&str] =
    &["linux-image-cloud-amd64", "linux-image-6.1-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// An unpacked kernel.
pub(super) struct Kernel {
    /// "6.1" or "6.12".
    pub(super) series: String,
    /// The package, which names the exact version.
    pub(super) package: String,
    pub(super) vmlinuz: PathBuf,
    /// The folder of its modules, named by the release.
    pub(super) modules: PathBuf,
}

/// Fetch and unpack each kernel of the ladder that this Debian offers, oldest first. What was
/// found once is kept until `target/vm` is removed.
pub(super) fn provision(folder: &Path, apt: &mut Apt) -> Result<Vec<Kernel>> {
    std::fs::create_dir_all(folder.join("kernels"))?;
    let mut kernels = Vec::new();
    for series in KERNELS {
        let chosen = folder.join("kernels").join(format!("{series}.package"));
        let mut package = std::fs::read_to_string(&chosen).ok();
        if package.is_none() {
            package = offered(apt, series)?;
        }
        // Lists that came with the machine may be older than the kernel.
        if package.is_none() && apt.renew()? {
            package = offered(apt, series)?;
        }
        let Some(package) = package else {
            eprintln!(
                "vm: NOT AVAILABLE: this Debian's package lists have no {series} cloud kernel"
            );
            continue;
        };
        kernels.push(unpacked(folder, apt, series, package.clone())?);
        std::fs::write(chosen, package)?;
    }
    Ok(kernels)
}

fn offered(apt: &mut Apt, series: &str) -> Result<Option<String>> {
    // A metapackage that this release does not have is no error; being unable to ask is.
    apt.depends("base-files").context("cannot read Debian's package lists")?;
    let names = METAPACKAGES.iter().filter_map(|meta| apt.depends(meta).ok()).flatten();
    Ok(names.into_iter().find(|package| is_of_series(package, series)))
}

/// Whether a package is an image of that series: 6.1 must not match 6.12.
fn is_of_series(package: &str, series: &str) -> bool {
    package
        .strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_prefix(series))
        .is_some_and(|rest| rest.starts_with('.') && rest.ends_with("cloud-amd64"))
}

fn unpacked(folder: &Path, apt: &mut Apt, series: &str, package: String) -> Result<Kernel> {
    let root = folder.join("kernels").join(&package);
    if !root.join("complete").exists() {
        eprintln!("vm: fetching {package}");
        let _ = std::fs::remove_dir_all(&root);
        let archive = apt.single(&package)?;
        apt::unpack(&[archive], &root)?;
        std::fs::write(root.join("complete"), "")?;
    }
    let vmlinuz = entry(&root.join("boot"), "vmlinuz-")?;
    let modules = entry(&root.join("usr/lib/modules"), "")?;
    Ok(Kernel { series: series.to_owned(), package, vmlinuz, modules })
}

fn entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    std::fs::read_dir(folder)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .with_context(|| format!("{} has no {prefix}…", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::is_of_series;

    #[test]
    fn a_series_matches_its_own_images_only() {
        for (package, series, expected) in [
            ("linux-image-6.1.0-56-cloud-amd64", "6.1", true),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12", true),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.1", false),
            ("linux-image-6.1.0-56-amd64", "6.1", false),
            ("linux-headers-6.1.0-56-cloud-amd64", "6.1", false),
        ] {
            assert_eq!(is_of_series(package, series), expected, "{package} {series}");
        }
    }
}

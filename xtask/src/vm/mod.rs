//! VMs with Debian's kernels and a real systemd, provisioned without root into `target/vm/`.
//!
//! Debian's packages are downloaded and unpacked, never installed: for QEMU when the machine has
//! none, for the guest's root file system and for its kernels. The root file system is an image
//! that is built once and booted with its changes thrown away; what belongs to one run (the
//! binaries, the policies, the command) travels on a second small disk.

mod apt;
mod guest;
mod guest_config;
mod image;
mod kernels;
mod qemu;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::report::{Counts, counts_in, failures_in};
use crate::{build, report, sh};

/// The kernels of the ladder, oldest first.
pub(crate) const KERNELS: &[&str] = &["6.1", "6.12"];

/// What one boot came to.
pub(crate) struct Run {
    pub(crate) kernel: String,
    /// From the start of QEMU to the first line of the guest's own program.
    pub(crate) boot: Duration,
    pub(crate) total: Duration,
    /// The exit status of what ran inside.
    pub(crate) exit: i32,
    pub(crate) counts: Counts,
    /// The tests that failed.
    pub(crate) failures: Vec<String>,
    /// Everything that was printed inside.
    pub(crate) log: PathBuf,
}

/// A machine that can boot guests: QEMU, the image and its kernels.
pub(crate) struct Lab {
    folder: PathBuf,
    workspace: PathBuf,
    qemu: qemu::Qemu,
    image: PathBuf,
    owner_fix: bool,
    kernels: Vec<kernels::Kernel>,
}

impl Lab {
    /// Provision what is missing; a second call finds everything in place.
    pub(crate) fn open(workspace: &Path) -> Result<Self> {
        let folder = workspace.join("target/vm");
        std::fs::create_dir_all(folder.join("logs"))?;
        let started = Instant::now();
        let mut apt = apt::Apt::new(&folder.join("apt"));
        let qemu = qemu::Qemu::provision(&folder, &mut apt)?;
        let kernels = kernels::provision(&folder, &mut apt)?;
        let image = guest::provision(&folder, &mut apt, &kernels)?;
        if started.elapsed() > Duration::from_secs(3) {
            eprintln!("vm: provisioned in {:.0?}", started.elapsed());
        }
        let (image, owner_fix) = (image.path, image.owners_are_ours);
        Ok(Self { folder, workspace: workspace.into(), qemu, image, owner_fix, kernels })
    }

    /// The kernel of a series, or a sentence that says which there are.
    fn kernel(&self, series: &str) -> Result<&kernels::Kernel> {
        self.kernels.iter().find(|k| k.series == series).with_context(|| {
            let have: Vec<&str> = self.kernels.iter().map(|k| k.series.as_str()).collect();
            format!(
                "this Debian's package lists have no {series} cloud kernel (they have: {})",
                have.join(", ")
            )
        })
    }

    /// Why a series cannot be booted, or nothing.
    pub(crate) fn lacks(&self, series: &str) -> Option<String> {
        self.kernel(series).err().map(|e| e.to_string())
    }

    /// Boot a kernel and run `binary args…` inside, with egret beside it.
    pub(crate) fn run(
        &self,
        series: &str,
        egret: &Path,
        e2e: &Path,
        args: &[String],
        see: &mut dyn FnMut(&str),
    ) -> Result<Run> {
        let kernel = self.kernel(series)?;
        let disk = image::run_disk(&self.folder, &self.workspace, egret, e2e, args)?;
        let boot = qemu::Boot {
            kernel,
            image: &self.image,
            run_disk: &disk,
            owner_fix: self.owner_fix,
            logs: &self.folder.join("logs"),
        };
        let end = self.qemu.boot(&boot, see)?;
        let printed = std::fs::read(&end.results).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        Ok(Run {
            kernel: series.to_owned(),
            boot: end.boot,
            total: end.total,
            exit: end.exit,
            counts: counts_in(&printed),
            failures: failures_in(&printed),
            log: end.results,
        })
    }
}

/// `cargo xtask vm`: the end-to-end tests on the wanted kernels. True if all passed.
pub(crate) fn e2e(workspace: &Path, wanted: &str, no_build: bool, args: &[String]) -> Result<bool> {
    let series = match wanted {
        "all" => KERNELS.to_vec(),
        one if KERNELS.contains(&one) => vec![one],
        other => bail!("unknown kernel {other}: one of {} or all", KERNELS.join(", ")),
    };
    let (egret, e2e) = if no_build {
        (workspace.join("target/release/egret"), workspace.join("target/debug/egret-e2e"))
    } else {
        (build::egret(workspace, false)?, build::e2e(workspace)?)
    };
    let lab = Lab::open(workspace)?;
    let mut table = report::Table::default();
    for series in series {
        println!("── Linux {series}");
        let name = format!("vm {series}");
        match lab.run(series, &egret, &e2e, args, &mut |line| println!("{line}")) {
            Ok(run) => table.add(report::Row::from_vm(&name, &run)),
            // Only a kernel that Debian does not offer here counts as skipped.
            Err(error) if lab.lacks(series).is_some() => {
                table.add(report::Row::not_run(&name, &error.to_string()));
            }
            Err(error) => {
                eprintln!("{error:#}");
                table.add(report::Row::failed(&name, &format!("{error:#}")));
            }
        }
    }
    Ok(table.print())
}

/// The demo inside the newest kernel that there is.
pub(crate) fn demo(workspace: &Path, egret: &Path, e2e: &Path) -> Result<bool> {
    let lab = Lab::open(workspace)?;
    let newest = lab.kernels.last().context("no kernel")?.series.clone();
    let args = ["demo".to_owned()];
    let run = lab.run(&newest, egret, e2e, &args, &mut |line| println!("{line}"))?;
    Ok(run.exit == 0)
}

/// A root shell on the console; builds nothing, takes along what is already built.
pub(crate) fn shell(workspace: &Path, series: &str) -> Result<bool> {
    let lab = Lab::open(workspace)?;
    let kernel = lab.kernel(series)?;
    let target = workspace.join("target");
    let (egret, e2e) = (target.join("release/egret"), target.join("debug/egret-e2e"));
    let disk = image::run_disk(&lab.folder, workspace, &egret, &e2e, &[])?;
    let boot = qemu::Boot {
        kernel,
        image: &lab.image,
        run_disk: &disk,
        owner_fix: lab.owner_fix,
        logs: &lab.folder.join("logs"),
    };
    println!("Linux {series}; /egret has the binaries and policies; `poweroff` or ctrl-a x ends.");
    sh::run(&mut lab.qemu.interactive(&boot)).map(|()| true)
}

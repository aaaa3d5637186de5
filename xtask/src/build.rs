//! `cargo xtask build`: the kernel programs first, then the program that embeds them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::{ebpf, sh};

/// Build the kernel programs and egret; returns the binary.
pub(crate) fn egret(workspace: &Path, debug: bool) -> Result<PathBuf> {
    let started = Instant::now();
    eprintln!("egret: building the kernel programs");
    let object = ebpf::build(workspace)?;
    eprintln!("egret: {} ({:.0?})", object.display(), started.elapsed());
    let mut command = cargo(workspace);
    command.args(["build", "--package", "egret"]);
    if !debug {
        command.arg("--release");
    }
    sh::run(&mut command)?;
    Ok(workspace.join("target").join(if debug { "debug" } else { "release" }).join("egret"))
}

/// Build the end-to-end tests, in the profile that the unit tests already use.
pub(crate) fn e2e(workspace: &Path) -> Result<PathBuf> {
    sh::run(cargo(workspace).args(["build", "--package", "vm-tests", "--bin", "egret-e2e"]))?;
    Ok(workspace.join("target/debug/egret-e2e"))
}

/// The cargo that started us, in the workspace.
pub(crate) fn cargo(workspace: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace);
    command
}

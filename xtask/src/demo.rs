//! `cargo xtask demo`: builds egret, then lets the end-to-end binary play the demo: on this
//! machine where it can, inside the VM otherwise.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{build, host, vm};

/// Build and show. True when everything observed was as promised.
pub(crate) fn run(workspace: &Path, force_vm: bool) -> Result<bool> {
    let egret = build::egret(workspace, false)?;
    let e2e = build::e2e(workspace)?;
    if force_vm {
        return vm::demo(workspace, &egret, &e2e);
    }
    if let Some(why) = host::no_e2e_here() {
        println!("This machine cannot run the demo ({why}), so it runs inside a VM.");
        return vm::demo(workspace, &egret, &e2e);
    }
    host::install_clients();
    // The kernel may refuse to load programs even for root; only trying tells.
    let probe = Command::new(&e2e).arg("can-run").arg("--egret").arg(&egret).output()?;
    if !probe.status.success() {
        let why = String::from_utf8_lossy(&probe.stderr).lines().last().unwrap_or("").to_owned();
        println!("This machine cannot run the demo ({why}), so it runs inside a VM.");
        return vm::demo(workspace, &egret, &e2e);
    }
    Ok(Command::new(&e2e).arg("demo").arg("--egret").arg(&egret).status()?.success())
}

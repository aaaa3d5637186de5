//! Building the kernel programs.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Build target/ebpf/egret.bpf.o and return its path.
pub(crate) fn build(workspace: &Path) -> Result<PathBuf> {
    let object = workspace.join("target/ebpf/egret.bpf.o");
    if object.is_file() {
        return Ok(object);
    }
    bail!("the kernel programs cannot be built yet")
}

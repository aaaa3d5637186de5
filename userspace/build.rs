//! Finds the kernel object that `cargo xtask build` made, and says so in one sentence if it is
//! not there.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the object is, for those who built it elsewhere; the default is below `target/`.
const VARIABLE: &str = "EGRET_EBPF_OBJECT";

fn main() {
    let object = env::var_os(VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/egret.bpf.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed={}", object.display());
    let copy = env::var_os("OUT_DIR").map(|dir| Path::new(&dir).join("egret.bpf.o"));
    if copy.is_none_or(|copy| fs::copy(&object, copy).is_err()) {
        println!(
            "cargo::error=The kernel programs are not built yet: run `cargo xtask build`, which \
             builds them and then egret."
        );
    }
}

//! The kernel side on this kernel, as root: programs, cgroups and namespaces are real.

use egret::redirect::cgroup::Hierarchy;
use egret::redirect::ebpf::{Kernel, KernelOptions};
use egret::redirect::self_test;

#[test]
fn every_hook_fires() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let t = std::time::Instant::now();
    let kernel = Kernel::load(&KernelOptions::default()).unwrap();
    let load = t.elapsed();
    let hierarchy = Hierarchy::find().unwrap();
    let proof = self_test::run(&kernel, &hierarchy).unwrap_or_else(|e| panic!("{e}"));
    println!("load {load:?}, prove {:?}, total {:?}", proof.took, t.elapsed());
    assert_eq!(proof.hooks.len(), 14);
}

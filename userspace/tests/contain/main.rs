//! How a contained command lives: as root on this kernel, with real namespaces and cgroups.
//! Every "cannot" stands beside the same attempt outside, which can.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests, outside #[test] functions"
)]

mod files;
mod harness;
mod network;
mod privileges;
mod process;
mod terminal;

//! How a contained command lives: as root on this kernel, with real namespaces and cgroups.
//! Every "cannot" stands beside the same attempt outside, which can.

mod files;
mod harness;
mod network;
mod privileges;
mod process;
mod terminal;

//! The only folder with `unsafe`. Each file wraps one group of system calls.
pub mod pidfd;

pub mod bpf;
pub mod probe;
pub mod socket;

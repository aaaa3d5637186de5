//! The only folder with `unsafe`. Each file wraps one group of system calls.

pub mod bpf;
pub mod bpf_object;
pub mod bpf_query;
pub mod probe;
pub mod sock_diag;
pub mod socket;

pub mod attempt;
pub mod caps;
pub mod fdpass;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod tty;

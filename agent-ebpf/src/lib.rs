//! The ABI shared by the kernel programs and userspace, and their pure verdicts.
//!
//! Nothing here touches a kernel context: the programs (the `agent-ebpf` binary) read plain
//! values, ask [`decide`], and make the answer true. So the logic is tested on the host.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod address;
pub mod decide;
pub mod hook;

//! The ABI shared by the kernel programs and userspace, and their pure verdicts.
#![cfg_attr(target_arch = "bpf", no_std)]

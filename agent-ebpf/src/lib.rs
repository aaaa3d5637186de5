//! The ABI shared by the kernel programs and userspace, and their pure verdicts.

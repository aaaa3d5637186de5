//! Stage 7: send it on. Dial by name with a Permit, verify, pool, stream.

pub mod address; // pure: which addresses an upstream may have
pub mod resolve; // upstream names, resolved by egret itself
pub mod dial;
pub mod http;
pub mod pool;
pub mod tcp;

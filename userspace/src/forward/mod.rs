//! Stage 7: send it on. Dial by name with a Permit, verify, pool, stream.

pub mod dial;
pub mod http;
pub mod pool;
pub mod tcp;

//! Stage 7: send it on. Dial by name with a Permit, verify, pool, stream.

pub mod address; // pure: which addresses an upstream may have
pub mod resolve; // upstream names, resolved by egret itself

pub mod cause; // why there is no answer, in words
pub mod dial; // the only place that opens connections
pub mod http; // one request over a pooled connection
pub mod pool; // verified connections, kept per agent
pub mod race; // several addresses, one connection
pub mod tcp; // opaque bytes

//! Beside the flow: the interceptor of the daemon, a process of its own that holds nothing but
//! what it needs to serve.
//!
//! It parses every byte that an agent or an upstream sends, so it is the part that would be
//! broken into. It has no capability, sees no file but its log and the system's certificates, and
//! cannot load a program, start one or open a listener: the *warden* (`crate::daemon`) makes
//! those and passes them in. When the warden is gone, so is it.
//!
//! ```text
//! entry     the hidden start: take over the socket, be confined, open the log
//! steward   one order of the warden after the other
//! ```

mod entry;
pub(crate) mod moment;
mod steward;
pub(crate) mod wire;

pub use entry::entry;

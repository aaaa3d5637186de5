//! What can go wrong in a program. `main.rs` turns each of these into a refusal.

use agent_ebpf::decide::Denied;

pub(crate) enum Error {
    /// A verdict.
    Denied(Denied),
    /// `FLOWS` has no room for another connection.
    FlowsFull,
    /// The kernel could not allocate the socket's own storage.
    NoStorage,
    /// The array that holds the lease has no entry, which cannot be.
    NoLease,
}

impl From<Denied> for Error {
    #[inline(always)]
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

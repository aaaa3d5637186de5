//! The session's certificate authority and what the agent is given to trust. They need nothing of
//! the system, and the first random bytes of the crypto library take tens of milliseconds: a thread
//! of its own makes them while the kernel verifies the programs.

use std::thread::{self, JoinHandle};

use super::SessionError;
use crate::contain::{TrustFiles, trust};
use crate::identify::SessionId;
use crate::tls::{self, authority::Authority, leaf::LeafMinter};

/// Made once, for one session.
pub(super) struct Keys {
    pub(super) leaves: LeafMinter,
    pub(super) trust: TrustFiles,
}

/// Keys in the making.
pub(super) struct Making(JoinHandle<Result<Keys, SessionError>>);

impl Keys {
    /// Starts to make them.
    pub(super) fn begin(session: &SessionId) -> Making {
        let name = format!("session {session}");
        Making(thread::spawn(move || Self::make(&name)))
    }

    fn make(name: &str) -> Result<Self, SessionError> {
        let authority = Authority::generate(name)?;
        let trust = trust::files(&trust::system_roots(), &authority.pem())?;
        Ok(Self { leaves: LeafMinter::new(authority)?, trust })
    }
}

impl Making {
    /// Waits for them.
    pub(super) fn finish(self) -> Result<Keys, SessionError> {
        self.0.join().map_err(|_| SessionError::Panicked("making the session's keys"))?
    }
}

/// Reads the roots for upstreams before the first request needs them. Nobody waits for it: a
/// command that asks for nothing ends without them.
pub(super) fn warm() {
    // Without a thread the first request reads them.
    let _ = thread::Builder::new().name("egret-warm".to_owned()).spawn(tls::warm);
}

//! Pure: why a credential was not attached.

use std::sync::Arc;

use crate::outcome::Reason;
use crate::policy::OnCanary;

/// The error type of wrapped bodies.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A refusal of this stage. Names the credential, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The agent sent a placeholder somewhere its credential is not bound to.
    #[error(
        "the placeholder of credential `{credential}` stood in the request's {place}, \
         on its way to a host that the credential is not bound to"
    )]
    Canary {
        credential: Arc<str>,
        /// `path`, `query`, `header`, `body` or `trailer`.
        place: &'static str,
        /// What the policy wants done beyond the refusal.
        on_canary: OnCanary,
    },
    /// The rule grants a credential that was not activated.
    #[error("credential `{credential}` is not available")]
    Unavailable { credential: Arc<str> },
    /// Attaching it would break a promise.
    #[error("credential `{credential}` cannot be attached: {why}")]
    Refused { credential: Arc<str>, why: &'static str },
}

impl InjectError {
    /// The reason that audit and the answer to the agent carry.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Canary { .. } => Reason::Canary,
            Self::Unavailable { .. } => Reason::SecretUnavailable,
            Self::Refused { .. } => Reason::InjectRefused,
        }
    }

    /// The credential that it is about.
    pub fn credential(&self) -> &Arc<str> {
        match self {
            Self::Canary { credential, .. }
            | Self::Unavailable { credential }
            | Self::Refused { credential, .. } => credential,
        }
    }
}

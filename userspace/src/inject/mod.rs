//! Stage 6: add what the agent must not hold. Strip what the agent attached, attach the
//! credential, swap placeholders; on the way back, scrub.

use std::sync::Arc;

use crate::policy::CredentialSpec;
use crate::secrets::Secret;

/// A credential ready for use: its specification, its secret, and what the agent sees instead.
#[derive(Clone, Debug)]
pub struct Credential {
    pub spec: Arc<CredentialSpec>,
    pub secret: Secret,
    /// Random, in the spec's shape; contains no part of the secret.
    pub placeholder: Arc<str>,
}

/// The activated credentials of one policy.
#[derive(Clone, Debug, Default)]
pub struct CredentialSet {
    pub all: Vec<Arc<Credential>>,
}

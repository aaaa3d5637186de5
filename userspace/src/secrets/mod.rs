//! Beside the flow: a `SecretRef`, as written in a policy, becomes a [`Secret`] in memory.

mod reference;
mod secret;

pub use reference::{SecretRef, SecretRefError};
pub use secret::Secret;

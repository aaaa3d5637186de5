//! Pure: how a policy names a secret.

use std::path::PathBuf;

/// A checked reference. Kinds whose machinery comes later are refused by [`SecretRef::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `env:NAME`: the operator's environment; removed from the agent's.
    Env(String),
    /// `file:PATH`: 0600 or stricter, owned by root or the operator.
    File(PathBuf),
    /// `exec:CMD ARGS`: one JSON request on stdin, one JSON answer on stdout.
    Exec(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a secret reference: {why}")]
pub struct SecretRefError {
    pub text: String,
    pub why: String,
}

impl SecretRef {
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        match text.split_once(':') {
            Some(("env", n)) if !n.is_empty() => Ok(Self::Env(n.into())),
            Some(("file", p)) if p.starts_with('/') => Ok(Self::File(p.into())),
            Some(("exec", c)) if !c.trim().is_empty() => {
                Ok(Self::Exec(c.split_whitespace().map(Into::into).collect()))
            }
            _ => Err(SecretRefError {
                text: text.into(),
                why: "expected env:, file: or exec:".into(),
            }),
        }
    }
}

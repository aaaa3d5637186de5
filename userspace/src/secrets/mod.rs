//! Beside the flow: a `SecretRef`, as written in a policy, becomes a [`Secret`] in memory.
//!
//! [`resolve`] is the only door. What it returns has been checked to be usable as a header value
//! and long enough to be recognised in answers; its errors name the credential, what happened and
//! what to do next, and never the value.

mod env;
mod error;
mod exec;
mod file;
mod operator;
mod pipes;
mod reference;
mod secret;
mod words;

pub use error::{SecretError, SecretProblem, Stderr};
pub use operator::Operator;
pub use reference::{SecretRef, SecretRefError};
pub use secret::Secret;

use zeroize::Zeroizing;

use crate::policy::CredentialSpec;

/// The longest secret, in bytes.
pub const MAX_SECRET: usize = 64 * 1024;
/// The shortest secret, in bytes: anything shorter cannot be told from chance in an answer, so
/// it could not be scrubbed without damaging answers.
pub const MIN_SECRET: usize = 8;

/// Bytes as a source delivered them, not yet checked; wiped when dropped.
type Raw = Zeroizing<Vec<u8>>;

/// Obtains the secret of one credential. Blocking: `file:` reads a file and `exec:` waits for a
/// command, at most 10 seconds.
pub fn resolve(spec: &CredentialSpec, operator: &Operator) -> Result<Secret, SecretError> {
    let raw = match &spec.secret {
        SecretRef::Env(name) => env::read(name, operator),
        SecretRef::File(path) => file::read(path, operator),
        SecretRef::Exec(words) => {
            let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
            exec::run(words, &exec::Request::new(&spec.name, &hosts), operator)
        }
    };
    raw.and_then(|raw| check(&raw).map(|()| Secret::new(raw.to_vec())))
        .map_err(|problem| SecretError { credential: spec.name.clone(), problem })
}

/// Accepts what can stand in a header value and be recognised again.
pub(crate) fn check(raw: &[u8]) -> Result<(), SecretProblem> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| *b == b' ');
    if raw.is_empty() {
        Err(SecretProblem::Empty)
    } else if raw.iter().any(u8::is_ascii_control) {
        Err(SecretProblem::ControlBytes)
    } else if edge(raw.first()) || edge(raw.last()) {
        Err(SecretProblem::SpaceAtEdge)
    } else if raw.len() < MIN_SECRET {
        Err(SecretProblem::TooShort)
    } else if raw.len() > MAX_SECRET {
        Err(SecretProblem::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret() {
        let long = vec![b'x'; MAX_SECRET];
        for good in [&b"12345678"[..], b"pass word", "pässwörd".as_bytes(), &long] {
            assert!(check(good).is_ok(), "{}", good.len());
        }
        let too_long = vec![b'x'; MAX_SECRET + 1];
        for (bad, want) in [
            (&b""[..], "is empty"),
            (b"1234567", "shorter than 8"),
            (b"12345678\r\nX-Evil: 1", "control"),
            (b"1234\x005678", "control"),
            (b"12345678\n", "control"),
            (b" 12345678", "white space"),
            (b"12345678 ", "white space"),
            (&too_long, "longer than"),
        ] {
            let e = check(bad).unwrap_err();
            assert!(e.to_string().contains(want), "{e}");
        }
    }
}

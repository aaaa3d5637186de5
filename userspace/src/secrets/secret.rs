//! A secret has a type: redacted when printed, zeroized when dropped, and `.expose()` finds
//! every use.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Bytes that must never be printed, logged or written down.
///
/// Clones share one allocation, so there is one place to wipe and one range to lock.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes the bytes over. Nothing is checked here; see [`super::resolve`].
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes themselves. Every call is a place to review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the length: it helps to guess which kind of token it is.
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_it() {
        let text = format!("{:?}", Secret::new(b"correct horse".to_vec()));
        assert_eq!(text, "Secret(…)");
    }

    #[test]
    fn clones_share_the_bytes() {
        let a = Secret::new(b"correct horse".to_vec());
        let b = a.clone();
        assert_eq!(a.expose().as_ptr(), b.expose().as_ptr());
    }
}

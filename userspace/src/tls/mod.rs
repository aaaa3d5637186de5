//! Stage 4: open it. ClientHello, server name, leaf certificates, termination, and TLS towards
//! the upstream.
//!
//! egret peeks at the first bytes ([`peek`]), understands a ClientHello ([`client_hello`]), and
//! either passes the bytes on untouched or ends the TLS here ([`terminate`]) with a certificate
//! for exactly the name that policy decided on ([`leaf`], [`authority`]). The other leg is a TLS
//! connection of its own, verified against the system's roots ([`upstream`]); why one fails is said
//! in plain words ([`cause`]).

pub mod authority;
pub mod cause;
pub mod client_hello;
pub mod leaf;
pub mod peek;
pub mod terminate;
pub mod upstream;
mod verify;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The one crypto provider of both legs.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// Does once, off the path of the first request, what would make that request slow: aws-lc's
/// first random bytes take tens of milliseconds, and so does reading the system's roots.
/// Blocking; call it from a thread of its own.
pub fn warm() {
    let mut bytes = [0u8; 32];
    // A failure here would fail again, and be reported, where the bytes are needed.
    let _ = provider().secure_random.fill(&mut bytes);
    upstream::system_roots();
}

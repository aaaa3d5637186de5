//! Why a connected upstream gave no answer, in words that an agent and its operator can act on.

use std::error::Error as StdError;
use std::io;

use crate::outcome::Reason;
use crate::tls::cause;
use crate::tls::upstream::UpstreamTlsError;

/// Why an exchange came to nothing after the connection was there.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    Tls(UpstreamTlsError),
    #[error("the head of the upstream's answer is too large")]
    HeadTooLarge,
    #[error("the upstream's answer is not HTTP: {0}")]
    NotHttp(hyper::Error),
    #[error("the upstream closed the connection before it answered")]
    Closed,
    #[error("the upstream broke the HTTP/2 exchange off: {0}")]
    Reset(String),
    #[error("the exchange with the upstream failed: {0}")]
    Other(String),
}

impl NoAnswer {
    /// What hyper's error means.
    pub fn of(error: hyper::Error) -> Self {
        if let Some(tls) = cause::beneath(&error) {
            return Self::Tls(tls);
        }
        if error.is_parse_too_large() {
            return Self::HeadTooLarge;
        }
        if error.is_parse() {
            return Self::NotHttp(error);
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Self::Closed;
        }
        match io_kind(&error) {
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
            | Some(io::ErrorKind::BrokenPipe) => Self::Closed,
            Some(kind) => Self::Other(kind.to_string()),
            None => match error.source() {
                Some(source) => Self::Reset(source.to_string()),
                None => Self::Other(error.to_string()),
            },
        }
    }

    pub fn reason(&self) -> Reason {
        match self {
            Self::Tls(e) => e.reason(),
            Self::HeadTooLarge | Self::NotHttp(_) => Reason::UpstreamProtocol,
            Self::Closed | Self::Reset(_) | Self::Other(_) => Reason::UpstreamConnect,
        }
    }
}

/// The kind of the I/O error beneath, if there is one. Its text may name addresses.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(io) = source.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = source.source();
    }
    None
}

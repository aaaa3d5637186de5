//! Why a connected upstream gave no answer, in words that an agent and its operator can act on.

use std::error::Error as StdError;
use std::io::{self, ErrorKind as Kind};

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
    Reset(h2::Reason),
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
        match beneath(&error) {
            Some(Beneath::Io(Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe)) => {
                Self::Closed
            }
            Some(Beneath::Io(kind)) => Self::Other(kind.to_string()),
            Some(Beneath::H2(reason)) => Self::Reset(reason),
            None => Self::Other(error.to_string()),
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

/// What is at the bottom of an error of hyper's, without its text: that may name addresses, or
/// hold what the upstream wrote into a GOAWAY, which could be a secret that it was sent.
enum Beneath {
    Io(Kind),
    H2(h2::Reason),
}

fn beneath(error: &hyper::Error) -> Option<Beneath> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(io) = source.downcast_ref::<io::Error>() {
            return Some(Beneath::Io(io.kind()));
        }
        if let Some(h2) = source.downcast_ref::<h2::Error>() {
            let io = h2.get_io().map(|io| Beneath::Io(io.kind()));
            return io.or(h2.reason().map(Beneath::H2));
        }
        next = source.source();
    }
    None
}

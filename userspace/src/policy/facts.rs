//! Pure: the facts that policy decides on. They arrive as values, already canonical.

pub use super::host::{Host, HostName, HostNameError};

/// How a connection is spoken, from the rule's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS, opened by egret, HTTP inside.
    Https,
    /// HTTP without TLS.
    Http,
    /// TLS, passed through unopened; only the server name is known.
    Tls,
    /// Opaque bytes.
    Tcp,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Https, Self::Http, Self::Tls, Self::Tcp];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    /// The protocol with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }

    /// The port of a rule or URL that names none; `tcp` has none.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Self::Https | Self::Tls => Some(443),
            Self::Http => Some(80),
            Self::Tcp => None,
        }
    }
}

/// What egret has learned of a connection so far; the facts grow layer by layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Host and port only: nothing has been read.
    Connect,
    /// A ClientHello has been read (`tls = true`) or plain bytes (`tls = false`).
    Opened { tls: bool },
    /// One HTTP request head has been read, over TLS (`tls = true`) or plain.
    Request { tls: bool },
}

/// Method and path of one HTTP request. `path` is exactly what will be sent, without the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    pub method: &'a str,
    pub path: &'a str,
}

/// Everything a decision may depend on.
///
/// `host` is an address only while no name is known; once SNI or Host names one, the facts of the
/// next layer carry that name.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub layer: Layer,
    pub host: &'a Host,
    pub port: u16,
    /// Present exactly when `layer` is `Request`.
    pub request: Option<RequestFacts<'a>>,
}

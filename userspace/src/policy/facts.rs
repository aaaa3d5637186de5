//! Pure: the facts that policy decides on. They arrive as values, already canonical.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A canonical host name: lower case ASCII (IDNA applied), no trailing dot, labels of 1 to 63
/// bytes of `[a-z0-9_-]`, at most 253 bytes, not an IP literal in any notation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why a text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host name: {why}")]
pub struct HostNameError {
    pub text: String,
    pub why: &'static str,
}

impl HostName {
    /// Canonicalises `text` or says why it cannot be a name.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        // Placeholder of the skeleton; the policy stage replaces it with the full rules.
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        if lower.is_empty() {
            return Err(HostNameError { text: text.into(), why: "it is empty" });
        }
        Ok(Self(lower.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name, or an address where no name is known. A v4-mapped IPv6 address is IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(HostName),
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(n) => n.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
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
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub layer: Layer,
    pub host: &'a Host,
    pub port: u16,
    /// Present exactly when `layer` is `Request`.
    pub request: Option<RequestFacts<'a>>,
}

//! Pure: host names and addresses in exactly one spelling each, so that equality is identity.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Serialize, Serializer};

/// A canonical host name: lower case ASCII (IDNA applied), no trailing dot, labels of 1 to 63
/// bytes of `[a-z0-9_-]`, at most 253 bytes, not an IP literal in any notation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why a text is not a host name (or not a host).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a host name: {why}", text.escape_debug())]
pub struct HostNameError {
    pub text: String,
    pub why: &'static str,
}

/// Longest text that is looked at; IDNA input can be a little longer than its ASCII form.
const LONGEST_INPUT: usize = 1024;

impl HostName {
    /// Canonicalises `text`: IDNA (UTS 46) to ASCII, lower case, one trailing dot removed.
    ///
    /// # Errors
    /// When it is empty or too long, has a byte that no host name has (controls, NUL, spaces,
    /// `/`, `@`, `:` among them), a hyphen at the edge of a label, or its last label is a number:
    /// `127.1`, `2130706433`, `0x7f.1` and `0177.0.0.1` are addresses to some programs.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        Self::canonical(text).map_err(|why| HostNameError { text: text.into(), why })
    }

    fn canonical(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > LONGEST_INPUT {
            return Err("it is too long");
        }
        let lower = text.to_ascii_lowercase();
        let needs_idna = !lower.is_ascii() || lower.split('.').any(|l| l.starts_with("xn--"));
        let ascii = if needs_idna {
            Uts46::new()
                .to_ascii(lower.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore)
                .map_err(|_| "it is not a valid internationalised name")?
                .into_owned()
        } else {
            lower
        };
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        check_ascii(name)?;
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a name below `suffix` (`a.b` is below `b`; `b` is not below `b`); gives
    /// what stands before the dot.
    pub fn below<'a>(&'a self, suffix: &Self) -> Option<&'a str> {
        self.0.strip_suffix(suffix.as_str())?.strip_suffix('.')
    }
}

fn check_ascii(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > 253 {
        return Err("it is longer than 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("it has an empty label");
        }
        if label.len() > 63 {
            return Err("it has a label longer than 63 bytes");
        }
        if !label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')) {
            return Err("it has a character that host names do not have");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("it has a label that begins or ends with a hyphen");
        }
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    if is_number(last) { Err("it looks like an address") } else { Ok(()) }
}

/// Whether a last label makes resolvers read the whole text as an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x");
    hex.is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
        || label.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

/// A name, or an address where no name is known. A v4-mapped IPv6 address is IPv4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(HostName),
    Ip(IpAddr),
}

impl Host {
    /// A name, `1.2.3.4`, `[2001:db8::1]` or `2001:db8::1`.
    ///
    /// # Errors
    /// As [`HostName::parse`]; an IPv6 address with a zone is refused.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(inner) = bare {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::from_ip(ip.into())).map_err(|_| {
                HostNameError { text: text.into(), why: "it is not an IPv6 address in brackets" }
            });
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self::from_ip(ip.into()));
        }
        HostName::parse(text).map(Self::Name)
    }

    /// `host`, `host:port` or `[v6]:port`, as in a Host header or a URL.
    ///
    /// # Errors
    /// As [`Host::parse`]; also for a bare IPv6 address and a port that is not 1 to 65535.
    pub fn parse_authority(text: &str) -> Result<(Self, Option<u16>), HostNameError> {
        let err = |why| HostNameError { text: text.into(), why };
        let (host, port) = match text.rfind(']') {
            Some(end) => text.split_at(end + 1),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|&p| p != 0).ok_or_else(|| err("bad port"))?)
            }
            _ => return Err(err("what follows the host is not a port")),
        };
        Ok((Self::parse(host)?, port))
    }

    /// An address in its one spelling: v4-mapped IPv6 becomes IPv4.
    pub fn from_ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }

    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Name(n) => Some(n),
            Self::Ip(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(n) => n.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (text, want) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("example.com.", "example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("example。com", "example.com"), // ideographic full stop
            ("ｅｘａｍｐｌｅ.com", "example.com"), // full-width letters
            ("git\u{ad}hub.com", "github.com"), // soft hyphen is ignored by UTS 46
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("r4---sn-x.example", "r4---sn-x.example"),
            ("localhost", "localhost"),
            ("1.example", "1.example"),
            ("0x7f.example", "0x7f.example"),
            ("cafe", "cafe"),
        ] {
            assert_eq!(HostName::parse(text).map(|h| h.to_string()).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(HostName::parse(&"a.".repeat(127)).unwrap().as_str().len(), 253);
    }

    #[test]
    fn what_is_not_a_name_is_refused() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long = "a.".repeat(128);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            " a",
            "a\0",
            "a\0.b.com",
            "a\n",
            "a\t",
            "a/b",
            "a@b",
            "a:80",
            "a%2eb",
            "*.a",
            "a,b",
            "-a.com",
            "a-.com",
            "a\u{7f}",
            "\u{85}a",
            "[::1]",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "1.2.3.4",
            "1.2.3.4.",
            "0x",
            "1.2.3",
            "１２７.1",
            "example.0x1",
            "xn--a",
            "xn--.com",
            "a。",
            "。",
            &long_label,
            &long,
            "\u{ad}",
            "example.com\u{ad}.1",
        ] {
            // A trailing ideographic dot is one trailing dot.
            if text == "a。" {
                assert_eq!(HostName::parse(text).unwrap().as_str(), "a");
                continue;
            }
            assert!(HostName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts_and_authorities() {
        let ip = |t: &str| Host::Ip(t.parse().unwrap());
        assert_eq!(Host::parse("1.2.3.4"), Ok(ip("1.2.3.4")));
        assert_eq!(Host::parse("[::1]"), Ok(ip("::1")));
        assert_eq!(Host::parse("::1"), Ok(ip("::1")));
        assert_eq!(Host::parse("[::ffff:1.2.3.4]"), Ok(ip("1.2.3.4")));
        for bad in
            ["[::1", "::1]", "[1.2.3.4]", "[fe80::1%eth0]", "fe80::1%1", "01.2.3.4", "1.2.3.256"]
        {
            assert!(Host::parse(bad).is_err(), "{bad}");
        }
        let a = |t: &str| Host::parse_authority(t).map(|(h, p)| (h.to_string(), p));
        assert_eq!(a("x.test"), Ok(("x.test".into(), None)));
        assert_eq!(a("x.test:81"), Ok(("x.test".into(), Some(81))));
        assert_eq!(a("[::1]:81"), Ok(("::1".into(), Some(81))));
        for bad in ["x:", "x:0", "x:65536", "x:+1", "x:1:2", "::1", "u@x", "[::1]81", "x: 1", ""] {
            assert!(a(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn canonicalisation_is_idempotent(text in "\\PC{0,40}|[a-zA-Z0-9.-]{0,30}|xn--[a-z0-9-]{1,20}") {
            if let Ok(once) = HostName::parse(&text) {
                prop_assert_eq!(HostName::parse(once.as_str()), Ok(once.clone()));
                prop_assert!(once.as_str().parse::<IpAddr>().is_err());
            }
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }
    }
}

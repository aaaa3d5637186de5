//! Pure: patterns over hosts, and sets of methods.
//!
//! | pattern | matches | does not match |
//! |---|---|---|
//! | `x.test` | `x.test` | `a.x.test` |
//! | `*.x.test` | `a.x.test` | `x.test`, `a.b.x.test`, `notx.test` |
//! | `**.x.test` | `a.x.test`, `a.b.x.test` | `x.test`, `notx.test` |
//! | `192.0.2.1`, `2001:db8::1` | that address | any name |
//! | `10.0.0.0/8` | any address in it | any name |
//!
//! Names match names and addresses match addresses: a name that resolves into a range is not
//! matched by the range.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network};

use super::{Host, HostName};

/// A checked host pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Exact(HostName),
    /// `*.x`: exactly one label before `x`.
    OneLabel(HostName),
    /// `**.x`: one or more labels before `x`.
    AnyDepth(HostName),
    /// IPv4 where an address is v4-mapped.
    Ip(IpAddr),
    /// A network without host bits.
    Cidr(IpNetwork),
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong and, where it is plain, what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(suffix) = text.strip_prefix("**.") {
            return suffix_name(text, suffix).map(Self::AnyDepth);
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return suffix_name(text, suffix).map(Self::OneLabel);
        }
        if text.contains('*') {
            return Err(PatternError::new(
                text,
                "a `*` stands only for whole labels at the front, as in `*.x.test` (one label) or \
                 `**.x.test` (any depth)",
            ));
        }
        if text.contains("://") {
            return Err(PatternError::new(text, "a host has no scheme; use `protocol`"));
        }
        if text.contains('/') {
            return parse_network(text);
        }
        match Host::parse(text) {
            Ok(Host::Name(n)) => Ok(Self::Exact(n)),
            Ok(Host::Ip(ip)) => Ok(Self::Ip(ip)),
            Err(e) => match Host::parse_authority(text) {
                Ok((host, Some(port))) => Err(PatternError::new(text, "a host has no port")
                    .suggest(format!("hosts = [\"{host}\"] and ports = [{port}]"))),
                _ => Err(PatternError::new(text, e.why)),
            },
        }
    }

    pub fn matches(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.matches_name(name),
            Host::Ip(ip) => self.matches_ip(ip.to_canonical()),
        }
    }

    pub fn matches_name(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(n) => n == name,
            Self::OneLabel(suffix) => name.below(suffix).is_some_and(|l| !l.contains('.')),
            Self::AnyDepth(suffix) => name.below(suffix).is_some(),
            Self::Ip(_) | Self::Cidr(_) => false,
        }
    }

    fn matches_ip(&self, ip: IpAddr) -> bool {
        match self {
            Self::Ip(mine) => *mine == ip,
            Self::Cidr(net) => net.contains(ip),
            Self::Exact(_) | Self::OneLabel(_) | Self::AnyDepth(_) => false,
        }
    }

    /// Whether this pattern is about names rather than addresses.
    pub fn is_name(&self) -> bool {
        matches!(self, Self::Exact(_) | Self::OneLabel(_) | Self::AnyDepth(_))
    }

    /// Whether every host that `other` matches is matched by `self`.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(n)) => self.matches_name(n),
            (_, Self::Ip(ip)) => self.matches_ip(*ip),
            (Self::OneLabel(a), Self::OneLabel(b)) => a == b,
            (Self::AnyDepth(a), Self::OneLabel(b) | Self::AnyDepth(b)) => {
                a == b || b.below(a).is_some()
            }
            (Self::Cidr(a), Self::Cidr(b)) => a.prefix() <= b.prefix() && a.contains(b.network()),
            (Self::Ip(a), Self::Cidr(b)) => {
                b.network() == *a && b.prefix() == if a.is_ipv4() { 32 } else { 128 }
            }
            _ => false,
        }
    }
}

fn suffix_name(text: &str, suffix: &str) -> Result<HostName, PatternError> {
    HostName::parse(suffix).map_err(|e| PatternError::new(text, e.why))
}

/// A network in CIDR notation; v4-mapped becomes IPv4.
///
/// # Errors
/// When it is not one, or has bits set after the prefix.
pub fn parse_cidr(text: &str) -> Result<IpNetwork, PatternError> {
    let err = |why: &str| PatternError::new(text, why);
    let (ip, prefix) = text.split_once('/').ok_or_else(|| err("a network is ADDRESS/PREFIX"))?;
    let not_network = "it is neither a host nor a network (ADDRESS/PREFIX); paths go in `paths`";
    let ip: IpAddr = ip.parse().map_err(|_| err(not_network))?;
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix: u8 =
        prefix.parse().ok().filter(|_| digits).ok_or_else(|| err("the prefix is not a number"))?;
    let net = match (ip, ip.to_canonical()) {
        (IpAddr::V6(_), IpAddr::V4(v4)) if prefix >= 96 => {
            Ipv4Network::new(v4, prefix.saturating_sub(96)).map(IpNetwork::V4)
        }
        _ => IpNetwork::new(ip, prefix),
    }
    .map_err(|_| err("the prefix is too long for this address"))?;
    if net.network() == net.ip() {
        Ok(net)
    } else {
        Err(err("bits are set after the prefix").suggest(format!(
            "{}/{}",
            net.network(),
            net.prefix()
        )))
    }
}

fn parse_network(text: &str) -> Result<HostPattern, PatternError> {
    parse_cidr(text).map(HostPattern::Cidr)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(n) => n.fmt(f),
            Self::OneLabel(n) => write!(f, "*.{n}"),
            Self::AnyDepth(n) => write!(f, "**.{n}"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Cidr(net) => net.fmt(f),
        }
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a host pattern: {why}", text.escape_debug())]
pub struct PatternError {
    pub text: String,
    pub why: String,
    pub suggestion: Option<String>,
}

impl PatternError {
    fn new(text: &str, why: &str) -> Self {
        Self { text: text.into(), why: why.into(), suggestion: None }
    }

    fn suggest(mut self, suggestion: String) -> Self {
        self.suggestion = Some(suggestion);
        self
    }
}

/// The methods of a rule: case-sensitive, upper case, without CONNECT and TRACE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodSet(Vec<Arc<str>>);

impl MethodSet {
    /// A set from checked names.
    ///
    /// # Errors
    /// The first name that cannot be in a set, and why.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, (String, String)> {
        let names: Vec<&str> = names.into_iter().collect();
        for name in &names {
            Self::check(name).map_err(|why| ((*name).to_owned(), why))?;
        }
        Ok(Self(names.into_iter().map(Into::into).collect()))
    }

    /// Whether `name` may stand in a rule.
    ///
    /// # Errors
    /// Why not.
    pub fn check(name: &str) -> Result<(), String> {
        if is_tunnel(name) {
            Err(format!("`{name}` is never forwarded"))
        } else if is_exact_method(name) {
            Ok(())
        } else if is_exact_method(&name.to_ascii_uppercase()) {
            Err(format!("methods are upper case: `{}`", name.to_ascii_uppercase()))
        } else {
            Err(format!("`{}` is not a method", name.escape_debug()))
        }
    }

    /// Strict, for allow rules.
    pub fn contains(&self, method: &str) -> bool {
        self.0.iter().any(|m| **m == *method)
    }

    /// Generous, for deny and ask rules: servers may ignore case.
    pub fn contains_any_case(&self, method: &str) -> bool {
        self.0.iter().any(|m| m.eq_ignore_ascii_case(method))
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|m| &**m)
    }
}

impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// CONNECT and TRACE, in any case: never forwarded, whatever a rule says.
pub(super) fn is_tunnel(method: &str) -> bool {
    ["CONNECT", "TRACE"].iter().any(|m| m.eq_ignore_ascii_case(method))
}

/// A method in the spelling that rules use; an allow rule matches no other.
pub(super) fn is_exact_method(method: &str) -> bool {
    !method.is_empty()
        && method.len() <= 32
        && method
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn truth_table() {
        for (p, yes, no) in [
            (
                "x.test",
                &["x.test", "X.test."][..],
                &["a.x.test", "ax.test", "x.test.a", "test"][..],
            ),
            ("X.TEST.", &["x.test"], &["a.x.test"]),
            (
                "*.x.test",
                &["a.x.test", "A.X.Test"],
                &["x.test", "a.b.x.test", "ax.test", "notx.test"],
            ),
            ("**.x.test", &["a.x.test", "a.b.x.test"], &["x.test", "notx.test", "x.test.evil"]),
            ("*.com", &["nottrusted.com"], &["com", "a.b.com"]),
            ("bücher.example", &["xn--bcher-kva.example"], &["bucher.example"]),
            ("192.0.2.1", &["192.0.2.1", "[::ffff:192.0.2.1]"], &["192.0.2.2", "x.test"]),
            ("::ffff:192.0.2.1", &["192.0.2.1"], &["::1"]),
            ("10.0.0.0/8", &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.1", "x.test", "::a00:1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.1"]),
            ("2001:db8::/32", &["2001:db8::1"], &["2001:db9::1", "10.0.0.1"]),
            ("::/0", &["2001:db8::1"], &["10.0.0.1"]),
            ("0.0.0.0/0", &["10.0.0.1"], &["2001:db8::1", "x.test"]),
        ] {
            for h in yes {
                assert!(pattern(p).matches(&Host::parse(h).unwrap()), "{p} should match {h}");
            }
            for h in no {
                assert!(!pattern(p).matches(&Host::parse(h).unwrap()), "{p} should not match {h}");
            }
        }
    }

    #[test]
    fn bad_patterns() {
        for p in [
            "",
            "*",
            "**",
            "*.",
            "a.*",
            "a*.x",
            "*.*.x",
            "***.x",
            "**.*.x",
            "x.test:443",
            "https://x.test",
            "x.test/a",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "127.1",
            "2130706433",
            "*.1",
            "10.0.0.0/255.0.0.0",
            "a b",
            "fe80::1%eth0",
        ] {
            assert!(HostPattern::parse(p).is_err(), "{p}");
        }
        let help = |p| HostPattern::parse(p).unwrap_err().suggestion;
        assert_eq!(help("10.0.0.1/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(help("x.test:8443").as_deref(), Some("hosts = [\"x.test\"] and ports = [8443]"));
    }

    #[test]
    fn coverage() {
        for (a, b, want) in [
            ("x.test", "x.test", true),
            ("*.x.test", "a.x.test", true),
            ("*.x.test", "**.x.test", false),
            ("**.x.test", "*.x.test", true),
            ("**.x.test", "*.a.x.test", true),
            ("**.x.test", "**.a.x.test", true),
            ("**.x.test", "x.test", false),
            ("*.x.test", "*.a.x.test", false),
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.1.0.0/16", "10.0.0.0/8", false),
            ("10.0.0.0/8", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1/32", true),
            ("10.0.0.0/8", "x.test", false),
        ] {
            assert_eq!(pattern(a).covers(&pattern(b)), want, "{a} covers {b}");
        }
    }

    #[test]
    fn methods() {
        let set = MethodSet::new(["GET", "M-SEARCH"]).unwrap();
        assert!(set.contains("GET") && !set.contains("get") && set.contains_any_case("get"));
        for bad in ["get", "CONNECT", "trace", "", "GE T", "GET,POST", "É"] {
            assert!(MethodSet::new([bad]).is_err(), "{bad}");
        }
    }
}

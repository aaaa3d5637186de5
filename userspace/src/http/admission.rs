//! Pure: strict admission. A request that two readers could understand differently is refused
//! before policy sees it.
//!
//! The bytes of an HTTP/1 head were checked before it was parsed (`head`); what follows upstream
//! is written anew from the parsed head. This module judges what both protocols have in common,
//! and what of HTTP/2 the parser lets through: methods, targets, authorities, framing, headers.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{
    CONTENT_LENGTH, EXPECT, HOST, HeaderName, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use super::head::{is_method, plain_length};
use super::headers::connection_lists;
use crate::outcome::Reason;
use crate::policy::{Host, HostName};

/// Headers that ask a server to treat the request as another method than the one policy saw.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-http-method"),
];

/// Longest request target; more is not a request that policy could be asked about.
const LONGEST_TARGET: usize = 16 * 1024;

/// A request that has only one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The host that `Host` or `:authority` names, canonical.
    pub host: Host,
    /// The port it names, if any.
    pub port: Option<u16>,
    /// The agent asks to leave HTTP after this request (`Upgrade`).
    pub upgrade: bool,
}

/// Why a request is refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    pub reason: Reason,
    pub why: &'static str,
}

const fn malformed(why: &'static str) -> Refused {
    Refused { reason: Reason::MalformedRequest, why }
}

const fn method(why: &'static str) -> Refused {
    Refused { reason: Reason::MethodRefused, why }
}

/// Admits the request or says why not. `tls`: it came over TLS.
pub fn admit(head: &Parts, tls: bool) -> Result<Admitted, Refused> {
    check_method(head)?;
    check_target(head, tls)?;
    check_framing(head)?;
    let upgrade = check_upgrade(head)?;
    let (host, port) = authority(head)?;
    Ok(Admitted { host, port, upgrade })
}

fn check_method(head: &Parts) -> Result<(), Refused> {
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(method("CONNECT and TRACE are never forwarded"));
    }
    if !is_method(head.method.as_str().as_bytes()) {
        return Err(malformed("the method is not written in upper case"));
    }
    if OVERRIDES.iter().any(|h| head.headers.contains_key(h)) {
        return Err(method("a header asks for another method than the request line"));
    }
    Ok(())
}

fn check_target(head: &Parts, tls: bool) -> Result<(), Refused> {
    let uri = &head.uri;
    if let Some(scheme) = uri.scheme_str()
        && scheme != if tls { "https" } else { "http" }
    {
        return Err(malformed("the target's scheme is not the connection's"));
    }
    let Some(target) = uri.path_and_query() else {
        return Err(malformed("the target has no path"));
    };
    let text = target.as_str();
    if text.len() > LONGEST_TARGET {
        return Err(malformed("the target is too long"));
    }
    if text == "*" {
        return if head.method == Method::OPTIONS {
            Ok(())
        } else {
            Err(malformed("`*` is a target of OPTIONS only"))
        };
    }
    if !text.starts_with('/') {
        return Err(malformed("the target does not begin with `/`"));
    }
    if !text.bytes().all(|b| (0x21..0x7f).contains(&b)) {
        return Err(malformed("the target holds bytes that must be percent-encoded"));
    }
    Ok(())
}

fn check_framing(head: &Parts) -> Result<(), Refused> {
    let headers = &head.headers;
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 {
        return Err(malformed("more than one Content-Length"));
    }
    if headers.get(CONTENT_LENGTH).is_some_and(|v| plain_length(v.as_bytes()).is_none()) {
        return Err(malformed("Content-Length is not a plain number"));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        check_transfer_encoding(head, lengths)?;
    }
    if let Some(expect) = headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(malformed("an Expect other than 100-continue"));
    }
    Ok(())
}

fn check_transfer_encoding(head: &Parts, lengths: usize) -> Result<(), Refused> {
    if lengths > 0 {
        return Err(malformed("Content-Length and Transfer-Encoding together"));
    }
    if head.version != Version::HTTP_11 {
        return Err(malformed("Transfer-Encoding outside HTTP/1.1"));
    }
    let mut values = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (Some(v), None) if v.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(malformed("a Transfer-Encoding other than `chunked`")),
    }
}

/// Whether the request asks for an upgrade that may be forwarded.
fn check_upgrade(head: &Parts) -> Result<bool, Refused> {
    let headers = &head.headers;
    if !headers.contains_key(UPGRADE) {
        return Ok(false);
    }
    if head.version != Version::HTTP_11 {
        return Err(malformed("Upgrade outside HTTP/1.1"));
    }
    if !connection_lists(headers, "upgrade") {
        return Ok(false); // a hop-by-hop header without effect, and stripped like one
    }
    let mut values = headers.get_all(UPGRADE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(malformed("more than one Upgrade"));
    };
    let protocol = value.to_str().map_err(|_| malformed("Upgrade is not a protocol name"))?;
    if protocol.contains(',') || protocol.trim().is_empty() {
        return Err(malformed("Upgrade offers more than one protocol"));
    }
    let lower = protocol.trim().to_ascii_lowercase();
    if lower == "h2c" || lower.starts_with("h2") || lower.starts_with("http/") {
        // Requests on the upgraded connection would not be decided one by one. RFC 9110 lets a
        // server ignore an upgrade; the request goes on as an ordinary one, without the header.
        return Ok(false);
    }
    if lower.starts_with("tls/") {
        return Err(malformed("an upgrade to TLS inside the connection"));
    }
    if lower == "websocket" && !headers.contains_key(SEC_WEBSOCKET_KEY) {
        return Err(malformed("a WebSocket upgrade without a key"));
    }
    if has_body(headers) {
        return Err(malformed("an upgrade with a body"));
    }
    Ok(true)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|v| v.as_bytes() != b"0")
}

/// The one authority of the request: `Host` and the target's authority, where both are there,
/// must be the same text but for letter case.
fn authority(head: &Parts) -> Result<(Host, Option<u16>), Refused> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("more than one Host"));
    }
    let host = match host {
        Some(v) => Some(v.to_str().map_err(|_| malformed("Host is not plain ASCII"))?),
        None => None,
    };
    let text = match (head.uri.authority(), host) {
        (Some(target), Some(host)) if target.as_str().eq_ignore_ascii_case(host) => host,
        (Some(_), Some(_)) => return Err(malformed("Host is unlike the target's authority")),
        (Some(target), None) if head.version == Version::HTTP_2 => target.as_str(),
        (Some(_), None) | (None, None) => return Err(malformed("no Host")),
        (None, Some(host)) => host,
    };
    parse_authority(text).ok_or(malformed("Host is not one host name or address with a port"))
}

/// `host`, `host:port`, `1.2.3.4:port` or `[v6]:port`, and nothing else.
pub fn parse_authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let ip: Ipv6Addr = inside.parse().ok()?;
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':')?),
        };
        (Host::Ip(ip), port)
    } else {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        let host = match name.parse::<std::net::Ipv4Addr>() {
            Ok(ip) => Host::Ip(IpAddr::V4(ip)),
            Err(_) => Host::Name(plain_name(name)?),
        };
        (host, port)
    };
    let port = match port {
        None => None,
        Some(digits) => Some(plain_port(digits)?),
    };
    Some((host, port))
}

/// Only what a Host header may hold is given to the name parser, which is made for people too.
fn plain_name(name: &str) -> Option<HostName> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.bytes().all(plain).then(|| HostName::parse(name).ok()).flatten()
}

fn plain_port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok().filter(|p| *p != 0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];
    /// Request line, headers, and the expectation.
    type Case<'a, T> = (&'a str, Headers<'a>, T);

    /// A head from `METHOD TARGET`, a version and header pairs.
    fn head(line: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
        let (method, target) = line.split_once(' ').unwrap();
        let mut builder = http::Request::builder().method(method).uri(target).version(version);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_admitted_and_what_is_not() {
        let h = ("host", "api.example.com");
        let cases: &[Case<'_, Option<Reason>>] = &[
            ("GET /", &[h], None),
            ("GET /a/../%2e%2e;x//b?q=../x", &[h], None), // byte for byte; policy judges paths
            ("OPTIONS *", &[h], None),
            ("PROPFIND /", &[h], None),
            ("M-SEARCH /", &[h], None),
            ("GET http://api.example.com/x", &[h], None),
            ("GET http://API.example.com/x", &[h], None),
            ("POST /", &[h, ("content-length", "3")], None),
            ("POST /", &[h, ("transfer-encoding", "chunked")], None),
            ("POST /", &[h, ("expect", "100-Continue")], None),
            ("GET /", &[("host", "[2001:db8::1]:8443")], None),
            ("get /", &[h], Some(Reason::MalformedRequest)),
            ("Get /", &[h], Some(Reason::MalformedRequest)),
            ("TRACE /", &[h], Some(Reason::MethodRefused)),
            ("CONNECT api.example.com:443", &[h], Some(Reason::MethodRefused)),
            ("POST /", &[h, ("x-http-method-override", "DELETE")], Some(Reason::MethodRefused)),
            ("GET *", &[h], Some(Reason::MalformedRequest)),
            ("GET api.example.com:443", &[h], Some(Reason::MalformedRequest)),
            ("GET ftp://api.example.com/", &[h], Some(Reason::MalformedRequest)),
            ("GET https://api.example.com/", &[h], Some(Reason::MalformedRequest)),
            ("GET http://other.example.com/", &[h], Some(Reason::MalformedRequest)),
            ("GET /", &[], Some(Reason::MalformedRequest)),
            ("GET /", &[h, h], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "a.example, b.example")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "user@api.example.com")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "api.example.com/x")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "api.example.com:")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "api.example.com:0")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "api.example.com:+443")], Some(Reason::MalformedRequest)),
            ("GET /", &[("host", "api.example.com:443:1")], Some(Reason::MalformedRequest)),
            (
                "POST /",
                &[h, ("content-length", "3"), ("transfer-encoding", "chunked")],
                Some(Reason::MalformedRequest),
            ),
            (
                "POST /",
                &[h, ("content-length", "3"), ("content-length", "3")],
                Some(Reason::MalformedRequest),
            ),
            ("POST /", &[h, ("content-length", "+3")], Some(Reason::MalformedRequest)),
            (
                "POST /",
                &[h, ("transfer-encoding", "gzip, chunked")],
                Some(Reason::MalformedRequest),
            ),
            ("POST /", &[h, ("expect", "200-ok")], Some(Reason::MalformedRequest)),
        ];
        for (line, headers, expected) in cases {
            let got = admit(&head(line, Version::HTTP_11, headers), false);
            assert_eq!(
                got.as_ref().err().map(|e| e.reason),
                *expected,
                "{line} {headers:?} {got:?}"
            );
        }
    }

    #[test]
    fn transfer_encoding_only_in_http_1_1() {
        let headers = [("host", "a.example"), ("transfer-encoding", "chunked")];
        assert!(admit(&head("POST /", Version::HTTP_11, &headers), false).is_ok());
        assert!(admit(&head("POST /", Version::HTTP_10, &headers), false).is_err());
    }

    #[test]
    fn the_authority_of_http_2() {
        let cases: &[Case<'_, bool>] = &[
            ("GET https://api.example.com/", &[], true),
            ("GET https://api.example.com/", &[("host", "API.example.com")], true),
            ("GET https://api.example.com/", &[("host", "b.example.com")], false),
            ("GET http://api.example.com/", &[], false),
            ("GET https://user@api.example.com/", &[], false),
        ];
        for (line, headers, ok) in cases {
            let got = admit(&head(line, Version::HTTP_2, headers), true);
            assert_eq!(got.is_ok(), *ok, "{line} {headers:?} {got:?}");
        }
    }

    #[test]
    fn upgrades() {
        let h = ("host", "a.example");
        let c = ("connection", "keep-alive, Upgrade");
        let key = ("sec-websocket-key", "x");
        let cases: &[(Headers<'_>, Result<bool, ()>)] = &[
            (&[h, c, ("upgrade", "websocket"), key], Ok(true)),
            (&[h, c, ("upgrade", "SPDY/3.1")], Ok(true)),
            (&[h, ("upgrade", "websocket"), key], Ok(false)),
            (&[h, c, ("upgrade", "h2c")], Ok(false)),
            (&[h, c, ("upgrade", "HTTP/2.0")], Ok(false)),
            (&[h, c, ("upgrade", "websocket")], Err(())),
            (&[h, c, ("upgrade", "websocket, h2c"), key], Err(())),
            (&[h, c, ("upgrade", "TLS/1.0")], Err(())),
            (&[h, c, ("upgrade", "websocket"), key, ("content-length", "4")], Err(())),
        ];
        for (headers, expected) in cases {
            let got = admit(&head("GET /", Version::HTTP_11, headers), false);
            assert_eq!(got.map(|a| a.upgrade).map_err(|_| ()), *expected, "{headers:?}");
        }
    }
}

//! A request head, of HTTP/1 as hyper parses it or of HTTP/2 with its pseudo-headers, and then
//! admitted: it never panics, and what is admitted names exactly one canonical host, which is the
//! one that is written, has a method and target with one reading and one framing, and nothing that
//! belongs to one hop is left once it was stripped.
#![no_main]

use egret::http::admission::{Admitted, admit};
use egret::http::headers::{connection_lists, strip_request};
use egret::policy::Host;
use http::request::{Parts, Request};
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let text = if how & 1 == 0 {
        data.to_vec()
    } else {
        [b"GET /a HTTP/1.1\r\nhost: a.example\r\n", data, b"\r\n\r\n"].concat()
    };
    let version = if how & 2 == 0 { None } else { Some(Version::HTTP_2) };
    let Some(mut parts) = head(&text, version) else { return };
    if how & 8 != 0 {
        // As HTTP/2 has it: the authority is in the target.
        let host = parts.headers.remove("host");
        let host = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or_default();
        let scheme = if how & 4 == 0 { "https" } else { "http" };
        let Ok(uri) = format!("{scheme}://{host}{}", parts.uri).parse::<Uri>() else { return };
        parts.uri = uri;
    }
    let Ok(admitted) = admit(&parts, how & 4 == 0) else { return };
    one_host(&parts, &admitted);
    one_framing(&parts);
    assert!(parts.method != Method::CONNECT && parts.method != Method::TRACE);
    let target = parts.uri.path_and_query().expect("an admitted request has a target").as_str();
    assert!(target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#'));
    assert!(target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS));
    assert!(!admitted.upgrade || parts.version == Version::HTTP_11);

    let named: Vec<HeaderName> = parts.headers.keys().cloned().collect();
    let listed = named.into_iter().filter(|n| connection_lists(&parts.headers, n.as_str()));
    let listed: Vec<HeaderName> = listed.collect();
    strip_request(&mut parts.headers);
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-authorization"] {
        assert!(!parts.headers.contains_key(name), "{name}");
    }
    for name in listed.iter().filter(|n| !["host", "content-length", "te"].contains(&n.as_str())) {
        assert!(!parts.headers.contains_key(name), "{name} is of one hop");
    }
});

/// Whatever names a host names this one, letter by letter.
fn one_host(parts: &Parts, admitted: &Admitted) {
    assert_eq!(Host::parse(&admitted.host.to_string()), Ok(admitted.host.clone()));
    let written: Vec<&str> = parts
        .headers
        .get_all("host")
        .iter()
        .map(|v| v.to_str().expect("text"))
        .chain(parts.uri.authority().map(|a| a.as_str()))
        .collect();
    assert!(!written.is_empty());
    for text in written {
        assert!(!text.contains(['@', '/', ',', ' ']), "{text}");
        let plain = text.to_ascii_lowercase();
        let bare = match admitted.port {
            Some(port) => {
                let (bare, digits) = plain.rsplit_once(':').expect("a port");
                assert_eq!(digits.parse(), Ok(port));
                bare
            }
            None => &plain,
        };
        match &admitted.host {
            Host::Name(name) => assert_eq!(bare.strip_suffix('.').unwrap_or(bare), name.as_str()),
            ip => assert_eq!(Host::parse(bare).as_ref(), Ok(ip)),
        }
    }
}

fn one_framing(parts: &Parts) {
    let count = |name: &str| parts.headers.get_all(name).iter().count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    assert!(lengths + codings <= 1);
    assert!(codings == 0 || parts.version == Version::HTTP_11);
    if let Some(length) = parts.headers.get("content-length") {
        let text = length.to_str().expect("digits");
        assert_eq!(text.parse::<u64>().map(|n| n.to_string()).as_deref(), Ok(text));
    }
}

/// The head as hyper would give it to a service.
fn head(text: &[u8], version: Option<Version>) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(text).ok()?.is_complete() {
        return None;
    }
    let one = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.version = version.unwrap_or(one);
    parts.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    parts.uri = parsed.path?.parse::<Uri>().ok()?;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        parts.headers.append(name, HeaderValue::from_bytes(header.value).ok()?);
    }
    Some(parts)
}

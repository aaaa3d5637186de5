//! A request head, parsed as hyper parses it and then admitted: it never panics, and what is
//! admitted names exactly one canonical host and a method and target with one reading.
#![no_main]

use egret::http::admission::admit;
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
    let Some(parts) = head(&text, version) else { return };
    let Ok(admitted) = admit(&parts, how & 4 == 0) else { return };

    assert_eq!(Host::parse(&admitted.host.to_string()), Ok(admitted.host.clone()));
    assert!(parts.method != Method::CONNECT && parts.method != Method::TRACE);
    let target = parts.uri.path_and_query().expect("an admitted request has a target").as_str();
    assert!(target.bytes().all(|b| b.is_ascii_graphic()));
});

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

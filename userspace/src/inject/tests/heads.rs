//! What happens to the head of a request.

use std::sync::Arc;

use ::http::header::{self, HeaderMap};
use ::http::request::Parts;
use ::http::{Method, Request};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::super::{CredentialSet, InjectError, Injection, prepare};
use super::{host, set};
use crate::outcome::Reason;
use crate::policy::CredentialKind::{self, Basic, Bearer, Header, Placeholder, Query};
use crate::policy::Places;

const SECRET: &str = "S3cr3t/+value=x";
const PCT: &str = "S3cr3t%2F%2Bvalue%3Dx";
const EVERYWHERE: CredentialKind =
    Placeholder(Places { header: true, query: true, path: true, body: true });

fn parts(method: Method, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn get(uri: &str, headers: &[(&str, &str)]) -> Parts {
    parts(Method::GET, uri, headers)
}

fn one(kind: CredentialKind) -> CredentialSet {
    set(&[("c", kind, SECRET)])
}

fn inject(set: &CredentialSet, to: &str, parts: &mut Parts) -> Result<Injection, InjectError> {
    let names: Vec<Arc<str>> = set.all().iter().map(|c| Arc::clone(&c.spec.name)).collect();
    prepare(set, &names, &host(to), parts)
}

fn header_kind() -> CredentialKind {
    Header { name: "X-Api-Key".into(), value: "v1 {secret};{secret}".into() }
}

#[test]
fn the_same_key_in_another_header_does_not_go_with_it() {
    let set = one(header_kind());
    let placeholder = set.all()[0].placeholder.to_string();
    let bearer = format!("Bearer {placeholder}");
    let note = format!("about {placeholder} and more");
    let agent = [("authorization", bearer.as_str()), ("api-key", &placeholder), ("x-note", &note)];
    let mut parts = get("https://api.test/", &agent);
    inject(&set, "api.test", &mut parts).unwrap();
    let names: Vec<_> = parts.headers.keys().map(|k| k.as_str()).collect();
    assert_eq!(names, ["x-note", "x-api-key"]);
    let mut parts = get("https://api.test/", &[("authorization", "Bearer mine")]);
    inject(&set, "api.test", &mut parts).unwrap();
    assert_eq!(parts.headers["authorization"], "Bearer mine", "control: another key stays");
}

#[test]
fn each_header_kind_replaces_what_the_agent_sent() {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("bot:{SECRET}")));
    for (kind, name, want) in [
        (Bearer, "authorization", format!("Bearer {SECRET}")),
        (Basic { username: "bot".into() }, "authorization", basic),
        (header_kind(), "x-api-key", format!("v1 {SECRET};{SECRET}")),
    ] {
        let set = one(kind.clone());
        let agent = [(name, "Bearer mine"), (name, "second"), ("x-other", "kept")];
        let mut parts = get("https://api.test/a?b=%2f", &agent);
        let injection = inject(&set, "api.test", &mut parts).unwrap();
        let values: Vec<_> = parts.headers.get_all(name).iter().collect();
        assert_eq!(values, [want.as_str()], "{kind:?}");
        assert!(values[0].is_sensitive(), "{kind:?}");
        assert_eq!(parts.headers["x-other"], "kept");
        assert_eq!(parts.uri, "https://api.test/a?b=%2f");
        assert_eq!(injection.names(), ["c".into()]);
    }
}

#[test]
fn other_headers_of_the_agent_stay_and_proxy_authorization_never_does() {
    for kind in [header_kind(), Query { name: "key".into() }, EVERYWHERE] {
        let set = one(kind);
        let agent = [("authorization", "Bearer mine"), ("proxy-authorization", "Basic eDp5")];
        let mut parts = get("https://api.test/", &agent);
        inject(&set, "api.test", &mut parts).unwrap();
        assert_eq!(parts.headers["authorization"], "Bearer mine");
        assert!(!parts.headers.contains_key("proxy-authorization"));
    }
    let mut parts = get("https://api.test/", &[("proxy-authorization", "Basic eDp5")]);
    prepare(&CredentialSet::default(), &[], &host("api.test"), &mut parts).unwrap();
    assert!(parts.headers.is_empty());
}

#[test]
fn query_kind_changes_that_parameter_alone() {
    let set = one(Query { name: "key".into() });
    for (uri, want) in [
        ("https://api.test/p", "https://api.test/p?key=@"),
        ("https://api.test/p?", "https://api.test/p?key=@"),
        ("https://api.test/p?a=%2F+b&c", "https://api.test/p?a=%2F+b&c&key=@"),
        ("https://api.test/p?key=mine&a=1", "https://api.test/p?a=1&key=@"),
        ("https://api.test/p?a&k%65y=mine&&key&b", "https://api.test/p?a&&b&key=@"),
        ("/p?a=1", "/p?a=1&key=@"),
    ] {
        let mut parts = get(uri, &[]);
        inject(&set, "api.test", &mut parts).unwrap();
        assert_eq!(parts.uri.to_string(), want.replace('@', PCT), "{uri}");
    }
}

#[test]
fn a_query_that_cannot_grow_is_refused() {
    let set = one(Query { name: "key".into() });
    let mut parts = get(&format!("/p?{}", "a".repeat(65_520)), &[]);
    let e = inject(&set, "api.test", &mut parts).unwrap_err();
    assert_eq!(e.reason(), Reason::InjectRefused);
}

#[test]
fn a_placeholder_is_swapped_where_the_policy_says_and_nowhere_else() {
    let only = |header, query, path| Placeholder(Places { header, query, path, body: false });
    for (kind, want_uri, want_header) in [
        (only(true, false, false), "/a/{P}/b?x={P}&y", SECRET),
        (only(false, true, false), "/a/{P}/b?x={S}&y", "P"),
        (only(false, false, true), "/a/{S}/b?x={P}&y", "P"),
        (only(true, true, true), "/a/{S}/b?x={S}&y", SECRET),
        (only(false, false, false), "/a/{P}/b?x={P}&y", "P"),
    ] {
        let set = one(kind.clone());
        let p = set.all()[0].placeholder.to_string();
        let fill = |text: &str| text.replace("{P}", &p).replace("{S}", PCT);
        let mut parts = get(&fill("/a/{P}/b?x={P}&y"), &[("x-k", &format!("t={p};"))]);
        let injection = inject(&set, "api.test", &mut parts).unwrap();
        assert_eq!(parts.uri.to_string(), fill(want_uri), "{kind:?}");
        let want = if want_header == "P" { &p } else { want_header };
        assert_eq!(parts.headers["x-k"], format!("t={want};"), "{kind:?}");
        assert_eq!(parts.headers["x-k"].is_sensitive(), want_header == SECRET);
        let any = kind != only(false, false, false);
        assert_eq!(injection.names().len(), usize::from(any), "{kind:?}");
    }
}

#[test]
fn a_placeholder_is_swapped_inside_a_basic_pair() {
    let set = one(EVERYWHERE);
    for scheme in ["Basic", "basic"] {
        let pair = format!("x:{}", set.all()[0].placeholder);
        let agent = format!("{scheme} {}", BASE64_STANDARD.encode(pair));
        let mut parts = get("/", &[("authorization", &agent)]);
        inject(&set, "api.test", &mut parts).unwrap();
        let want = format!("Basic {}", BASE64_STANDARD.encode(format!("x:{SECRET}")));
        assert_eq!(parts.headers["authorization"], want);
    }
}

/// Every way a placeholder can leave in a head, each to its own host (passes) and to another
/// (refused), for kinds that would swap it and kinds that would not.
#[test]
fn a_placeholder_for_another_host_is_a_canary() {
    for kind in [Bearer, EVERYWHERE, Query { name: "key".into() }] {
        let set = one(kind);
        let p = set.all()[0].placeholder.to_string();
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("x:{p}")));
        let bare = format!("bASIC  {}", BASE64_STANDARD.encode(&p).trim_end_matches('='));
        let escaped: String = p.bytes().map(|b| format!("%{b:02x}")).collect();
        for (uri, header, place) in [
            (format!("/x/{p}/y"), None, "path"),
            (format!("/x?y={p}"), None, "query"),
            (format!("/{escaped}"), None, "path"),
            (format!("/?{escaped}"), None, "query"),
            ("/".into(), Some(("x-any", format!("a{p}b"))), "header"),
            ("/".into(), Some(("cookie", format!("s={p}"))), "header"),
            ("/".into(), Some(("authorization", basic)), "header"),
            ("/".into(), Some(("authorization", bare)), "header"),
        ] {
            let headers: Vec<_> = header.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let none: [Arc<str>; 0] = [];
            let evil = prepare(&set, &none, &host("evil.test"), &mut get(&uri, &headers));
            let e = evil.expect_err(place);
            assert_eq!(e.reason(), Reason::Canary, "{uri}");
            assert!(matches!(&e, InjectError::Canary { place: p, .. } if *p == place), "{e:?}");
            // An address is bound to nothing either.
            let ip = prepare(&set, &none, &host("192.0.2.1"), &mut get(&uri, &headers));
            assert_eq!(ip.expect_err(place).reason(), Reason::Canary);
            // The control: its own host may see it, even where the rule does not grant it.
            let mut parts = get(&uri, &headers);
            let injection = prepare(&set, &none, &host("api.test"), &mut parts).unwrap();
            assert!(injection.names().is_empty());
            assert_eq!(parts.uri.to_string(), uri, "sent as it is");
        }
    }
}

#[test]
fn what_cannot_be_attached_is_refused() {
    let set = set(&[
        ("a", Bearer, "secret-of-a"),
        ("b", Basic { username: "u".into() }, "secret-of-b"),
        ("q", Query { name: "key".into() }, "secret-of-q"),
    ]);
    let https = "https://api.test/";
    for (names, to, uri, want) in [
        (&["a"][..], "api.test", https, None),
        (&["a", "q"], "api.test", https, None),
        (&["a", "a"], "api.test", https, None),
        (&["a"], "evil.test", https, Some(Reason::InjectRefused)),
        (&["a"], "192.0.2.1", https, Some(Reason::InjectRefused)),
        (&["a"], "api.test", "http://api.test/", Some(Reason::InjectRefused)),
        (&["a", "b"], "api.test", https, Some(Reason::InjectRefused)),
        (&["gone"], "api.test", https, Some(Reason::SecretUnavailable)),
    ] {
        let names: Vec<Arc<str>> = names.iter().map(|n| (*n).into()).collect();
        let mut parts = get(uri, &[]);
        let got = prepare(&set, &names, &host(to), &mut parts);
        assert_eq!(got.as_ref().err().map(InjectError::reason), want, "{names:?} {to} {uri}");
        let attached = parts.headers.contains_key(header::AUTHORIZATION);
        assert_eq!(attached, want.is_none(), "{names:?} {to} {uri}");
    }
    // Even a set without credentials does not forward a granted name bare.
    let gone =
        prepare(&CredentialSet::default(), &["a".into()], &host("x.test"), &mut get(https, &[]));
    assert_eq!(gone.unwrap_err().reason(), Reason::SecretUnavailable);
}

#[test]
fn options_and_trace_carry_nothing() {
    for kind in [Bearer, header_kind(), Query { name: "key".into() }, EVERYWHERE] {
        let set = one(kind.clone());
        let p = set.all()[0].placeholder.to_string();
        for (method, injects) in
            [(Method::OPTIONS, false), (Method::TRACE, false), (Method::GET, true)]
        {
            let agent = [("authorization", "Bearer mine"), ("x-p", p.as_str())];
            let mut parts = parts(method.clone(), "/?a=1", &agent);
            let injection = inject(&set, "api.test", &mut parts).unwrap();
            assert_eq!(injection.names().is_empty(), !injects, "{method} {kind:?}");
            let text = format!("{:?} {}", raw(&parts.headers), parts.uri);
            let carries = text.contains(SECRET) || text.contains(PCT);
            assert_eq!(carries, injects, "{method} {kind:?}");
            if matches!(kind, Bearer) {
                let mine = text.contains("Bearer mine");
                assert!(!mine, "the agent's own must not go out instead");
            }
        }
    }
}

#[test]
fn answers_are_asked_for_in_codings_that_can_be_opened() {
    let set = one(Bearer);
    for (agent, want) in [
        (Some("gzip, deflate, br, zstd"), Some("gzip, deflate, br, zstd")),
        (Some("gzip;q=0.5, compress, dcb, X-GZIP"), Some("gzip;q=0.5, X-GZIP")),
        (Some("compress, *"), Some("identity")),
        (Some("*;q=0, identity"), Some("identity")),
        (Some(""), Some("identity")),
        (None, None),
    ] {
        let headers: Vec<_> = agent.map(|v| ("accept-encoding", v)).into_iter().collect();
        let mut parts = get("/", &headers);
        inject(&set, "api.test", &mut parts).unwrap();
        let got = parts.headers.get("accept-encoding").map(|v| v.to_str().unwrap());
        assert_eq!(got, want, "{agent:?}");
        // The control: a host that no secret is bound to is asked what the agent asked.
        let mut parts = get("/", &headers);
        prepare(&set, &[], &host("other.test"), &mut parts).unwrap();
        assert_eq!(parts.headers.get("accept-encoding").map(|v| v.to_str().unwrap()), agent);
    }
}

#[test]
fn ranges_are_plain_and_websockets_uncompressed() {
    let set = one(Bearer);
    for (range, kept) in [("bytes=0-99999", true), ("bytes=0-9", false)] {
        let agent =
            [("range", range), ("accept-encoding", "gzip"), ("sec-websocket-extensions", "x")];
        let mut parts = get("/", &agent);
        inject(&set, "api.test", &mut parts).unwrap();
        assert_eq!(parts.headers.contains_key("range"), kept);
        assert_eq!(parts.headers["accept-encoding"], if kept { "identity" } else { "gzip" });
        assert!(!parts.headers.contains_key("sec-websocket-extensions"));
    }
}

#[test]
fn only_hosts_with_a_bound_secret_are_scrubbed() {
    let set = one(Bearer);
    for (to, scrubbed) in [("api.test", true), ("other.test", false), ("192.0.2.1", false)] {
        let injection = prepare(&set, &[], &host(to), &mut get("/", &[])).unwrap();
        assert_eq!(injection.scrubber().is_some(), scrubbed, "{to}");
    }
}

fn raw(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
    headers.iter().map(|(n, v)| (n.to_string(), text(v.as_bytes()))).collect()
}

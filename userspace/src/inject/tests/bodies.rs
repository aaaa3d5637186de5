//! What happens to the body of a request.

use std::sync::Arc;

use ::http::{Method, Request};
use http_body::Body as _;
use proptest::prelude::*;

use super::super::{CredentialSet, InjectError, Injection, prepare};
use super::{Collected, Frames, collect, contains, host, set};
use crate::outcome::Reason;
use crate::policy::CredentialKind::{Bearer, Placeholder};
use crate::policy::Places;

const SECRET: &str = "S3cr3t\"/ value";

fn body_set() -> CredentialSet {
    let kind = Placeholder(Places { body: true, ..Places::default() });
    set(&[("c", kind, SECRET)])
}

/// Prepares a POST to `to` that grants everything bound there.
fn post(set: &CredentialSet, to: &str, content_type: &str) -> (Injection, bool) {
    let request = Request::post("/").header("content-length", "1000");
    let request = request.header("content-type", content_type).body(()).unwrap();
    let mut parts = request.into_parts().0;
    let to = host(to);
    let bound = set.all().iter().filter(|c| c.bound_to(&to));
    let names: Vec<Arc<str>> = bound.map(|c| Arc::clone(&c.spec.name)).collect();
    let injection = prepare(set, &names, &to, &mut parts).unwrap();
    (injection, parts.headers.contains_key("content-length"))
}

fn send(set: &CredentialSet, to: &str, content_type: &str, body: Frames) -> Collected {
    collect(post(set, to, content_type).0.request_body(body))
}

#[test]
fn the_secret_is_written_as_the_body_is() {
    let set = body_set();
    let p = set.all()[0].placeholder.to_string();
    for (content_type, want) in [
        ("text/plain", SECRET),
        ("application/octet-stream", SECRET),
        ("application/json; charset=utf-8", "S3cr3t\\\"/ value"),
        ("application/vnd.api+json", "S3cr3t\\\"/ value"),
        ("Application/X-WWW-Form-URLEncoded", "S3cr3t%22%2F%20value"),
    ] {
        let body = format!("a={p}&b={p}");
        let got = send(&set, "api.test", content_type, Frames::of([body.as_bytes()]));
        let want = format!("a={want}&b={want}");
        assert_eq!(String::from_utf8(got.data).unwrap(), want, "{content_type}");
    }
}

#[test]
fn the_length_is_dropped_only_where_it_may_change() {
    let body = Placeholder(Places { body: true, ..Places::default() });
    // The default placeholder of `c` has 40 characters.
    let same = "x".repeat(40);
    for (kind, secret, kept) in
        [(body.clone(), SECRET, false), (body, same.as_str(), true), (Bearer, SECRET, true)]
    {
        let set = set(&[("c", kind.clone(), secret)]);
        assert_eq!(set.all()[0].placeholder.len(), 40);
        let (injection, has_length) = post(&set, "api.test", "text/plain");
        assert_eq!(has_length, kept, "{kind:?}");
        let hint = injection.request_body(Frames::of([&b"12345"[..]])).size_hint();
        assert_eq!(hint.exact(), kept.then_some(5), "{kind:?}");
    }
}

#[test]
fn an_absent_body_is_not_touched() {
    let set = body_set();
    for (method, length, names) in [
        (Method::GET, None, 0),
        (Method::POST, Some("0"), 0),
        (Method::POST, None, 1),
        (Method::POST, Some("7"), 1),
        (Method::GET, Some("7"), 1),
    ] {
        let mut request = Request::builder().method(method.clone()).uri("/");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        let injection = prepare(&set, &["c".into()], &host("api.test"), &mut parts).unwrap();
        assert_eq!(injection.names().len(), names, "{method} {length:?}");
        let kept = parts.headers.contains_key("content-length");
        assert_eq!(kept, length == Some("0"), "{method} {length:?}");
        let empty = injection.request_body(http_body_util::Empty::<bytes::Bytes>::new());
        assert!(empty.is_end_stream());
    }
}

#[test]
fn trailers_bring_nothing_back() {
    let set = set(&[("c", Bearer, SECRET)]);
    for (name, kept) in [("authorization", false), ("proxy-authorization", false), ("x-a", true)] {
        let body = Frames::of([&b"data"[..]]).trailers(name, "mine");
        let got = send(&set, "api.test", "text/plain", body);
        assert_eq!(got.trailers.unwrap().contains_key(name), kept, "{name}");
        assert_eq!(got.data, b"data");
    }
}

#[test]
fn a_canary_in_trailers_ends_the_body() {
    let set = set(&[("c", Bearer, SECRET)]);
    let p = set.all()[0].placeholder.to_string();
    for (to, refused) in [("evil.test", true), ("api.test", false)] {
        let got = send(&set, to, "text/plain", Frames::of([]).trailers("x-a", &p));
        assert_eq!(got.error.is_some(), refused, "{to}");
        assert_eq!(got.trailers.is_none(), refused, "{to}");
    }
}

#[test]
fn the_canary_of_a_body_is_told() {
    let set = set(&[("c", Bearer, SECRET)]);
    let p = set.all()[0].placeholder.to_string();
    let (injection, _) = post(&set, "evil.test", "text/plain");
    assert_eq!(injection.body_refusal(), None);
    let got = collect(injection.request_body(Frames::of([p.as_bytes()])));
    let error = got.error.unwrap();
    let error = error.downcast_ref::<InjectError>().unwrap();
    assert_eq!(error.reason(), Reason::Canary);
    assert_eq!(injection.body_refusal(), Some(error));
}

proptest! {
    /// However the body is cut: swapping equals a naive replacement, and a body without a
    /// placeholder stays as it is.
    #[test]
    fn swapping_equals_a_naive_replacement(
        pieces in proptest::collection::vec(prop_oneof!["[a-z_]{0,9}", Just("@".into()), Just("egret_c_".into())], 0..12),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let set = body_set();
        let p = set.all()[0].placeholder.to_string();
        let text = pieces.concat().replace('@', &p);
        let got = send(&set, "api.test", "text/plain", Frames::cut(text.as_bytes(), &cuts));
        prop_assert!(got.error.is_none());
        prop_assert_eq!(String::from_utf8(got.data).unwrap(), text.replace(&p, SECRET));
    }

    /// However the body is cut: nothing of a placeholder reaches another host.
    #[test]
    fn a_canary_never_passes(
        before in "[a-z_]{0,50}", after in "[a-z_]{0,50}",
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let set = body_set();
        let p = set.all()[0].placeholder.to_string();
        let text = format!("{before}{p}{after}");
        let got = send(&set, "evil.test", "text/plain", Frames::cut(text.as_bytes(), &cuts));
        prop_assert!(got.error.is_some());
        prop_assert!(before.as_bytes().starts_with(&got.data));
        // The control: its own host gets all of it.
        let got = send(&set, "api.test", "text/plain", Frames::cut(text.as_bytes(), &cuts));
        prop_assert!(got.error.is_none() && contains(&got.data, SECRET.as_bytes()));
    }
}

//! Activation: from a policy's credentials to what the agent and the rest of egret are told.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use ::http::Request;

use super::super::{CredentialSet, prepare};
use super::{Frames, host, spec};
use crate::policy::CredentialKind::{self, Basic, Bearer, Header, Placeholder, Query};
use crate::policy::{CredentialSpec, HttpSettings, Mode, Places, Policy, UpstreamSettings};
use crate::secrets::{Operator, SecretRef};

pub(super) const SECRET: &str = "correct-horse-battery";

pub(super) fn policy(credentials: Vec<CredentialSpec>) -> Policy {
    Policy {
        name: "test".into(),
        mode: Mode::Enforce,
        credentials,
        rules: Vec::new(),
        upstream: UpstreamSettings::default(),
        http: HttpSettings::default(),
        unmatched: None,
        local: crate::policy::Local::default(),
    }
}

pub(super) fn operator() -> Operator {
    let env = |name: &str| match name {
        "TOKEN" | "OTHER" => Some(SECRET.into()),
        "SHORT" => Some("1234567".into()),
        _ => None,
    };
    Operator::new(nix::unistd::geteuid().as_raw(), env)
}

pub(super) fn of(name: &str, secret: &str, env: Option<&str>) -> CredentialSpec {
    let spec = spec(name, Bearer, &["api.test"]);
    let secret = SecretRef::parse(secret).unwrap();
    CredentialSpec { secret, env: env.map(Into::into), ..spec }
}

#[test]
fn the_agent_gets_placeholders_and_loses_the_sources() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let link = dir.path().join("link");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&file, &link).unwrap();
    let answer = format!("exec:printf '{{\"version\":1,\"secret\":\"{SECRET}\"}}'");
    let set = CredentialSet::activate(
        &policy(vec![
            of("a", "env:TOKEN", Some("GITHUB_TOKEN")),
            of("b", "env:OTHER", Some("OTHER")),
            of("c", "env:TOKEN", None),
            of("d", &format!("file:{}", link.display()), None),
            of("e", &answer, Some("E")),
        ]),
        &operator(),
    )
    .unwrap();
    assert!(set.all().iter().all(|c| c.secret.expose() == SECRET.as_bytes()));
    let env = set.agent_env();
    let names: Vec<&str> = env.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["GITHUB_TOKEN", "OTHER", "E"]);
    assert!(env.iter().all(|(_, v)| v.starts_with("egret_") && !v.contains(SECRET)), "{env:?}");
    assert_eq!(set.consumed_env(), ["OTHER", "TOKEN"]);
    assert_eq!(set.hidden_files(), [link, file]);
}

#[test]
fn a_shape_is_kept_and_placeholders_differ() {
    let shaped =
        |name| CredentialSpec { shape: Some("ghp_{36}".into()), ..of(name, "env:TOKEN", None) };
    let set =
        CredentialSet::activate(&policy(vec![shaped("a"), shaped("b")]), &operator()).unwrap();
    let [a, b] = set.all() else { panic!("two") };
    assert_ne!(a.placeholder, b.placeholder);
    for p in [&a.placeholder, &b.placeholder] {
        assert!(p.starts_with("ghp_") && p.len() == 40, "{p}");
    }
}

#[test]
fn every_error_is_told_at_once_and_none_tells_the_value() {
    let kind = |name, kind: CredentialKind| CredentialSpec { kind, ..of(name, "env:TOKEN", None) };
    let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
    let shape =
        |s: &str| CredentialSpec { shape: Some(s.into()), ..of("shape", "env:TOKEN", None) };
    let cases = vec![
        (of("unset", "env:UNSET", None), "UNSET is not set"),
        (of("file", "file:/nonexistent/egret", None), "/nonexistent/egret cannot be opened"),
        (of("exec", "exec:false", None), "ended with status 1"),
        (of("short", "env:SHORT", None), "shorter than 8"),
        (shape("x{3}"), "needs at least 16"),
        (kind("colon", Basic { username: "a:b".into() }), "cannot contain `:`"),
        (kind("host", header("Host", "{secret}")), "carries the message itself"),
        (kind("name", header("a b", "{secret}")), "not a header name"),
        (kind("bare", header("x-key", "secret")), "has no {secret}"),
        (kind("crlf", header("x-key", "a\r\nb: {secret}")), "cannot stand in the header"),
        (kind("query", Query { name: String::new() }), "has no name"),
    ];
    let specs = cases.iter().map(|(s, _)| s.clone()).chain([of("good", "env:TOKEN", None)]);
    let errors = CredentialSet::activate(&policy(specs.collect()), &operator()).unwrap_err();
    assert_eq!(errors.len(), cases.len(), "{errors:?}");
    for (error, (spec, want)) in errors.iter().zip(&cases) {
        let text = format!("{error} {error:?}");
        assert!(text.contains(want), "{}: {text}", spec.name);
        assert!(text.starts_with(&format!("credential `{}`: ", spec.name)), "{text}");
        assert!(!text.contains(SECRET) && !text.contains("1234567"), "{text}");
    }
}

/// Every public type that holds a secret, printed.
#[test]
fn debug_output_never_shows_a_secret() {
    let everywhere = Places { header: true, query: true, path: true, body: true };
    for kind in [
        Bearer,
        Basic { username: "bot".into() },
        Header { name: "x-key".into(), value: "v {secret}".into() },
        Query { name: "key".into() },
        Placeholder(everywhere),
    ] {
        let spec = CredentialSpec { kind, ..of("a", "env:TOKEN", Some("T")) };
        let set = CredentialSet::activate(&policy(vec![spec]), &operator()).unwrap();
        let to = host("api.test");
        let head = Request::post("/").body(()).unwrap();
        let mut parts = head.into_parts().0;
        let injection = prepare(&set, &["a".into()], &to, &mut parts).unwrap();
        let scrubber = injection.scrubber().unwrap();
        let mut stream = super::super::ScrubStream::new(Arc::clone(scrubber));
        // Something is held back while it is printed.
        stream.push(bytes::Bytes::from_static(&SECRET.as_bytes()[..15]));
        let mut answer = ::http::Response::new(()).into_parts().0;
        let body = scrubber.response(&parts.method, &mut answer, Frames::of([]));
        let printed = format!(
            "{set:?} {set:#?} {:?} {:?} {:?} {injection:?} {scrubber:?} {stream:?} {body:?} {:?} {:?}",
            set.all()[0],
            set.all()[0].secret,
            parts.headers,
            operator(),
            injection.request_body(Frames::of([])),
        );
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, SECRET);
        let bytes = format!("{:?}", &SECRET.as_bytes()[..8]);
        let bytes = bytes.trim_matches(['[', ']']);
        for needle in [&SECRET[..8], &encoded[..8], bytes] {
            assert!(!printed.contains(needle), "{needle}: {printed}");
        }
    }
}

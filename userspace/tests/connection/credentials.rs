//! Credentials: attached where they belong, nowhere else, and never seen by the agent.

use egret::audit::Audit;
use egret::inject::CredentialSet;
use egret::policy::{
    CredentialKind, CredentialSpec, HostPattern, OnCanary, Policy, Protocol, Rule,
};
use egret::secrets::{Operator, SecretRef};

use super::upstream;
use super::world::{API, OTHER, World, allow, policy};

/// The secret that the upstream gets.
pub const SECRET: &str = "s3cr3t-value-of-the-operator";

/// A policy whose credential `api` is bound to `api.test`, and is granted there over https.
pub fn with_credential(mut policy: Policy) -> Policy {
    policy.credentials.push(CredentialSpec {
        name: "api".into(),
        secret: SecretRef::Env("API_TOKEN".into()),
        hosts: vec![HostPattern::parse("api.test").unwrap()],
        kind: CredentialKind::Bearer,
        env: Some("API_TOKEN".into()),
        shape: None,
        on_canary: OnCanary::Deny,
    });
    policy
}

pub fn granted(rule: Rule) -> Rule {
    Rule { credentials: vec!["api".into()], ..rule }
}

/// That credential with this secret.
pub fn active(secret: &'static str) -> CredentialSet {
    let policy = with_credential(policy(vec![], &[]));
    let operator = Operator::new(0, move |name| (name == "API_TOKEN").then(|| secret.into()));
    CredentialSet::activate(&policy, &operator).unwrap()
}

/// A world with that credential active, and the placeholder that its agent sees.
fn world(policy: Policy) -> (World, String) {
    let (policy, set) = (with_credential(policy), active(SECRET));
    let placeholder = set.all()[0].placeholder.to_string();
    (World::with(policy, set, Audit::in_memory()), placeholder)
}

#[tokio::test]
async fn the_upstream_gets_the_secret_and_the_agent_never_sees_it() {
    let up = upstream::https("api.test").await;
    let rules = vec![granted(allow("api.test", 443, Protocol::Https))];
    let (world, placeholder) = world(policy(rules, &[("api.test", &up)]));
    for h2 in [false, true] {
        let mut client = if h2 {
            world.h2(API, 443, "api.test").await
        } else {
            world.h1(API, 443, "api.test").await
        };
        // The placeholder in the header is replaced, and a body that holds the secret comes back
        // without it: the agent cannot have known it, but a service may echo it.
        let authorized = client
            .call_with("POST", "api.test", "/echo", SECRET, &format!("Bearer {placeholder}"))
            .await;
        assert_eq!(authorized.status, 200);
        assert!(!authorized.body.contains(SECRET), "scrubbed: {}", authorized.body);
        let control = client.call("POST", "api.test", "/echo", "nothing secret").await;
        assert_eq!(control.body, "nothing secret");
    }
    let seen = up.notes.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 4);
    for request in &seen {
        assert_eq!(request.headers["authorization"], format!("Bearer {SECRET}"));
    }
    let records = world.full_records(8).await;
    assert_eq!(records[0].credentials, ["api".into()]);
    let log = serde_json::to_string(&records).unwrap();
    assert!(!log.contains(SECRET) && log.contains("masked"), "{log}");
}

#[tokio::test]
async fn a_placeholder_on_its_way_elsewhere_is_refused() {
    let up = upstream::https("api.test").await;
    let rules = vec![
        granted(allow("api.test", 443, Protocol::Https)),
        allow("other.test", 80, Protocol::Http),
    ];
    let plain = upstream::http().await;
    let (world, placeholder) = world(policy(rules, &[("api.test", &up), ("other.test", &plain)]));
    let client = async || super::world::Client::h1(world.connect(OTHER, 80)).await;

    let bearer = format!("Bearer {placeholder}");
    let header = client().await.call_with("GET", "other.test", "/a", "", &bearer).await;
    assert_eq!(header.refusal(), (403, "canary"));
    let query = client().await.get("other.test", &format!("/b?k={placeholder}")).await;
    assert_eq!(query.refusal(), (403, "canary"));
    assert_eq!(plain.notes.connections(), 0, "nothing was dialled");
    let body = client().await.call("POST", "other.test", "/c", &placeholder).await;
    assert_eq!(body.refusal(), (403, "canary"));
    assert_eq!(client().await.get("other.test", "/control").await.status, 200);

    assert_eq!(plain.notes.lines().last().unwrap(), "GET /control");
    for request in plain.notes.seen.lock().unwrap().iter() {
        assert!(!request.headers.contains_key("authorization"));
    }
    let records = world.records(2).await;
    assert_eq!(records[..2], ["canary deny canary", "canary deny canary"]);
}

#[tokio::test]
async fn a_credential_goes_out_over_verified_tls_only() {
    let plain = upstream::http().await;
    let rules = vec![granted(allow("api.test", 80, Protocol::Http))];
    let (world_plain, _) = world(policy(rules, &[("api.test", &plain)]));
    let mut client = super::world::Client::h1(world_plain.connect(API, 80)).await;
    assert_eq!(client.get("api.test", "/x").await.status, 200);
    let seen = plain.notes.seen.lock().unwrap().clone();
    assert!(!seen[0].headers.contains_key("authorization"), "no injection without TLS");

    let wrong = upstream::https("wrong.test").await;
    let rules = vec![granted(allow("api.test", 443, Protocol::Https))];
    let (world_wrong, _) = world(policy(rules, &[("api.test", &wrong)]));
    let answer = world_wrong.h1(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(answer.refusal(), (502, "upstream_certificate"));
    assert!(!answer.body.contains(SECRET));
    assert!(wrong.notes.lines().is_empty());
}

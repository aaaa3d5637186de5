//! The corners of a replaced policy: credentials under way, uploads that outlive their answer, and
//! upstreams that take nothing.

use bytes::Bytes;
use egret::audit::Audit;
use egret::outcome::Reason;
use egret::policy::{Policy, Protocol};
use http_body_util::BodyExt;

use super::credentials::{active, granted, with_credential};
use super::talk::{H2, Kind, ask_h1};
use super::upstream::{self, Upstream};
use super::world::{API, World, allow, policy};

fn granting(up: &Upstream) -> Policy {
    let rule = granted(allow("api.test", 443, Protocol::Https));
    with_credential(policy(vec![rule], &[("api.test", up)]))
}

#[tokio::test]
async fn an_exchange_lives_as_long_as_its_credential_is_granted_by_name() {
    let up = upstream::https("api.test").await;
    let authorizations = || {
        let seen = up.notes.seen.lock().unwrap();
        seen.iter().map(|s| s.headers["authorization"].clone()).collect::<Vec<_>>()
    };
    for kind in [Kind::H1, Kind::H2, Kind::Upgraded] {
        up.notes.seen.lock().unwrap().clear();
        let world = World::with(granting(&up), active("old-secret-of-api"), Audit::in_memory());
        let mut talk = kind.begin(&world, &up).await;
        // Nothing that could be the beginning of a secret, which would be held back.
        talk.goes_on("one.").await;
        world.replace_with(granting(&up), active("new-secret-of-api"));
        talk.goes_on("two.").await;
        kind.begin(&world, &up).await.goes_on("with the new secret.").await;
        let used = ["Bearer old-secret-of-api", "Bearer new-secret-of-api"];
        assert_eq!(authorizations(), used, "{kind:?}");

        let mut granting_nothing = granting(&up);
        granting_nothing.rules = vec![allow("api.test", 443, Protocol::Https)];
        world.replace_with(granting_nothing, active("new-secret-of-api"));
        talk.is_broken_off().await;
        let records = world.full_records(3).await;
        let refused = records.iter().filter_map(|r| Some((r.reason?, r.message.clone()?)));
        let refused: Vec<_> = refused.filter(|(r, _)| *r == Reason::InjectRefused).collect();
        assert!(!refused.is_empty() && refused[0].1.contains("credential api"), "{records:?}");
    }
}

#[tokio::test]
async fn an_upload_that_outlives_its_answer_ends_too() {
    let up = upstream::https("api.test").await;
    let rules = || vec![allow("api.test", 443, Protocol::Https)];
    for h2 in [false, true] {
        let world = World::new(policy(rules(), &[("api.test", &up)]));
        let (say, answer) = if h2 {
            let (say, answer) = H2::new(&world).await.ask("/early");
            (say, answer.await.unwrap())
        } else {
            let io = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
            let (say, answer) = ask_h1(io, "/early").await;
            (say, answer.await.unwrap())
        };
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "early");
        assert_eq!(world.full_records(2).await[1].reason, None);
        let (before, raw) = (up.notes.ends(), up.notes.raw().len());
        world.replace(policy(rules(), &[("api.test", &up)]));
        say.send(Bytes::from_static(b"more")).await.unwrap();
        upstream::until(|| up.notes.raw().len() == raw + 4).await;
        world.deny();
        say.closed().await;
        up.notes.ended(before + 1).await;
    }
}

#[tokio::test]
async fn a_stream_is_reset_while_its_upstream_takes_nothing() {
    let up = upstream::https("api.test").await;
    let rule = allow("api.test", 443, Protocol::Https);
    let world = World::new(policy(vec![rule], &[("api.test", &up)]));
    let mut client = H2::new(&world).await;
    let (say, answer) = client.ask("/silent");
    let mut answer = answer.await.unwrap().into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    // More than the upstream's window, less than that and egret's own.
    for _ in 0..24 {
        say.send(Bytes::from(vec![0; 65536])).await.unwrap();
    }
    world.deny();
    assert!(answer.frame().await.unwrap().is_err());
    say.closed().await;
    assert_eq!(world.records(2).await[1], "response note agent_unknown");
}

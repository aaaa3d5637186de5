//! The policy of an agent is replaced while its connections are open. What is still allowed goes
//! on to its end; what is not ends on both sides, with the reason of the new decision.

use egret::outcome::Reason;
use egret::policy::{Action, Mode, PathPattern, Policy, Protocol, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::origin::{Asked, Legs};
use super::talk::{H2, Kind};
use super::upstream::{self, Upstream};
use super::world::{API, Answer, World, allow, policy};

/// What the agent's policy becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Another policy that allows the same by another rule.
    OtherRule,
    /// Nothing allows it, and it would pass all the same.
    AuditMode,
    NoRule,
    DenyRule,
    /// No policy at all.
    Detached,
}

impl Change {
    fn make(self, world: &World, kind: Kind, up: &Upstream) {
        let with = |rules| policy(rules, &[("api.test", up)]);
        match self {
            Self::OtherRule => {
                let same = Rule { name: "same".into(), ..kind.rule() };
                world.replace(with(vec![allow("other.test", 443, Protocol::Https), same]));
            }
            Self::AuditMode => world.replace(Policy { mode: Mode::Audit, ..with(vec![]) }),
            Self::NoRule => world.replace(with(vec![allow("other.test", 443, Protocol::Https)])),
            Self::DenyRule => world.replace(with(vec![kind.rule(), deny("api.test")])),
            Self::Detached => world.deny(),
        }
    }

    /// Why it ends; `None`: it goes on.
    fn reason(self, kind: Kind) -> Option<Reason> {
        match self {
            // Audit mode opens what is probably HTTP, so that deny rules about requests are one.
            Self::AuditMode if kind == Kind::Tls => Some(Reason::NoRule),
            Self::OtherRule | Self::AuditMode => None,
            Self::NoRule => Some(Reason::NoRule),
            Self::DenyRule => Some(Reason::DeniedByRule),
            Self::Detached => Some(Reason::AgentUnknown),
        }
    }
}

/// A rule that denies everything about a host.
fn deny(host: &str) -> Rule {
    Rule {
        name: format!("deny {host}").into(),
        action: Action::Deny,
        ports: None,
        protocol: None,
        ..allow(host, 1, Protocol::Https)
    }
}

#[tokio::test]
async fn conversations_go_on_or_end_on_both_sides_with_the_reason() {
    use Change::{AuditMode, DenyRule, Detached, NoRule, OtherRule};
    for kind in Kind::ALL {
        for change in [OtherRule, AuditMode, NoRule, DenyRule, Detached] {
            let what = format!("{kind:?} {change:?}");
            let up = kind.upstream().await;
            let world = World::new(policy(vec![kind.rule()], &[("api.test", &up)]));
            let mut talk = kind.begin(&world, &up).await;
            talk.goes_on("one").await;
            change.make(&world, kind, &up);
            let expected = change.reason(kind);
            if expected.is_none() {
                talk.goes_on("two").await;
                change.make(&world, kind, &up); // and once more
                talk.goes_on("three").await;
                talk.end().await;
            } else {
                talk.is_broken_off().await;
                up.notes.ended(1).await;
            }
            let records = world.full_records(2).await;
            assert_eq!(records.len(), 2, "{what}: one decision, one outcome: {records:?}");
            assert_eq!(records[1].reason, expected, "{what}");
            let message = records[1].message.as_deref().unwrap_or("");
            assert_eq!(message.contains("the policy changed"), expected.is_some(), "{what}");
            assert_eq!(message.contains("`deny api.test`"), change == DenyRule, "{what}");
            let bytes = records[1].bytes.unwrap();
            let least = if expected.is_some() { 3 } else { 11 };
            assert!(bytes.up >= least && bytes.down >= least, "{what}: {bytes:?}");
        }
    }
}

/// Sends the head of an upload and one piece, and waits until the upstream has the head.
async fn upload(world: &World, up: &Upstream, h2: bool) -> Asked {
    let before = up.notes.lines().len();
    let asked = Legs { agent_h2: h2, origin_h2: h2 }.ask(world, "/upload").await;
    asked.say.send("one".into()).await.unwrap();
    upstream::until(|| up.notes.lines().len() > before).await;
    asked
}

#[tokio::test]
async fn an_upload_without_an_answer_is_refused_and_its_rest_never_arrives() {
    let up = upstream::https("api.test").await;
    let rules = || vec![allow("api.test", 443, Protocol::Https)];
    for (h2, ended) in [(false, 1), (true, 2)] {
        let world = World::new(policy(rules(), &[("api.test", &up)]));
        let uploading = upload(&world, &up, h2).await;
        world.deny();
        uploading.say.closed().await;
        let answer = uploading.answer().await;
        assert_eq!(answer.refusal(), (403, "agent_unknown"), "h2: {h2}");
        assert!(answer.body.contains("the policy changed"), "{}", answer.body);
        up.notes.ended(ended).await;
        let outcome = &world.full_records(2).await[1];
        assert_eq!(outcome.reason, Some(Reason::AgentUnknown));
        assert_eq!(outcome.bytes.unwrap().up, 3);
    }
    assert_eq!(up.notes.whole(), 0);

    for h2 in [false, true] {
        let world = World::new(policy(rules(), &[("api.test", &up)]));
        let uploading = upload(&world, &up, h2).await;
        world.replace(policy(rules(), &[("api.test", &up)]));
        uploading.say.send("two".into()).await.unwrap();
        let Asked { say, answer } = uploading;
        drop(say);
        let answer = Answer::read(answer.await.unwrap().unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello Ok(6)"), "control");
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_too() {
    let up = upstream::https("api.test").await;
    for (h2, path) in [(false, "/endless"), (true, "/endless"), (true, "/endless-grpc")] {
        let rule = allow("api.test", 443, Protocol::Https);
        let world = World::new(policy(vec![rule], &[("api.test", &up)]));
        let mut client = if h2 {
            world.h2(API, 443, "api.test").await
        } else {
            world.h1(API, 443, "api.test").await
        };
        let before = up.notes.ends();
        let request = http::Request::get(match h2 {
            true => format!("https://api.test{path}"),
            false => path.to_owned(),
        });
        let request = request.header("host", "api.test").body(Default::default()).unwrap();
        let unread = client.send(request).await;
        world.full_records(1).await;
        world.deny();
        up.notes.ended(before + 1).await;
        assert_eq!(world.records(2).await[1], "response note agent_unknown", "h2: {h2} {path}");
        drop(unread);
    }
}

#[tokio::test]
async fn only_the_stream_that_is_not_allowed_any_more_is_reset() {
    let up = upstream::https("api.test").await;
    let rule = allow("api.test", 443, Protocol::Https);
    let world = World::new(policy(vec![rule.clone()], &[("api.test", &up)]));
    let mut client = H2::new(&world).await;
    let (mut one, mut other) = (client.talk("/echo").await, client.talk("/echo").await);
    one.goes_on("one").await;
    other.goes_on("one").await;
    let silent = client.talk("/silent").await;
    let not_silent = Rule {
        name: "not silent".into(),
        paths: Some(vec![PathPattern::parse("/silent").unwrap()]),
        ..deny("api.test")
    };
    world.replace(policy(vec![not_silent, rule], &[("api.test", &up)]));
    up.notes.ended(1).await;
    drop(silent);
    one.goes_on("two").await;
    other.goes_on("two").await;
    one.end().await;
    other.end().await;
    let mut again = client.talk("/echo").await;
    again.goes_on("on the same connection").await;
    assert_eq!(up.notes.connections(), 2, "a new one for what comes after the change");
    let (_say, refused) = client.ask("/silent");
    let refused = Answer::read(refused.await.unwrap()).await;
    assert_eq!(refused.refusal(), (403, "denied_by_rule"));
}

#[tokio::test]
async fn each_request_is_decided_with_the_policy_of_its_time() {
    let up = upstream::https("api.test").await;
    let only = |path: &str| {
        let paths = Some(vec![PathPattern::parse(path).unwrap()]);
        let rule = Rule { paths, ..allow("api.test", 443, Protocol::Https) };
        policy(vec![rule], &[("api.test", &up)])
    };
    for h2 in [false, true] {
        let world = World::new(only("/a"));
        let mut client = if h2 {
            world.h2(API, 443, "api.test").await
        } else {
            world.h1(API, 443, "api.test").await
        };
        assert_eq!(client.get("api.test", "/a").await.status, 200);
        assert_eq!(client.get("api.test", "/b").await.refusal(), (403, "no_rule"));
        world.replace(only("/b"));
        assert_eq!(client.get("api.test", "/a").await.refusal(), (403, "no_rule"));
        assert_eq!(client.get("api.test", "/b").await.status, 200, "on the same connection");
    }
}

#[tokio::test]
async fn a_request_is_refused_where_its_connection_would_be() {
    // The connection is for a name that SNI gave; the address that was dialled is denied now.
    let up = upstream::https("api.test").await;
    let rule = allow("api.test", 443, Protocol::Https);
    for denied in ["192.0.2.7/32", "192.0.2.1/32"] {
        let world = World::new(policy(vec![rule.clone()], &[("api.test", &up)]));
        let mut talk = H2::over(&world, "192.0.2.1").await.talk("/echo").await;
        talk.goes_on("one").await;
        world.replace(policy(vec![rule.clone(), deny(denied)], &[("api.test", &up)]));
        if denied == "192.0.2.7/32" {
            talk.goes_on("control").await;
        } else {
            talk.is_broken_off().await;
            assert_eq!(world.records(2).await[1], "response note denied_by_rule");
        }
    }
}

#[tokio::test]
async fn idle_connections_of_a_detached_agent_are_closed() {
    let up = upstream::https("api.test").await;
    let rules = || vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules(), &[("api.test", &up)]));

    let mut h1 = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
    h1.write_all(b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello Ok(0)") {
        assert!(h1.read_buf(&mut answer).await.unwrap() > 0);
    }
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    let mut ended = tokio::spawn(connection);
    let get = || http::Request::get("https://api.test/x").body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    assert_eq!(client.send_request(get(), true).unwrap().0.await.unwrap().status(), 200);

    world.replace(policy(rules(), &[("api.test", &up)]));
    h1.write_all(b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    answer.clear();
    while !answer.ends_with(b"hello Ok(0)") {
        assert!(h1.read_buf(&mut answer).await.unwrap() > 0, "control");
    }
    assert_eq!(client.send_request(get(), true).unwrap().0.await.unwrap().status(), 200);
    assert!(!ended.is_finished(), "control");

    world.deny();
    assert_eq!(h1.read(&mut [0; 8]).await.unwrap_or(0), 0);
    (&mut ended).await.unwrap().unwrap();
    assert_eq!(world.full_records(8).await.len(), 8, "an idle connection has no record");
    assert_eq!(up.notes.lines().len(), 4);
}

#[tokio::test]
async fn connections_before_their_first_request_are_decided_again() {
    let up = upstream::https("api.test").await;
    let rules = || vec![allow("api.test", 443, Protocol::Https)];
    for (rules_then, reason) in [(None, "agent_unknown"), (Some(vec![]), "no_rule")] {
        for h2 in [false, true] {
            let world = World::new(policy(rules(), &[("api.test", &up)]));
            let alpn = if h2 { &b"h2"[..] } else { b"http/1.1" };
            let mut io = world.connect_tls(API, 443, "api.test", alpn).await.unwrap();
            let change = || match &rules_then {
                None => world.deny(),
                Some(rules) => world.replace(policy(rules.clone(), &[("api.test", &up)])),
            };
            if h2 {
                let (_client, connection) = h2::client::handshake(io).await.unwrap();
                change();
                connection.await.unwrap();
            } else {
                change();
                assert_eq!(io.read(&mut [0; 8]).await.unwrap_or(0), 0);
            }
            assert_eq!(world.records(1).await, [format!("connect deny {reason}")], "h2: {h2}");
            let message = world.full_records(1).await[0].message.clone().unwrap();
            assert!(message.contains("the policy changed"), "{message}");
        }
    }
    let world = World::new(policy(rules(), &[("api.test", &up)]));
    let (mut h1, mut h2) =
        (world.h1(API, 443, "api.test").await, world.h2(API, 443, "api.test").await);
    world.replace(policy(rules(), &[("api.test", &up)]));
    assert_eq!(h1.get("api.test", "/x").await.status, 200, "control");
    assert_eq!(h2.get("api.test", "/x").await.status, 200, "control");
}

#[tokio::test]
async fn what_was_refused_can_be_allowed_on_the_next_connection() {
    let up = upstream::https("api.test").await;
    let world = World::new(policy(vec![], &[("api.test", &up)]));
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    let ended = tokio::spawn(connection);
    let get = http::Request::get("https://api.test/x").body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let refused = client.send_request(get, true).unwrap().0.await.unwrap();
    assert_eq!(refused.headers()["x-egret"], "denied; reason=no_rule");
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    world.replace(policy(rules, &[("api.test", &up)]));
    drop(refused);
    assert!(!ended.is_finished(), "control");
    ended.await.unwrap().unwrap(); // it is told to go, or it would be refused for ever
    let answer = world.h2(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn nothing_is_dialled_for_an_agent_without_a_policy() {
    let up = upstream::echo().await;
    let rules = || vec![allow("api.test", 5432, Protocol::Tcp)];
    let world = World::new(policy(rules(), &[("api.test", &up)]));
    world.deny();
    let mut io = world.connect(API, 5432);
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    let records = world.full_records(1).await;
    assert_eq!(records[0].reason, Some(Reason::AgentUnknown));
    assert_eq!(records[0].agent, ["agent".into()], "it keeps its name");
    assert_eq!(up.notes.connections(), 0);
    world.replace(policy(rules(), &[("api.test", &up)]));
    let mut io = world.connect(API, 5432);
    io.write_all(b"control").await.unwrap();
    io.read_exact(&mut [0; 7]).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_told_to_go_takes_no_new_request() {
    let up = upstream::https("api.test").await;
    let rule = allow("api.test", 443, Protocol::Https);
    let world = World::new(policy(vec![rule], &[("api.test", &up)]));
    let mut client = H2::new(&world).await;
    let mut talk = client.talk("/echo").await;
    talk.goes_on("one").await;
    world.deny();
    talk.is_broken_off().await;
    let (_say, refused) = client.ask("/x");
    assert!(!refused.await.is_ok_and(|answer| answer.status() == 200));
    assert_eq!(up.notes.lines(), ["POST /echo"]);
}

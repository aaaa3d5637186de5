//! Requests over HTTP/1.1 and HTTP/2, with and without TLS.

use egret::audit::Audit;
use egret::inject::CredentialSet;
use egret::policy::{Limits, Protocol, Rule};
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream;
use super::world::{API, Answer, Client, OTHER, World, allow, allow_get, policy};

#[tokio::test]
async fn allowed_get_and_denied_post_over_h1() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow_get("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut client = world.h1(API, 443, "api.test").await;

    let ok = client.get("api.test", "/open/a?q=1").await;
    assert_eq!((ok.status, ok.body.as_str()), (200, "hello Ok(0)"));
    let denied = client.call("POST", "api.test", "/open/a", "secret data").await;
    assert_eq!(denied.refusal(), (403, "no_rule"));
    let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
    assert_eq!(body["method"], "POST");
    assert_eq!(body["host"], "api.test");
    assert_eq!(body["path"], "/open/a");

    assert_eq!(up.notes.lines(), ["GET /open/a?q=1"]);
    let records = world.records(3).await;
    assert_eq!(records, ["request allow", "response note", "request deny no_rule"]);
}

#[tokio::test]
async fn requests_of_one_h2_connection_are_decided_one_by_one() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow_get("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut client = world.h2(API, 443, "api.test").await;

    assert_eq!(client.get("api.test", "/a").await.status, 200);
    let denied = client.call("DELETE", "api.test", "/a", "").await;
    assert_eq!(denied.refusal(), (403, "no_rule"));
    let other = client.get("other.test", "/a").await;
    assert_eq!(other.refusal(), (421, "authority_mismatch"));
    assert_eq!(client.get("api.test", "/b").await.status, 200);

    assert_eq!(up.notes.lines(), ["GET /a", "GET /b"]);
    assert!(up.notes.seen.lock().unwrap()[0].h2, "HTTP/2 on both legs");
    assert_eq!(up.notes.connections(), 1);
}

#[tokio::test]
async fn bodies_stream_both_ways_and_trailers_pass() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let long = "0123456789".repeat(50_000);
    for h2 in [false, true] {
        let mut client = if h2 {
            world.h2(API, 443, "api.test").await
        } else {
            world.h1(API, 443, "api.test").await
        };
        let echoed = client.call("POST", "api.test", "/echo", &long).await;
        assert!(echoed.status == 200 && echoed.body == long, "h2: {h2}");
    }
    let mut client = world.h2(API, 443, "api.test").await;
    let answer = client.get("api.test", "/trailers").await;
    assert_eq!(answer.body, "body");
    assert_eq!(answer.trailers.unwrap()["x-end"], "yes");
    let outcome = &world.full_records(4).await[1];
    let bytes = outcome.bytes.unwrap();
    assert_eq!((bytes.up, bytes.down), (500_000, 500_000));
}

#[tokio::test]
async fn host_must_be_the_connections_name() {
    let up = upstream::https("api.test").await;
    let rules = vec![
        allow("api.test", 443, Protocol::Https),
        allow("other.test", 443, Protocol::Https), // allowed too, but not on this connection
    ];
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &up)]));
    for host in ["other.test", "api.test:8443", "198.18.0.1"] {
        let mut client = world.h1(API, 443, "api.test").await;
        let answer = client.get(host, "/x").await;
        assert_eq!(answer.refusal(), (421, "authority_mismatch"), "{host}");
    }
    assert!(up.notes.lines().is_empty());
    for host in ["api.test", "API.test", "api.test:443"] {
        let mut client = world.h1(API, 443, "api.test").await;
        assert_eq!(client.get(host, "/ok").await.status, 200, "control: {host}");
    }
    assert_eq!(up.notes.lines().len(), 3);
}

#[tokio::test]
async fn a_denied_request_pipelined_behind_an_allowed_one() {
    let up = upstream::http().await;
    let rules = vec![allow_get("api.test", 80, Protocol::Http)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut io = world.connect(API, 80);
    io.write_all(
        b"GET /one HTTP/1.1\r\nHost: api.test\r\n\r\n\
          POST /two HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\r\nhi\
          GET /three HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n",
    )
    .await
    .unwrap();
    let mut answers = String::new();
    io.read_to_string(&mut answers).await.unwrap();
    let statuses: Vec<_> =
        answers.split("HTTP/1.1 ").skip(1).map(|a| a.get(..3).unwrap()).collect();
    assert_eq!(statuses, ["200", "403", "200"], "{answers}");
    assert_eq!(up.notes.lines(), ["GET /one", "GET /three"]);
}

#[tokio::test]
async fn malformed_requests_never_reach_the_upstream() {
    let up = upstream::http().await;
    let rules = vec![allow("api.test", 80, Protocol::Http)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let cases: &[&str] = &[
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@api.test\r\n\r\n",
        "GET http://other.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "get / HTTP/1.1\r\nHost: api.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test\r\nX: a\r\n b\r\n\r\n",
    ];
    for case in cases {
        let mut io = world.connect(API, 80);
        io.write_all(case.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{case:?}: {answer}");
    }
    assert!(up.notes.lines().is_empty());
    let records = world.records(cases.len()).await;
    assert_eq!(records.len(), cases.len(), "one record each: {records:?}");
    assert!(records.iter().all(|r| r.ends_with("deny malformed_request")), "{records:?}");

    let mut control = Client::h1(world.connect(API, 80)).await;
    assert_eq!(control.get("api.test", "/").await.status, 200);
}

#[tokio::test]
async fn upgrades_carry_bytes_both_ways_after_101() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow_get("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let upgrade = |path: &str| {
        Request::get(path)
            .header("host", "api.test")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(Full::default())
            .unwrap()
    };
    let mut client = world.h1(API, 443, "api.test").await;
    let answer = client.send(upgrade("/ws")).await;
    assert_eq!(answer.status(), 101);
    let mut io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    io.read_exact(&mut pong).await.unwrap();
    assert_eq!((&pong, up.notes.raw().as_slice()), (b"ping", &b"ping"[..]));
    drop(io);
    let records = world.full_records(2).await;
    assert_eq!(records[1].request.as_ref().unwrap().status, Some(101));
    assert_eq!(records[1].bytes.unwrap().up, 4);

    // An upstream that does not switch is an ordinary answer.
    let mut client = world.h1(API, 443, "api.test").await;
    assert_eq!(client.send(upgrade("/plain")).await.status(), 200);
}

#[tokio::test]
async fn redirects_come_back_as_they_are_and_alt_svc_does_not() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let answer = world.h1(API, 443, "api.test").await.get("api.test", "/redirect").await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.headers["location"], "https://elsewhere.example/");
    assert!(!answer.headers.contains_key("alt-svc"));
    assert_eq!(up.notes.lines(), ["GET /redirect"]);
}

#[tokio::test]
async fn upstream_connections_are_pooled_per_agent() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    for i in 0..5 {
        let mut client = world.h1(API, 443, "api.test").await;
        assert_eq!(client.get("api.test", &format!("/{i}")).await.status, 200);
        world.full_records(2 * (i + 1)).await; // the outcome is recorded before the reuse
    }
    assert_eq!(up.notes.lines().len(), 5);
    assert_eq!(up.notes.connections(), 1, "five agent connections, one upstream connection");
}

#[tokio::test]
async fn limits_of_a_rule() {
    let up = upstream::https("api.test").await;
    let limits = Limits { requests_per_minute: Some(3), upload: Some(10), download: Some(1 << 20) };
    let rules = vec![Rule { limits, ..allow("api.test", 443, Protocol::Https) }];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut client = world.h1(API, 443, "api.test").await;
    let big = client.call("POST", "api.test", "/a", "eleven bytes").await;
    assert_eq!(big.refusal(), (429, "upload_limit"));
    for i in 0..3 {
        assert_eq!(client.get("api.test", &format!("/{i}")).await.status, 200, "control");
    }
    assert_eq!(client.get("api.test", "/3").await.refusal(), (429, "request_limit"));
    assert_eq!(up.notes.lines(), ["GET /0", "GET /1", "GET /2"]);
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be_recorded() {
    let up = upstream::https("api.test").await;
    let rules = || vec![allow("api.test", 443, Protocol::Https)];
    let policy = || policy(rules(), &[("api.test", &up)]);
    let full = Audit::in_memory_failing_after(0);
    let world = World::with(policy(), CredentialSet::default(), full);
    let answer = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(answer.refusal(), (503, "audit_unavailable"));
    assert!(up.notes.lines().is_empty());
    let control = World::new(policy());
    assert_eq!(control.h1(API, 443, "api.test").await.get("api.test", "/x").await.status, 200);
}

#[tokio::test]
async fn plain_http_to_a_literal_address_is_decided_by_host() {
    let up = upstream::http().await;
    let rules = vec![allow("api.test", 80, Protocol::Http)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let get =
        async |host: &str| Client::h1(world.connect("192.0.2.1", 80)).await.get(host, "/x").await;
    assert_eq!(get("api.test").await.status, 200, "the name is dialled, not the address");
    assert_eq!(get("other.test").await.refusal(), (403, "no_rule"));
    assert_eq!(get("192.0.2.1").await.refusal(), (403, "no_rule"));
    assert_eq!(up.notes.lines(), ["GET /x"]);
}

#[tokio::test]
async fn a_host_without_a_rule_is_refused_readably() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &up)]));
    let https = world.h2(OTHER, 443, "other.test").await.get("other.test", "/x").await;
    assert_eq!(https.refusal(), (403, "no_rule"));
    assert_eq!(https.headers["content-type"], "application/json");
    let plain = Client::h1(world.connect(OTHER, 80)).await.get("other.test", "/x").await;
    assert_eq!(plain.refusal(), (403, "no_rule"));
    assert_eq!(up.notes.connections(), 0);
    assert_eq!(world.records(2).await, ["connect deny no_rule", "connect deny no_rule"]);
}

#[tokio::test]
async fn an_upload_continues_only_when_asked_for() {
    let up = upstream::http().await;
    let rules = vec![allow("api.test", 80, Protocol::Http)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut io = world.connect(API, 80);
    io.write_all(
        b"POST /echo HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\n\
          Expect: 100-continue\r\nConnection: close\r\n\r\n",
    )
    .await
    .unwrap();
    let mut buffer = [0; 25];
    io.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    io.write_all(b"hi").await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hi"), "{answer}");
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut client = world.h1(API, 443, "api.test").await;
    for _ in 0..2 {
        let request = Request::head("/x").header("host", "api.test").body(Full::default()).unwrap();
        let answer = Answer::read(client.send(request).await).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
        assert_eq!(answer.headers["content-length"], "11");
    }
}

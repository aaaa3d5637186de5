//! Peers that stop in the middle: given up after a time, with the reason on record, while others
//! are served.

use std::time::Duration;

use egret::http::serve::ServeLimits;
use egret::policy::{HttpSettings, Policy, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream::{self, Upstream};
use super::world::{API, Client, World, allow, policy};

const SHORT: Duration = Duration::from_millis(150);

fn world(up: &Upstream, limits: ServeLimits) -> World {
    let rules =
        vec![allow("api.test", 80, Protocol::Http), allow("api.test", 443, Protocol::Https)];
    World::limited(policy(rules, &[("api.test", up)]), limits)
}

/// Every other connection is served meanwhile and afterwards.
async fn control(world: &World) {
    let mut client = Client::h1(world.connect(API, 80)).await;
    assert_eq!(client.call("POST", "api.test", "/control", "body").await.status, 200);
}

#[tokio::test]
async fn a_slow_head_is_given_up() {
    let up = upstream::http().await;
    let world = world(&up, ServeLimits { head_timeout: SHORT, ..ServeLimits::default() });
    let mut io = world.connect(API, 80);
    io.write_all(b"GET / HTTP/1.1\r\nHost: api").await.unwrap();
    control(&world).await;
    let _ = io.read(&mut [0; 64]).await;
    let records = world.records(3).await;
    assert!(records.contains(&"connect note client_timeout".into()), "{records:?}");
    assert_eq!(up.notes.lines(), ["POST /control"]);
}

#[tokio::test]
async fn a_slow_request_body_is_given_up() {
    let up = upstream::http().await;
    let world = world(&up, ServeLimits { upload_idle: SHORT, ..ServeLimits::default() });
    for body in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut io = world.connect(API, 80);
        io.write_all(format!("POST / HTTP/1.1\r\nHost: api.test\r\n{body}").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("reason=client_timeout"), "{answer}");
    }
    assert_eq!(up.notes.whole(), 0);
    control(&world).await;
    let records = world.records(4).await;
    assert_eq!(records[1], "response note client_timeout");
    assert_eq!(up.notes.whole(), 1);
}

#[tokio::test]
async fn the_outermost_policy_sets_the_limits() {
    let up = upstream::http().await;
    let rules = vec![allow("api.test", 80, Protocol::Http)];
    let strict = HttpSettings {
        head: Some(8 << 10),
        headers: Some(16),
        body_timeout: Some(SHORT),
        body_rate: Some(1_000_000),
        ..HttpSettings::default()
    };
    let fields = "X: y\r\n".repeat(20);
    let field = format!("X: {}\r\n", "y".repeat(10_000));
    for (http, allowed) in [(HttpSettings::default(), true), (strict, false)] {
        let world = World::new(Policy { http, ..policy(rules.clone(), &[("api.test", &up)]) });
        for fields in [&fields, &field] {
            let mut io = world.connect(API, 80);
            let head =
                format!("GET / HTTP/1.1\r\nHost: api.test\r\n{fields}Connection: close\r\n\r\n");
            io.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            io.read_to_string(&mut answer).await.unwrap();
            let status = if allowed { "HTTP/1.1 200" } else { "HTTP/1.1 400" };
            assert!(answer.starts_with(status), "{answer}");
        }
        // A byte now and then: never silent, and far below the rate.
        let mut io = world.connect(API, 80);
        let head = "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\n";
        io.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(SHORT / 3).await;
            let _ = io.write_all(b"x").await; // it may have been given up
        }
        let mut answer = [0; 12];
        io.read_exact(&mut answer).await.unwrap();
        let status = if allowed { "HTTP/1.1 200" } else { "HTTP/1.1 408" };
        assert_eq!(std::str::from_utf8(&answer).unwrap(), status);
    }
    assert_eq!((up.notes.lines().len(), up.notes.whole()), (4, 3));
}

#[tokio::test]
async fn once_the_answer_began_the_agent_may_be_silent() {
    let up = upstream::http().await;
    let world = world(&up, ServeLimits { upload_idle: SHORT, ..ServeLimits::default() });
    let mut io = world.connect(API, 80);
    let head = "POST /echo HTTP/1.1\r\nHost: api.test\r\nContent-Length: 6\r\n\r\nabc";
    io.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"abc") {
        assert!(io.read_buf(&mut answer).await.unwrap() > 0, "{}", answer.escape_ascii());
    }
    tokio::time::sleep(3 * SHORT).await;
    io.write_all(b"def").await.unwrap();
    while !answer.ends_with(b"abcdef") {
        assert!(io.read_buf(&mut answer).await.unwrap() > 0, "{}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_silent_upstream_is_given_up_inside_its_answer() {
    let up = upstream::http().await;
    let world = world(&up, ServeLimits { download_idle: SHORT, ..ServeLimits::default() });
    let mut io = world.connect(API, 80);
    io.write_all(b"GET /silent HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = io.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("first"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "the agent sees that it is not whole: {answer}");
    assert_eq!(world.records(2).await[1], "response note upstream_timeout");
    control(&world).await;
}

#[tokio::test]
async fn an_agent_that_does_not_read_is_given_up() {
    let up = upstream::http().await;
    let world = world(&up, ServeLimits { write_idle: SHORT, ..ServeLimits::default() });
    let mut io = world.connect(API, 80);
    io.write_all(b"GET /endless HTTP/1.1\r\nHost: api.test\r\n\r\n").await.unwrap();
    control(&world).await;
    let records = world.records(4).await;
    assert!(records.contains(&"response note client_timeout".into()), "{records:?}");
    drop(io);
}

#[tokio::test]
async fn an_agent_that_opens_no_window_is_given_up() {
    let up = upstream::https("api.test").await;
    let world = world(&up, ServeLimits { write_idle: SHORT, ..ServeLimits::default() });
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    let ended = tokio::spawn(connection);
    let get = |path: &str| http::Request::get(format!("https://api.test{path}")).body(()).unwrap();
    let mut client = client.ready().await.unwrap();
    let (silent, _) = client.send_request(get("/silent"), true).unwrap();
    let silent = silent.await.unwrap();
    tokio::time::sleep(5 * SHORT).await;
    assert!(!ended.is_finished(), "control: a silent upstream is not the agent's fault");
    let (endless, _) = client.send_request(get("/endless"), true).unwrap();
    let endless = endless.await.unwrap();
    let _ = ended.await.unwrap();
    let records = world.records(4).await;
    assert!(records.contains(&"response note client_timeout".into()), "{records:?}");
    drop((silent, endless));
}

#[tokio::test]
async fn an_idle_http_2_connection_is_told_to_go() {
    let up = upstream::https("api.test").await;
    let world = world(&up, ServeLimits { h2_idle: SHORT, ..ServeLimits::default() });
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    let ended = tokio::spawn(connection);
    let request = http::Request::get("https://api.test/slow").body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200, "control");
    ended.await.unwrap().unwrap();
}

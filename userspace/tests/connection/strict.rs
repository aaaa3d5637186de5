//! HTTP/1 requests that two readers could understand differently: answered 400, one record each,
//! and nothing at the upstream. Beside each stands the same request with one reading.

use egret::policy::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream::{self, Upstream};
use super::world::{API, World, allow, allow_get, policy};

/// What, the request, and the same well-formed. `H;` stands for a Host field with its end.
type Case<'a> = (&'a str, &'a str, &'a str);

const OK: &str = "GET / HTTP/1.1\r\nH;\r\n";
const LENGTH: &str = "POST / HTTP/1.1\r\nH;Content-Length: 3\r\n\r\nabc";
const CHUNKED: &str =
    "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

const FRAMING: &[Case<'_>] = &[
    (
        "length and chunked",
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED,
    ),
    (
        "chunked and length",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        CHUNKED,
    ),
    (
        "equal lengths twice",
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        LENGTH,
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nH;Content-Length: 3, 3\r\n\r\nabc", LENGTH),
    ("a sign", "POST / HTTP/1.1\r\nH;Content-Length: +3\r\n\r\nabc", LENGTH),
    ("a zero in front", "POST / HTTP/1.1\r\nH;Content-Length: 03\r\n\r\nabc", LENGTH),
    ("overflow", "POST / HTTP/1.1\r\nH;Content-Length: 18446744073709551619\r\n\r\nabc", LENGTH),
    ("gzip", "POST / HTTP/1.1\r\nH;Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("unknown", "POST / HTTP/1.1\r\nH;Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("a tab", "POST / HTTP/1.1\r\nH;Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("a space", "POST / HTTP/1.1\r\nH;Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("on 1.0", "POST / HTTP/1.0\r\nH;Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", CHUNKED),
];

const LINES: &[Case<'_>] = &[
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: api.test\n\n", OK),
    ("bare LF in one line", "GET / HTTP/1.1\r\nHost: api.test\nX: y\r\n\r\n", OK),
    ("bare LF at the end", "GET / HTTP/1.1\r\nH;\n", OK),
    ("bare CR", "GET / HTTP/1.1\r\nH;X: a\rY: b\r\n\r\n", OK),
    ("folded", "GET / HTTP/1.1\r\nH;X: a\r\n b\r\n\r\n", OK),
    ("NUL", "GET / HTTP/1.1\r\nH;X: a\0b\r\n\r\n", OK),
    ("an empty line first", "\r\nGET / HTTP/1.1\r\nH;\r\n", OK),
    ("two spaces", "GET  / HTTP/1.1\r\nH;\r\n", OK),
    ("another version", "GET / HTTP/1.9\r\nH;\r\n", OK),
    ("no version", "GET /\r\n\r\n", OK),
];

const TARGETS: &[Case<'_>] = &[
    ("no Host", "GET / HTTP/1.1\r\n\r\n", OK),
    ("two Hosts", "GET / HTTP/1.1\r\nH;H;\r\n", OK),
    ("a list of Hosts", "GET / HTTP/1.1\r\nHost: api.test, api.test\r\n\r\n", OK),
    ("userinfo", "GET / HTTP/1.1\r\nHost: user@api.test\r\n\r\n", OK),
    (
        "another authority in the target",
        "GET http://other.test/ HTTP/1.1\r\nH;\r\n",
        "GET http://api.test/ HTTP/1.1\r\nH;\r\n",
    ),
    ("an authority alone", "GET api.test:80 HTTP/1.1\r\nH;\r\n", OK),
    ("a fragment", "GET /a#b HTTP/1.1\r\nH;\r\n", "GET /a%23b HTTP/1.1\r\nH;\r\n"),
    ("a backslash", "GET /a\\b HTTP/1.1\r\nH;\r\n", "GET /a%5Cb HTTP/1.1\r\nH;\r\n"),
    ("raw bytes", "GET /\u{e9} HTTP/1.1\r\nH;\r\n", "GET /%C3%A9 HTTP/1.1\r\nH;\r\n"),
    ("lower case", "get / HTTP/1.1\r\nH;\r\n", OK),
    ("mixed case", "Get / HTTP/1.1\r\nH;\r\n", OK),
    ("a PROXY preface", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nH;\r\n", OK),
    ("SOCKS 5", "\x05\x01\0\x05\x01\0\x01\0\0\0\0\0\x50", OK),
];

const CHUNKS: &[Case<'_>] = &[
    ("a prefix", "0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("a sign", "+3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n", "03\r\nabc\r\n0\r\n\r\n"),
    ("an extension", "3;a=b\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("a space", "3 \r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("bare LF", "3\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("more than its size", "3\r\nabcd\r\n0\r\n\r\n", "4\r\nabcd\r\n0\r\n\r\n"),
    ("a length as trailer", "0\r\nContent-Length: 3\r\n\r\n", "0\r\nX-Sum: 3\r\n\r\n"),
    ("a Host as trailer", "0\r\nHost: other.test\r\n\r\n", "0\r\nX-Host: other.test\r\n\r\n"),
    ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n", "0\r\nX: a\r\n\r\n"),
];

fn world(up: &Upstream) -> World {
    World::new(policy(vec![allow("api.test", 80, Protocol::Http)], &[("api.test", up)]))
}

/// Sends the bytes and gives everything that comes back.
async fn ask(world: &World, request: &str) -> String {
    let mut io = world.connect(API, 80);
    let request = request.replace("H;", "Host: api.test\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // The control's connection is kept alive: its answer ends with a body of the upstream.
    while !answer.ends_with(b")") {
        match io.read(&mut buffer).await {
            Ok(n @ 1..) => answer.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8(answer).unwrap()
}

async fn refused(world: &World, what: &str, request: &str) {
    let answer = ask(world, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 Denied by egret (malformed_request)\r\n"), "{what}: {answer}");
    assert!(answer.contains("\r\nx-egret: denied; reason=malformed_request\r\n"), "{what}");
    assert!(answer.contains("\"error\":\"egress_denied\""), "{what}: {answer}");
}

#[tokio::test]
async fn what_has_two_readings_is_refused_and_what_has_one_passes() {
    let cases = [FRAMING, LINES, TARGETS].concat();
    let up = upstream::http().await;
    let world = world(&up);
    for (what, bad, _) in &cases {
        refused(&world, what, bad).await;
    }
    assert_eq!(up.notes.connections(), 0, "nothing was dialled");
    let records = world.records(cases.len()).await;
    assert_eq!(records.len(), cases.len(), "one record each: {records:?}");
    assert!(records.iter().all(|r| r == "request deny malformed_request"), "{records:?}");
    for (what, _, good) in &cases {
        let answer = ask(&world, good).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "control of {what}: {answer}");
    }
    assert_eq!(up.notes.lines().len(), cases.len());
}

#[tokio::test]
async fn abused_chunks_are_refused_and_never_arrive_whole() {
    let up = upstream::http().await;
    let world = world(&up);
    let head = "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n";
    for (what, bad, _) in CHUNKS {
        refused(&world, what, &format!("{head}{bad}")).await;
    }
    assert_eq!(up.notes.connections(), 0, "nothing was dialled");
    assert_eq!(world.records(CHUNKS.len()).await.len(), CHUNKS.len());

    // The head alone first: it was decided and may be on its way, but the body breaks.
    for (what, bad, _) in CHUNKS {
        let mut io = world.connect(API, 80);
        io.write_all(head.replace("H;", "Host: api.test\r\n").as_bytes()).await.unwrap();
        world.full_records(1).await;
        io.write_all(b"1\r\nx\r\n").await.unwrap();
        tokio::task::yield_now().await;
        io.write_all(bad.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        assert!(answer.contains("reason=malformed_request"), "{what}: {answer}");
    }
    assert_eq!(up.notes.whole(), 0, "no body arrived to its end");
    for (what, _, good) in CHUNKS {
        let answer = ask(&world, &format!("{head}{good}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "control of {what}: {answer}");
    }
    assert_eq!(up.notes.whole(), CHUNKS.len());
}

#[tokio::test]
async fn the_target_that_was_decided_is_sent_byte_for_byte() {
    let up = upstream::echo().await;
    let world = world(&up);
    for target in [
        "/a/../b",
        "/%2e%2e/x",
        "/a%2Fb%2fc",
        "//a//b/",
        "/a;x=1/..;/b",
        "/a%5cb?c=%5C&d=../e//f?g",
        "/%00%0d%0a",
        "/{a}|b^c~d'e(f)!$&*+,:@?{a}|b^c",
    ] {
        let before = up.notes.raw().len();
        ask(&world, &format!("GET {target} HTTP/1.1\r\nH;Connection: close\r\n\r\n")).await;
        let raw = up.notes.raw();
        let sent = format!("GET {target} HTTP/1.1\r\n");
        assert!(raw[before..].starts_with(sent.as_bytes()), "{}", raw[before..].escape_ascii());
    }
}

#[tokio::test]
async fn a_malformed_request_behind_others_is_refused_in_its_turn() {
    let up = upstream::http().await;
    let world = world(&up);
    let smuggled = "POST /one HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                    GET /two HTTP/1.1\r\nH;\r\n\
                    GET /three#x HTTP/1.1\r\nH;\r\n\
                    GET /four HTTP/1.1\r\nH;\r\n";
    let mut io = world.connect(API, 80);
    io.write_all(smuggled.replace("H;", "Host: api.test\r\n").as_bytes()).await.unwrap();
    let mut answers = String::new();
    io.read_to_string(&mut answers).await.unwrap();
    let statuses: Vec<_> =
        answers.split("HTTP/1.1 ").skip(1).map(|a| a.get(..3).unwrap()).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answers}");
    assert_eq!(up.notes.lines(), ["POST /one", "GET /two"]);
}

#[tokio::test]
async fn connect_is_refused_and_its_tunnel_is_not_opened() {
    let up = upstream::http().await;
    let world = world(&up);
    let inside = "GET /inside HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    let text = format!("CONNECT api.test:80 HTTP/1.1\r\nHost: api.test:80\r\n\r\n{inside}");
    let mut io = world.connect(API, 80);
    io.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("reason=method_refused"), "{answer}");
    assert_eq!(up.notes.connections(), 0);
    assert!(ask(&world, OK).await.starts_with("HTTP/1.1 200"), "control");
}

#[tokio::test]
async fn bytes_before_101_are_forwarded_only_after_it() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow_get("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let upgrade = |path: &str, protocol: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: api.test\r\nConnection: upgrade\r\n\
             Upgrade: {protocol}\r\nSec-WebSocket-Key: x\r\n\r\nearly"
        )
    };
    // Not granted: what follows is a request, and a malformed one.
    for (path, protocol) in [("/plain", "websocket"), ("/ws2", "h2c")] {
        let mut io = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
        let text = upgrade(path, protocol) + "\r\n\r\n";
        io.write_all(text.as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let ended = io.read_to_end(&mut answers).await;
        let answers = String::from_utf8(answers).unwrap();
        assert!(answers.starts_with("HTTP/1.1 200"), "{ended:?}: {answers}");
        assert!(answers.contains("HTTP/1.1 400"), "{answers}");
    }
    let seen = up.notes.seen.lock().unwrap().clone();
    assert!(seen.iter().any(|s| s.line == "GET /ws2" && !s.headers.contains_key("upgrade")));
    assert!(up.notes.raw().is_empty());

    // Granted: the bytes belong to what was upgraded to.
    let mut io = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
    io.write_all(upgrade("/ws", "websocket").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"early") {
        let mut buffer = [0; 256];
        let n = io.read(&mut buffer).await.unwrap();
        assert!(n > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&buffer[..n]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    assert_eq!(up.notes.raw(), b"early");
}

#[tokio::test]
async fn inside_tls_and_on_refused_connections_bytes_are_read_as_strictly() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    for (host, ip, status) in [("api.test", API, "400"), ("other.test", super::world::OTHER, "403")]
    {
        let mut io = world.connect_tls(ip, 443, host, b"http/1.1").await.unwrap();
        let text = format!("GET /x#y HTTP/1.1\r\nHost: {host}\r\n\r\n");
        io.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = io.read_to_string(&mut answer).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
    }
    assert_eq!(up.notes.connections(), 0);
    let control = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(control.status, 200);
}

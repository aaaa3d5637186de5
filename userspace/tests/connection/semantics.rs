//! What HTTP means besides bytes: trailers, answers without bodies, ranges, conditions, interim
//! answers and expectations, the same whichever versions of HTTP the two sides speak.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use egret::policy::Protocol;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::origin::Legs;
use super::peers::{led_to, scripted};
use super::upstream::{Channel, channel, text};
use super::world::{API, Answer, Client, World, allow};

fn sum(value: &'static str) -> HeaderMap {
    [("x-sum".parse().unwrap(), HeaderValue::from_static(value))].into_iter().collect()
}

/// A body whose length is not known beforehand.
fn streamed(bytes: Bytes) -> Channel {
    let (say, body) = channel();
    tokio::spawn(async move { say.send(bytes).await });
    body
}

#[tokio::test]
async fn trailers_cross_both_ways_between_all_versions() {
    for legs in Legs::ALL {
        let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let noted = Arc::clone(&seen);
        let origin = legs
            .origin(move |request| {
                let noted = Arc::clone(&noted);
                async move {
                    let body = request.into_body().collect().await.unwrap();
                    noted.lock().unwrap().push(body.trailers().cloned().unwrap_or_default());
                    let ended = async { Some(Ok(sum("down"))) };
                    let body = streamed(body.to_bytes()).with_trailers(ended).boxed();
                    Response::builder().header("trailer", "x-sum").body(body).unwrap()
                }
            })
            .await;
        for world in [origin.world(), origin.secret_world()] {
            let request = legs
                .request("POST", "/x")
                .header("te", "trailers")
                .header("trailer", "x-sum")
                .body(streamed("body".into()).with_trailers(async { Some(Ok(sum("up"))) }).boxed());
            let answer = if legs.agent_h2 {
                let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
                let executor = hyper_util::rt::TokioExecutor::new();
                let io = hyper_util::rt::TokioIo::new(io);
                let (mut client, connection) =
                    hyper::client::conn::http2::handshake(executor, io).await.unwrap();
                tokio::spawn(connection);
                client.send_request(request.unwrap()).await.unwrap()
            } else {
                let io = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
                let io = hyper_util::rt::TokioIo::new(io);
                let (mut client, connection) =
                    hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                client.send_request(request.unwrap()).await.unwrap()
            };
            let answer = Answer::read(answer).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "body"), "{legs:?}");
            assert_eq!(answer.trailers.unwrap_or_default(), sum("down"), "{legs:?}");
            assert_eq!(seen.lock().unwrap().pop().unwrap(), sum("up"), "{legs:?}");
        }
    }
}

/// What is asked, what is answered: status, fields, the length that is told, and the body.
type Told = (
    &'static str,
    &'static [(&'static str, &'static str)],
    u16,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const TOLD: &[Told] = &[
    ("GET", &[], 200, &[("content-length", "10"), ("etag", "\"a\"")], "0123456789"),
    ("HEAD", &[], 200, &[("content-length", "10"), ("accept-ranges", "bytes")], ""),
    (
        "GET",
        &[("range", "bytes=2-"), ("if-range", "\"a\"")],
        206,
        &[("content-range", "bytes 2-9/10"), ("content-length", "8")],
        "23456789",
    ),
    ("GET", &[("range", "bytes=20-")], 416, &[("content-range", "bytes */10")], ""),
    ("GET", &[("if-none-match", "\"a\"")], 304, &[("etag", "\"a\"")], ""),
    ("HEAD", &[("if-none-match", "\"a\"")], 304, &[("etag", "\"a\"")], ""),
    ("PUT", &[("if-match", "\"b\"")], 412, &[("content-length", "0")], ""),
    ("DELETE", &[], 204, &[("etag", "\"c\"")], ""),
    ("POST", &[], 205, &[("content-length", "0")], ""),
    ("PUT", &[], 417, &[("content-length", "2")], "no"),
];

#[tokio::test]
async fn answers_mean_what_the_upstream_said() {
    for legs in Legs::ALL {
        let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let noted = Arc::clone(&seen);
        let origin = legs
            .origin(move |request| {
                noted.lock().unwrap().push(request.headers().clone());
                let place: usize = request.uri().path()[1..].parse().unwrap();
                let (_, _, status, fields, body) = TOLD[place];
                let mut answer = Response::builder().status(status);
                for (name, value) in fields {
                    answer = answer.header(*name, *value);
                }
                async move { answer.body(text(body)).unwrap() }
            })
            .await;
        for world in [origin.world(), origin.secret_world()] {
            // All on one connection: a body that is not there, or not said, would spoil the next.
            let mut client = legs.client(&world).await;
            for (place, (method, asked, status, fields, body)) in TOLD.iter().enumerate() {
                let what = format!("{legs:?} {method} {status}");
                let mut request = legs.request(method, &format!("/{place}"));
                for (name, value) in *asked {
                    request = request.header(*name, *value);
                }
                let answer = client.send(request.body(Full::default()).unwrap()).await;
                let answer = Answer::read(answer).await;
                assert_eq!((answer.status, answer.body.as_str()), (*status, *body), "{what}");
                for (name, value) in *fields {
                    assert_eq!(answer.headers[*name], *value, "{what}");
                }
                let seen = seen.lock().unwrap().pop().unwrap();
                for (name, value) in *asked {
                    assert_eq!(
                        seen.get(*name).map(|v| v.to_str().unwrap()),
                        Some(*value),
                        "{what} {seen:?}"
                    );
                }
            }
        }
    }
}

/// 1xx is no answer. What an upstream says before its answer is not passed on; the answer is.
#[tokio::test]
async fn an_interim_answer_is_not_taken_for_the_answer() {
    const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n\
        HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlater";
    let (address, heads) = scripted(HINTS).await;
    let world = World::new(led_to(vec![allow("api.test", 80, Protocol::Http)], address, ""));
    let answer = Client::h1(world.connect(API, 80)).await.get("api.test", "/x").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "later"));
    assert!(!answer.headers.contains_key("link"));
    assert_eq!(heads.lock().unwrap().len(), 1);
}

/// A body that is refused is never asked for: neither by policy nor at admission.
#[tokio::test]
async fn who_waits_to_be_asked_for_a_body_hears_the_refusal_first() {
    let up = super::upstream::http().await;
    let mut rule = allow("api.test", 80, Protocol::Http);
    rule.methods = Some(egret::policy::MethodSet::new(["PUT"]).unwrap());
    let world = World::new(super::world::policy(vec![rule], &[("api.test", &up)]));
    let cases = [
        ("POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\nExpect: 100-continue", "403"),
        ("PUT / HTTP/1.1\r\nHost: other.test\r\nContent-Length: 9\r\nExpect: 100-continue", "421"),
        ("PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9\r\nExpect: a-miracle", "400"),
        ("PUT / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 2\r\nExpect: 100-continue", "100"),
    ];
    for (head, status) in cases {
        let mut io = world.connect(API, 80);
        io.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut first = [0; 12];
        io.read_exact(&mut first).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&first), format!("HTTP/1.1 {status}"), "{head}");
    }
    assert!(up.notes.lines().len() <= 1, "{:?}", up.notes.lines());
    assert_eq!(up.notes.whole(), 0);
}

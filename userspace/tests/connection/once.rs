//! A request is sent at most once: again only where nothing of it was sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egret::policy::{Policy, Protocol};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::peers::{Ca, led_to, listen, read_head, server, tls};
use super::upstream::until;
use super::world::{API, Client, World, allow};

/// What each connection was asked, in the order in which they were made.
type Asked = Arc<Mutex<Vec<Vec<String>>>>;

fn note_connection(asked: &Asked) -> usize {
    let mut all = asked.lock().unwrap();
    all.push(Vec::new());
    all.len() - 1
}

fn http(address: SocketAddr) -> Policy {
    led_to(vec![allow("api.test", 80, Protocol::Http)], address, "")
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// HTTP/1. Answers `answers` requests on each connection, then closes: `read_first` after it has
/// read one more.
async fn h1(answers: usize, read_first: bool) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let address = listen(move |mut io: TcpStream| {
        let asked = Arc::clone(&noted);
        async move {
            let place = note_connection(&asked);
            let mut left = answers;
            while left > 0 || read_first {
                let Some(head) = read_head(&mut io).await else { return };
                let line = head.lines().next().unwrap_or_default().to_owned();
                asked.lock().unwrap()[place].push(line);
                if left == 0 {
                    return;
                }
                left -= 1;
                io.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    (address, asked)
}

#[tokio::test]
async fn a_waiting_connection_that_was_closed_is_replaced_by_a_new_one() {
    let (address, asked) = h1(1, false).await;
    let world = World::new(http(address));
    let mut client = Client::h1(world.connect(API, 80)).await;
    for (method, path) in [("GET", "/1"), ("POST", "/2"), ("GET", "/3")] {
        assert_eq!(client.call(method, "api.test", path, "body").await.status, 200, "{path}");
        // Its end has arrived before the next request begins.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines = [["GET /1 HTTP/1.1"], ["POST /2 HTTP/1.1"], ["GET /3 HTTP/1.1"]];
    assert_eq!(*asked.lock().unwrap(), lines);
}

#[tokio::test]
async fn what_an_upstream_may_have_read_is_never_sent_again() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST"] {
        // The connection has carried a request before, and the upstream closes it after it has read
        // the next.
        let (address, asked) = h1(1, true).await;
        let world = World::new(http(address));
        let mut client = Client::h1(world.connect(API, 80)).await;
        assert_eq!(client.get("api.test", "/first").await.status, 200);
        let answer = client.call(method, "api.test", "/second", "").await;
        assert_eq!(answer.refusal(), (502, "upstream_connect"), "{method}");
        tokio::time::sleep(Duration::from_millis(50)).await; // a second try would arrive
        let lines = vec![vec!["GET /first HTTP/1.1".into(), format!("{method} /second HTTP/1.1")]];
        assert_eq!(*asked.lock().unwrap(), lines, "{method}");
        assert_eq!(client.get("api.test", "/control").await.status, 200, "{method}");
    }
}

/// HTTP/2 over TLS: each connection is played by `serve`.
async fn h2<Fut>(
    serve: impl Fn(Connection) -> Fut + Clone + Send + Sync + 'static,
) -> (World, Asked)
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let (policy, asked) = h2_policy(serve).await;
    (World::new(policy), asked)
}

async fn h2_policy<Fut>(
    serve: impl Fn(Connection) -> Fut + Clone + Send + Sync + 'static,
) -> (Policy, Asked)
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let ca = Ca::new("ca.test");
    let mut config = server(ca.identity("api.test"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let address = tls(config, move |io| {
        let (serve, asked) = (serve.clone(), Arc::clone(&noted));
        async move {
            let place = note_connection(&asked);
            let h2 = h2::server::handshake(io).await.unwrap();
            serve(Connection { h2, place, asked }).await;
        }
    })
    .await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    (led_to(rules, address, &ca.pem()), asked)
}

struct Connection {
    h2: h2::server::Connection<TlsStream<TcpStream>, bytes::Bytes>,
    place: usize,
    asked: Asked,
}

type Answer = h2::server::SendResponse<bytes::Bytes>;

impl Connection {
    async fn next(&mut self) -> Option<(Request<h2::RecvStream>, Answer)> {
        let (request, answer) = self.h2.accept().await?.ok()?;
        let line = format!("{} {}", request.method(), request.uri().path());
        self.asked.lock().unwrap()[self.place].push(line);
        Some((request, answer))
    }
}

fn ok(mut answer: Answer) {
    answer.send_response(Response::new(()), true).unwrap();
}

/// REFUSED_STREAM says that nothing was done, but the request's body is on its way and gone: hyper
/// gives nothing back, so nothing is sent again.
#[tokio::test]
async fn a_refused_stream_is_not_sent_again() {
    let (world, asked) = h2(|mut connection: Connection| async move {
        while let Some((request, mut answer)) = connection.next().await {
            if request.uri().path() == "/refused" {
                answer.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                ok(answer);
            }
        }
    })
    .await;
    let mut client = world.h2(API, 443, "api.test").await;
    assert_eq!(client.get("api.test", "/first").await.status, 200);
    let answer = client.call("POST", "api.test", "/refused", "body").await;
    assert_eq!(answer.refusal(), (502, "upstream_connect"));
    assert!(answer.body.contains("broke the HTTP/2 exchange off"), "{}", answer.body);
    assert_eq!(client.get("api.test", "/control").await.status, 200);
    assert_eq!(*asked.lock().unwrap(), [["GET /first", "POST /refused", "GET /control"]]);
}

#[tokio::test]
async fn after_goaway_the_next_request_goes_over_a_new_connection() {
    let (world, asked) = h2(|mut connection: Connection| async move {
        let Some((_, first)) = connection.next().await else { return };
        connection.h2.graceful_shutdown();
        ok(first);
        while let Some((_, answer)) = connection.next().await {
            ok(answer);
        }
    })
    .await;
    let mut client = world.h2(API, 443, "api.test").await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.get("api.test", path).await.status, 200, "{path}");
        tokio::time::sleep(Duration::from_millis(50)).await; // GOAWAY has arrived
    }
    assert_eq!(*asked.lock().unwrap(), [["GET /1"], ["GET /2"], ["GET /3"]]);
}

/// A frame's type (RFC 9113 section 6.2).
const HEADERS: u8 = 1;

/// Reads frames until one of type HEADERS; its stream.
async fn next_headers(io: &mut TlsStream<TcpStream>) -> Option<u32> {
    loop {
        let mut header = [0; 9];
        io.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        io.read_exact(&mut vec![0; length as usize]).await.ok()?;
        if header[3] == HEADERS {
            return Some(u32::from_be_bytes(header[5..9].try_into().unwrap()));
        }
    }
}

/// Every connection answers one request, and to the second says that it has not looked at it: a
/// GOAWAY whose last stream is the first request's.
#[tokio::test]
async fn a_request_beyond_the_last_stream_of_a_goaway_is_not_sent_again() {
    let ca = Ca::new("ca.test");
    let mut config = server(ca.identity("api.test"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let streams = Arc::<Mutex<Vec<(usize, u32)>>>::default();
    let (noted, connections) = (Arc::clone(&streams), Arc::<AtomicUsize>::default());
    let address = tls(config, move |mut io| {
        let (streams, place) = (Arc::clone(&noted), connections.fetch_add(1, Ordering::SeqCst));
        async move {
            io.read_exact(&mut [0; 24]).await.unwrap(); // the preface
            io.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap(); // SETTINGS
            while let Some(stream) = next_headers(&mut io).await {
                streams.lock().unwrap().push((place, stream));
                if stream == 1 {
                    io.write_all(b"\0\0\x01\x01\x05\0\0\0\x01\x88").await.unwrap(); // 200
                } else {
                    // What the upstream adds for debugging may echo a credential.
                    let goaway = b"\0\0\x0e\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0s3cr3t";
                    io.write_all(goaway).await.unwrap();
                }
            }
        }
    })
    .await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(led_to(rules, address, &ca.pem()));
    let mut client = world.h2(API, 443, "api.test").await;
    assert_eq!(client.get("api.test", "/first").await.status, 200);
    let answer = client.get("api.test", "/beyond").await;
    assert_eq!(answer.refusal(), (502, "upstream_connect"), "{}", answer.body);
    assert!(answer.body.contains("broke the HTTP/2 exchange off"), "{}", answer.body);
    let log = serde_json::to_string(&world.full_records(4).await).unwrap();
    assert!(!answer.body.contains("s3cr3t") && !log.contains("s3cr3t"), "{}\n{log}", answer.body);
    assert_eq!(client.get("api.test", "/control").await.status, 200);
    assert_eq!(*streams.lock().unwrap(), [(0, 1), (0, 3), (1, 1)], "each once");
}

/// A long answer goes on over the old connection while new requests go elsewhere.
#[tokio::test]
async fn a_connection_that_is_going_away_finishes_what_it_has() {
    let (world, asked) = h2(|mut connection: Connection| async move {
        let place = connection.place;
        while let Some((request, mut answer)) = connection.next().await {
            if request.uri().path() != "/long" {
                ok(answer);
                continue;
            }
            connection.h2.graceful_shutdown();
            let mut body = answer.send_response(Response::new(()), false).unwrap();
            body.send_data("begin ".into(), false).unwrap();
            let asked = Arc::clone(&connection.asked);
            tokio::spawn(async move {
                until(|| asked.lock().unwrap().len() > place + 1).await;
                body.send_data("end".into(), true).unwrap();
            });
        }
    })
    .await;
    let mut long = world.h2(API, 443, "api.test").await;
    let reading = tokio::spawn(async move { long.get("api.test", "/long").await });
    until(|| !asked.lock().unwrap().is_empty() && !asked.lock().unwrap()[0].is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await; // GOAWAY has arrived
    let mut next = world.h2(API, 443, "api.test").await;
    assert_eq!(next.get("api.test", "/next").await.status, 200);
    assert_eq!(reading.await.unwrap().body, "begin end");
    assert_eq!(*asked.lock().unwrap(), [["GET /long"], ["GET /next"]]);
}

/// Like nginx, which answers a thousand requests and leaves what is on its way then unanswered.
#[tokio::test]
async fn a_connection_is_replaced_before_the_upstream_is_tired_of_it() {
    let (world, asked) = h2(|mut connection: Connection| async move {
        while let Some((_, answer)) = connection.next().await {
            if connection.asked.lock().unwrap()[connection.place].len() == 1000 {
                return;
            }
            ok(answer);
        }
    })
    .await;
    let mut client = world.h2(API, 443, "api.test").await;
    for n in 0..1100 {
        assert_eq!(client.get("api.test", "/x").await.status, 200, "{n}");
    }
    let counts: Vec<usize> = asked.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(counts, [500, 500, 100]);
}

/// A connection over which nothing comes any more may be dead, and its upstream alive.
#[tokio::test]
async fn after_a_time_out_the_next_request_goes_over_a_new_connection() {
    let (mut policy, asked) = h2_policy(|mut connection: Connection| async move {
        let place = connection.place;
        let mut unanswered = Vec::new();
        while let Some((_, answer)) = connection.next().await {
            if place > 0 { ok(answer) } else { unanswered.push(answer) }
        }
    })
    .await;
    policy.upstream.times.answer = Some(Duration::from_millis(200));
    let world = World::new(policy);
    let mut client = world.h2(API, 443, "api.test").await;
    assert_eq!(client.get("api.test", "/dead").await.refusal(), (504, "upstream_timeout"));
    assert_eq!(client.get("api.test", "/alive").await.status, 200);
    assert_eq!(*asked.lock().unwrap(), [["GET /dead"], ["GET /alive"]]);
}

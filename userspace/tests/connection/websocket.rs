//! WebSockets over HTTP/2 (RFC 8441): decided as the GET that they are over HTTP/1.1, which is what the
//! upstream reads.

use std::time::Duration;

use bytes::Bytes;
use egret::policy::{PathPattern, Policy, Protocol};
use h2::client::SendRequest;
use h2::ext::Protocol as Extended;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};

use super::upstream::{self, Upstream, until};
use super::world::{API, World, allow_get, policy};

fn rules(up: &Upstream) -> Policy {
    let mut rule = allow_get("api.test", 443, Protocol::Https);
    let paths = ["/ws", "/ws-of-another", "/plain"];
    rule.paths = Some(paths.map(|p| PathPattern::parse(p).unwrap()).to_vec());
    policy(vec![rule], &[("api.test", up)])
}

async fn client(world: &World) -> SendRequest<Bytes> {
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        client = client.ready().await.unwrap();
    }
    client
}

async fn ask(
    client: &mut SendRequest<Bytes>,
    method: Method,
    path: &str,
    protocol: Option<&'static str>,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut request = Request::builder().method(method).header("sec-websocket-version", "13");
    if let Some(protocol) = protocol {
        request = request.extension(Extended::from_static(protocol));
    }
    let request = request.uri(format!("https://api.test{path}")).body(()).unwrap();
    let (answer, sending) = client.send_request(request, protocol.is_none()).unwrap();
    (answer.await.unwrap(), sending)
}

/// What came, once there is as much.
async fn read(body: &mut RecvStream, n: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < n {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    got
}

async fn whole(mut body: RecvStream) -> String {
    let mut got = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        got.extend_from_slice(&data);
    }
    String::from_utf8(got).unwrap()
}

const WEBSOCKET: Option<&str> = Some("websocket");

#[tokio::test]
async fn it_is_a_get_over_http_1_to_the_upstream_and_bytes_pass_both_ways() {
    let up = upstream::https("api.test").await;
    let world = World::new(rules(&up));
    let mut client = client(&world).await;
    let (answer, mut sending) = ask(&mut client, Method::CONNECT, "/ws", WEBSOCKET).await;
    assert_eq!(answer.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let mut body = answer.into_body();
    for word in ["hello", "again"] {
        sending.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        assert_eq!(read(&mut body, 5).await, word.as_bytes());
    }
    // Another stream of the same connection goes on meanwhile.
    let (plain, _) = ask(&mut client, Method::GET, "/plain", None).await;
    assert_eq!(plain.status(), 200);
    sending.send_data(Bytes::new(), true).unwrap();
    assert_eq!(whole(body).await, "");
    let seen = up.notes.seen.lock().unwrap().clone();
    assert_eq!((seen[0].line.as_str(), seen[0].h2), ("GET /ws", false));
    assert_eq!(seen[0].headers["upgrade"], "websocket");
    assert_eq!(seen[0].headers["sec-websocket-version"], "13");
    let records = world.full_records(4).await;
    let ended = records.iter().find(|r| r.request.as_ref().is_some_and(|q| q.status == Some(101)));
    let bytes = ended.unwrap().bytes.unwrap();
    assert_eq!((bytes.up, bytes.down), (10, 10));
}

#[tokio::test]
async fn what_policy_does_not_allow_is_refused_on_its_stream_alone() {
    let up = upstream::https("api.test").await;
    let world = World::new(rules(&up));
    let mut client = client(&world).await;
    for (path, protocol, reason) in [
        ("/other", "websocket", "no_rule"),
        ("/ws", "connect-udp", "method_refused"),
        ("/ws", "WebSocket", "method_refused"),
    ] {
        let (answer, _sending) = ask(&mut client, Method::CONNECT, path, Some(protocol)).await;
        assert_eq!(answer.status(), 403, "{protocol} {path}");
        assert!(whole(answer.into_body()).await.contains(reason), "{protocol} {path}");
    }
    assert_eq!(up.notes.connections(), 0);
    let (control, _sending) = ask(&mut client, Method::CONNECT, "/ws", WEBSOCKET).await;
    assert_eq!(control.status(), 200);
}

#[tokio::test]
async fn an_upstream_must_answer_this_handshake() {
    let up = upstream::https("api.test").await;
    let world = World::new(rules(&up));
    let mut client = client(&world).await;
    let (other, _sending) = ask(&mut client, Method::CONNECT, "/ws-of-another", WEBSOCKET).await;
    assert_eq!(other.status(), 502);
    assert!(whole(other.into_body()).await.contains("upstream_protocol"));
    let (plain, _sending) = ask(&mut client, Method::CONNECT, "/plain", WEBSOCKET).await;
    assert_eq!(plain.status(), 502, "a 200 over HTTP/1.1 opens nothing");
    let (control, _sending) = ask(&mut client, Method::CONNECT, "/ws", WEBSOCKET).await;
    assert_eq!(control.status(), 200);
}

#[tokio::test]
async fn it_ends_when_its_policy_does() {
    let up = upstream::https("api.test").await;
    let world = World::new(rules(&up));
    let mut client = client(&world).await;
    let (answer, mut sending) = ask(&mut client, Method::CONNECT, "/ws", WEBSOCKET).await;
    let mut body = answer.into_body();
    sending.send_data(Bytes::from_static(b"x"), false).unwrap();
    assert_eq!(read(&mut body, 1).await, b"x", "control");
    world.deny();
    let ended = tokio::time::timeout(Duration::from_secs(60), body.data()).await.unwrap();
    assert!(!matches!(ended, Some(Ok(data)) if !data.is_empty()));
    until(|| up.notes.ends() == 1).await;
}

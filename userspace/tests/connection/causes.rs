//! Upstreams that fail: the agent is told the cause in words that it can act on, the audit log says
//! the same, and neither names an address that egret found.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use egret::forward::dial::{Resolve, Resolving};
use egret::forward::resolve::ResolveError;
use egret::policy::{HostName, Policy, Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::peers::{
    Blackhole, Ca, Identity, between, led_to, listen, params, provider, read_head, scripted,
    self_signed, server, tls,
};
use super::upstream;
use super::world::{API, Client, World, allow};

/// Asks once, and is refused for `reason` with these words.
async fn is_told(policy: Policy, status: u16, reason: &str, words: &str) {
    let tls = policy.rules[0].protocol == Some(Protocol::Https);
    let world = World::new(policy);
    let client = if tls {
        world.h1(API, 443, "api.test").await
    } else {
        Client::h1(world.connect(API, 80)).await
    };
    is_told_by(&world, client, status, reason, words).await;
}

async fn is_told_by(world: &World, mut client: Client, status: u16, reason: &str, words: &str) {
    let answer = client.get("api.test", "/x").await;
    assert_eq!(answer.refusal(), (status, reason), "{words}: {answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let message = body["message"].as_str().unwrap();
    assert!(message.contains(words), "{words}: {message}");
    assert!(!answer.body.contains("127."), "an address: {}", answer.body);
    let records = world.full_records(2).await;
    let outcome = records.iter().find(|r| r.reason.is_some_and(|r| r.as_str() == reason)).unwrap();
    assert_eq!(outcome.message.as_deref(), Some(message));
}

fn https(address: SocketAddr, ca: &str) -> Policy {
    led_to(vec![allow("api.test", 443, Protocol::Https)], address, ca)
}

fn http(address: SocketAddr) -> Policy {
    led_to(vec![allow("api.test", 80, Protocol::Http)], address, "")
}

#[tokio::test]
async fn certificates() {
    let ca = Ca::new("ca.test");
    let stranger = Ca::new("stranger.test");
    let client_only = {
        let mut params = params("api.test");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        ca.sign(&params)
    };
    let cases: Vec<(Identity, &str)> = vec![
        (ca.sign(&between(params("api.test"), 2001, 2002)), "it has expired"),
        (ca.sign(&between(params("api.test"), 2900, 2901)), "not valid yet"),
        (ca.identity("wrong.test"), "it is for another name"),
        (stranger.identity("api.test"), "its authority is not trusted here"),
        (self_signed(&params("api.test")), "it is self-signed"),
        (client_only, "it is not for servers"),
    ];
    for (identity, words) in cases {
        let address = tls(server(identity), |_| async {}).await;
        is_told(https(address, &ca.pem()), 502, "upstream_certificate", words).await;
    }
    let control = super::peers::greeter(server(ca.identity("api.test"))).await.0;
    let world = World::new(https(control, &ca.pem()));
    assert_eq!(world.h1(API, 443, "api.test").await.get("api.test", "/x").await.status, 200);
}

#[tokio::test]
async fn a_certificate_of_egret() {
    let up = upstream::https("api.test").await; // its authority is one of egret's, and not listed
    let other = Ca::new("ca.test");
    let words = "issued by an authority of egret";
    is_told(https(up.address, &other.pem()), 502, "upstream_certificate", words).await;
}

#[tokio::test]
async fn handshakes() {
    let ca = Ca::new("ca.test");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
        let identity = ca.identity("api.test");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        let address = tls(config, |_| async {}).await;
        let words = "it wants a client certificate";
        is_told(https(address, &ca.pem()), 502, "upstream_tls", words).await;
    }
    for (answer, words) in [
        (&b"\x15\x03\x01\0\x02\x02\x46"[..], "neither TLS 1.2 nor TLS 1.3"),
        (b"\x15\x03\x01\0\x02\x02\x28", "no cipher or protocol"),
        (b"\x15\x03\x01\0\x02\x02\x70", "does not serve this name"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS on this port"),
        (b"", "closed the connection in the middle"),
    ] {
        let address = listen(move |mut io| async move {
            let _ = io.read(&mut [0; 4096]).await;
            let _ = io.write_all(answer).await;
            let _ = io.shutdown().await;
            let _ = io.read_to_end(&mut Vec::new()).await;
        })
        .await;
        is_told(https(address, &ca.pem()), 502, "upstream_tls", words).await;
    }
}

#[tokio::test]
async fn answers() {
    let huge: &[u8] = Vec::leak(
        [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\n".to_vec()].concat(),
    );
    for (answer, reason, words) in [
        (&b""[..], "upstream_connect", "closed the connection before it answered"),
        (b"HTTP/1.1 200", "upstream_connect", "closed the connection before it answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "upstream_protocol", "is not HTTP"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "upstream_protocol", "is not HTTP"),
        (huge, "upstream_protocol", "head of the upstream's answer is too large"),
    ] {
        let (address, heads) = scripted(answer).await;
        is_told(http(address), 502, reason, words).await;
        assert_eq!(heads.lock().unwrap().len(), 1, "{words}: sent once");
    }
}

/// HTTP/2, whose limit is egret's own.
#[tokio::test]
async fn heads_of_answers_over_http_2() {
    let ca = Ca::new("ca.test");
    let mut config = server(ca.identity("api.test"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = tls(config, |io| async move {
        let mut h2 = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, mut answer))) = h2.accept().await {
            let size = if request.uri().path() == "/large" { 40 << 10 } else { 100 << 10 };
            let head = http::Response::builder().header("x", "x".repeat(size)).body(()).unwrap();
            answer.send_response(head, true).unwrap();
        }
    })
    .await;
    let world = World::new(https(address, &ca.pem()));
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(1 << 20)
        .handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = Client::H2(sender);
    assert_eq!(client.get("api.test", "/large").await.status, 200);
    assert_eq!(client.get("api.test", "/too-large").await.refusal().0, 502);
    assert_eq!(client.get("api.test", "/large").await.status, 200, "the others go on");
}

/// An answer after `later`.
async fn late(later: Duration) -> SocketAddr {
    listen(move |mut io| async move {
        if read_head(&mut io).await.is_some() {
            tokio::time::sleep(later).await;
            let _ = io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn time_outs_of_the_policy() {
    let silent = || {
        listen(|io| async move {
            std::future::pending::<()>().await;
            drop(io);
        })
    };
    let hole = Blackhole::at([127, 0, 0, 1], 0).await;

    let mut connect = http(hole.address);
    connect.upstream.times.connect = Some(SHORT);
    is_told(connect, 504, "upstream_timeout", "did not answer in time").await;

    let mut tls = https(silent().await, "");
    tls.upstream.times.tls = Some(SHORT);
    is_told(tls, 504, "upstream_timeout", "TLS handshake with the upstream took too long").await;

    let mut answer = http(silent().await);
    answer.upstream.times.answer = Some(SHORT);
    is_told(answer.clone(), 504, "upstream_timeout", "did not answer in time").await;

    let mut control = http(late(SHORT * 2).await);
    control.upstream.times.answer = Some(LONG);
    let world = World::new(control);
    let mut client = Client::h1(world.connect(API, 80)).await;
    assert_eq!(client.get("api.test", "/x").await.status, 200, "control: a patient policy");
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let up = upstream::http().await;
    let mut policy = http(up.address);
    policy.upstream.times.answer = Some(SHORT);
    let world = World::new(policy);
    let mut io = world.connect(API, 80);
    io.write_all(b"POST /up HTTP/1.1\r\nHost: api.test\r\nContent-Length: 8\r\n\r\n")
        .await
        .unwrap();
    for _ in 0..8 {
        tokio::time::sleep(SHORT / 2).await; // four times the limit altogether
        io.write_all(b"x").await.unwrap();
    }
    let mut answer = [0; 12];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(up.notes.whole(), 1);
}

#[tokio::test]
async fn idle_connections_end_as_the_policy_says() {
    let up = upstream::echo().await;
    for (idle, ends) in [(SHORT, true), (LONG, false)] {
        let mut policy = led_to(vec![allow("api.test", 5432, Protocol::Tcp)], up.address, "");
        policy.upstream.times.idle = Some(idle);
        let world = World::new(policy);
        let mut io = world.connect(API, 5432);
        io.write_all(b"x").await.unwrap();
        io.read_exact(&mut [0; 1]).await.unwrap();
        if ends {
            assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(world.records(2).await[1], "response note client_timeout");
        } else {
            tokio::time::sleep(SHORT * 3).await;
            io.write_all(b"y").await.unwrap();
            io.read_exact(&mut [0; 1]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn addresses() {
    // A port that was free a moment ago: nothing listens there.
    let gone = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    is_told(http(gone), 502, "upstream_connect", "the upstream refused the connection").await;
}

/// Names that do not resolve, each in its way.
struct Failing(fn(&HostName) -> Result<Vec<std::net::IpAddr>, ResolveError>);

impl Resolve for Failing {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a> {
        Box::pin(async { (self.0)(name) })
    }
}

/// A name that never resolves.
struct Silent;

impl Resolve for Silent {
    fn resolve<'a>(&'a self, _: &'a HostName) -> Resolving<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn names() {
    let policy = || {
        let mut policy = http(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1));
        policy.upstream.resolve.clear();
        policy
    };
    let cases: [(Failing, u16, &str, &str); 5] = [
        (
            Failing(|name| Err(ResolveError::NotFound(name.clone()))),
            502,
            "upstream_name",
            "no such name, or no address for it",
        ),
        (
            Failing(|name| Err(ResolveError::Timeout(name.clone()))),
            504,
            "upstream_timeout",
            "no name server answered in time",
        ),
        (
            Failing(|name| {
                let why = "io error: 127.0.0.53:53 refused".into();
                Err(ResolveError::Unreachable { host: name.clone(), why })
            }),
            502,
            "upstream_name",
            "no name server could be reached",
        ),
        (
            Failing(|name| {
                let why = "127.0.0.53 answered SERVFAIL".into();
                Err(ResolveError::Failed { host: name.clone(), why })
            }),
            502,
            "upstream_name",
            "the name servers failed to answer",
        ),
        (
            Failing(|_| Ok(vec![Ipv4Addr::LOCALHOST.into()])),
            403,
            "upstream_private",
            "resolves to a loopback address only",
        ),
    ];
    let mut hurried = policy();
    hurried.upstream.times.connect = Some(SHORT);
    let world = World::resolving(hurried, Arc::new(Silent));
    let client = Client::h1(world.connect(API, 80)).await;
    is_told_by(&world, client, 504, "upstream_timeout", "did not resolve in time").await;
    for (resolver, status, reason, words) in cases {
        let world = World::resolving(policy(), Arc::new(resolver));
        let client = Client::h1(world.connect(API, 80)).await;
        is_told_by(&world, client, status, reason, words).await;
    }
}

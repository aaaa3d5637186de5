//! Other protocols by name: whoever speaks first, what follows is passed on unchanged; TLS that
//! begins in the middle, and TLS that must not be opened, stay what they are.

use std::sync::{Arc, Mutex};

use egret::policy::{Protocol, Rule};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::peers::{Ca, led_to, listen, provider, server, tls};
use super::world::{API, OTHER, World, allow};

/// One step of a conversation: what the server says, or what it must hear, to the byte.
#[derive(Clone, Copy, Debug)]
enum Step {
    Server(&'static [u8]),
    Client(&'static [u8]),
}

use Step::{Client, Server};

/// The beginning of each protocol as its servers and clients write it.
const TALKS: [(&str, u16, &[Step]); 6] = [
    (
        "ssh",
        22,
        &[
            Server(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
            Client(b"SSH-2.0-OpenSSH_9.2\r\n"),
            Server(b"\0\0\x04\x3c\x0a\x14"),
        ],
    ),
    (
        "mysql",
        3306,
        &[
            Server(b"\x4a\0\0\0\x0a5.5.5-10.11.6-MariaDB\0"),
            Client(b"\x54\0\0\x01\x8d\xa6\xff\x09\0\0\0\x01"),
            Server(b"\x07\0\0\x02\0\0\0\x02\0\0\0"),
        ],
    ),
    ("redis", 6379, &[Client(b"*1\r\n$4\r\nPING\r\n"), Server(b"+PONG\r\n")]),
    (
        "postgresql without TLS",
        5432,
        &[
            Client(b"\0\0\0\x08\x04\xd2\x16\x2f"), // SSLRequest
            Server(b"N"),
            Client(b"\0\0\0\x13\0\x03\0\0user\0postgres\0\0"),
            Server(b"R\0\0\0\x08\0\0\0\0"),
        ],
    ),
    (
        "smtp",
        25,
        &[
            Server(b"220 mail.test ESMTP\r\n"),
            Client(b"EHLO agent\r\n"),
            Server(b"250-mail.test\r\n250 STARTTLS\r\n"),
            Client(b"QUIT\r\n"),
        ],
    ),
    ("imap", 143, &[Server(b"* OK [CAPABILITY STARTTLS] ready\r\n"), Client(b"a LOGOUT\r\n")]),
];

/// Plays one side of `steps`.
async fn play<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, steps: &[Step], as_server: bool) {
    for step in steps {
        match (step, as_server) {
            (Server(bytes), true) | (Client(bytes), false) => io.write_all(bytes).await.unwrap(),
            (Server(bytes), false) | (Client(bytes), true) => {
                let mut heard = vec![0; bytes.len()];
                io.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, *bytes);
            }
        }
    }
}

#[tokio::test]
async fn whoever_speaks_first_is_heard() {
    for (name, port, steps) in TALKS {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let address = listen(move |mut io| {
            let tell = tell.clone();
            async move {
                play(&mut io, steps, true).await;
                let mut rest = Vec::new();
                io.read_to_end(&mut rest).await.unwrap();
                tell.send(rest).await.unwrap();
            }
        })
        .await;
        let world = World::new(led_to(vec![allow("api.test", port, Protocol::Tcp)], address, ""));
        let mut io = world.connect(API, port);
        play(&mut io, steps, false).await;
        io.shutdown().await.unwrap();
        assert_eq!(told.recv().await.unwrap(), b"", "{name}: and nothing more");
        assert_eq!(world.records(2).await, ["connect allow", "response note"], "{name}");
    }
}

/// `STARTTLS`, and PostgreSQL's SSLRequest: in the clear at first, TLS from then on. A `tcp` rule
/// opens neither, so the client sees the server's own certificate.
#[tokio::test]
async fn tls_that_begins_in_the_middle_stays_opaque() {
    let ca = Ca::new("ca.test");
    let starttls: &[Step] =
        &[Server(b"220 mail.test ESMTP\r\n"), Client(b"STARTTLS\r\n"), Server(b"220 go ahead\r\n")];
    let ssl_request: &[Step] = &[Client(b"\0\0\0\x08\x04\xd2\x16\x2f"), Server(b"S")];
    for (port, steps) in [(587, starttls), (5432, ssl_request)] {
        let acceptor = TlsAcceptor::from(Arc::new(server(ca.identity("api.test"))));
        let address = listen(move |mut io| {
            let acceptor = acceptor.clone();
            async move {
                play(&mut io, steps, true).await;
                let mut io = acceptor.accept(io).await.unwrap();
                let word = io.read_u8().await.unwrap();
                io.write_u8(word + 1).await.unwrap();
                io.shutdown().await.unwrap();
            }
        })
        .await;
        let world = World::new(led_to(vec![allow("api.test", port, Protocol::Tcp)], address, ""));
        let mut io = world.connect(API, port);
        play(&mut io, steps, false).await;
        let mut io = client(&ca, None).connect(name(), io).await.unwrap();
        let shown = io.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert!(!shown.windows(5).any(|w| w == b"egret"), "a certificate of egret");
        io.write_u8(41).await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), 42);
    }
}

fn name() -> ServerName<'static> {
    "api.test".try_into().unwrap()
}

/// A client that trusts `ca`, with a certificate of its own by `by`.
fn client(ca: &Ca, by: Option<&Ca>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match by.map(|by| by.identity("client.test")) {
        Some(own) => config.with_client_auth_cert(own.chain, own.key).unwrap(),
        None => config.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Who a server that wants client certificates was shown.
type Shown = Arc<Mutex<Vec<Vec<u8>>>>;

async fn mutual(ca: &Ca, clients: &Ca, rule: Rule) -> (World, Shown) {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
    let own = ca.identity("api.test");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain, own.key)
        .unwrap();
    let shown = Shown::default();
    let noted = Arc::clone(&shown);
    let address = tls(config, move |mut io| {
        let certificate = io.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        noted.lock().unwrap().push(certificate);
        async move {
            let _ = io.read(&mut [0; 1024]).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = io.write_all(answer).await;
            let _ = io.shutdown().await;
        }
    })
    .await;
    (World::new(led_to(vec![rule], address, &ca.pem())), shown)
}

async fn first_line(connector: &TlsConnector, io: DuplexStream) -> std::io::Result<String> {
    let mut io = connector.connect(name(), io).await?;
    io.write_all(b"GET /x HTTP/1.1\r\nHost: api.test\r\n\r\n").await?;
    let mut answer = String::new();
    let _ = io.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// mTLS by a `tls` rule: the client's certificate reaches the upstream, and the upstream's the
/// client, which pins it.
#[tokio::test]
async fn a_client_certificate_reaches_the_upstream() {
    let (ca, clients, strangers) = (Ca::new("ca.test"), Ca::new("clients.test"), Ca::new("x.test"));
    let (world, shown) = mutual(&ca, &clients, allow("api.test", 443, Protocol::Tls)).await;
    let answer = first_line(&client(&ca, Some(&clients)), world.connect(API, 443)).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 200 OK");
    assert_eq!(shown.lock().unwrap().len(), 1);
    assert!(shown.lock().unwrap()[0].windows(11).any(|w| w == b"client.test"));
    // The upstream judges, not egret.
    for by in [None, Some(&strangers)] {
        assert!(first_line(&client(&ca, by), world.connect(API, 443)).await.is_err());
    }
    // Another name on the same connection is another rule's business.
    let other = TlsConnector::connect(
        &client(&ca, Some(&clients)),
        "other.test".try_into().unwrap(),
        world.connect(OTHER, 443),
    );
    assert!(other.await.is_err());
    assert_eq!(shown.lock().unwrap().len(), 1);

    // A rule that opens the TLS cannot pass the certificate on, and says what would.
    let (world, shown) = mutual(&ca, &clients, allow("api.test", 443, Protocol::Https)).await;
    let answer = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(answer.refusal(), (502, "upstream_tls"));
    assert!(answer.body.contains("protocol = \\\"tls\\\""), "{}", answer.body);
    assert!(shown.lock().unwrap().is_empty());
}

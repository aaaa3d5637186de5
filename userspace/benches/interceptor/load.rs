//! The agent's side: what is asked, and how long it takes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::tls::{self, NAME};
use crate::upstream::BULK;

/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(2);

/// Where to ask, and whom to trust there.
#[derive(Clone)]
pub(crate) struct Target {
    port: u16,
    connector: TlsConnector,
}

pub(crate) type Client = SendRequest<Empty<Bytes>>;

impl Target {
    pub(crate) fn new(port: u16, pem: &Path) -> Self {
        let mut config = tls::client(pem);
        // A new connection is a full handshake with the agent.
        config.resumption = Resumption::disabled();
        Self { port, connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = self.connector.connect(name, stream).await.expect("a handshake");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        sender
    }
}

/// One GET; answers the length of the body.
async fn get(client: &mut Client, path: &str) -> usize {
    let request = Request::get(path).header("host", NAME).header("accept", "*/*");
    let request = request.body(Empty::new()).expect("a request");
    client.ready().await.expect("an open connection");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200, "the bench measures answers, not refusals");
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.expect("the whole body").data_ref().map_or(0, Bytes::len);
    }
    length
}

/// The median time of a request on one connection, in microseconds.
pub(crate) async fn one(target: &Target) -> f64 {
    let mut client = target.connect().await;
    let mut times = Vec::with_capacity(4000);
    for i in 0..4000 {
        let start = Instant::now();
        get(&mut client, "/v1/items?page=2").await;
        if i >= 500 {
            times.push(start.elapsed());
        }
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Requests over some connections that stay open; answers how many, and how long it took.
pub(crate) async fn many(target: &Target, connections: usize) -> (f64, Duration) {
    let mut clients = hold(target, connections).await;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients.drain(..) {
        tasks.spawn(async move {
            let mut count = 0_u32;
            while start.elapsed() < LASTS {
                get(&mut client, "/v1/items?page=2").await;
                count += 1;
            }
            count
        });
    }
    let total: u32 = tasks.join_all().await.into_iter().sum();
    (total.into(), start.elapsed())
}

/// Connections with one request each.
pub(crate) async fn fresh(target: &Target, at_once: usize) -> (f64, Duration) {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let target = target.clone();
        tasks.spawn(async move {
            let mut count = 0_u32;
            while start.elapsed() < LASTS {
                get(&mut target.connect().await, "/").await;
                count += 1;
            }
            count
        });
    }
    let total: u32 = tasks.join_all().await.into_iter().sum();
    (total.into(), start.elapsed())
}

/// A large answer, several times; answers the bytes.
pub(crate) async fn bulk(target: &Target) -> (f64, Duration) {
    let mut client = target.connect().await;
    let start = Instant::now();
    let mut bytes = 0;
    for _ in 0..3 {
        let length = get(&mut client, "/bulk").await;
        assert_eq!(length, BULK);
        bytes += length;
    }
    (bytes as f64, start.elapsed())
}

/// Connections that have each carried one request and stay open.
pub(crate) async fn hold(target: &Target, connections: usize) -> Vec<Client> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut client = target.connect().await;
        get(&mut client, "/").await;
        held.push(client);
    }
    held
}

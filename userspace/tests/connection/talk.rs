//! Conversations that are under way: whatever is said to the upstream comes back, for as long as
//! both sides like.

use bytes::Bytes;
use egret::policy::{Protocol, Rule};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::Sender;

use super::upstream::{self, Channel, Upstream, channel};
use super::world::{API, World, allow, tls_client};

/// How a conversation is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    H1,
    H2,
    Upgraded,
    Tcp,
    /// TLS that passes unopened.
    Tls,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::H1, Self::H2, Self::Upgraded, Self::Tcp, Self::Tls];

    /// The rule that allows it.
    pub fn rule(self) -> Rule {
        match self {
            Self::H1 | Self::H2 | Self::Upgraded => allow("api.test", 443, Protocol::Https),
            Self::Tcp => allow("api.test", 5432, Protocol::Tcp),
            Self::Tls => allow("api.test", 443, Protocol::Tls),
        }
    }

    pub async fn upstream(self) -> Upstream {
        match self {
            Self::Tcp => upstream::echo().await,
            Self::H1 | Self::H2 | Self::Upgraded | Self::Tls => upstream::https("api.test").await,
        }
    }

    pub async fn begin(self, world: &World, up: &Upstream) -> Talk {
        match self {
            Self::H1 => {
                Talk::h1(world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap()).await
            }
            Self::H2 => {
                let mut client = H2::new(world).await;
                client.talk("/echo").await
            }
            Self::Upgraded => {
                Talk::upgrade(world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap())
                    .await
            }
            Self::Tcp => Talk::Raw(Box::new(world.connect(API, 5432))),
            Self::Tls => {
                let io = world.connect(API, 443);
                Talk::upgrade(tls_client(io, &up.ca, "api.test", b"http/1.1").await.unwrap()).await
            }
        }
    }
}

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub enum Talk {
    Http { say: Sender<Bytes>, hear: Incoming },
    Raw(Box<dyn Io>),
}

/// An HTTP/2 connection of the agent.
pub struct H2(http2::SendRequest<Channel>);

impl H2 {
    pub async fn new(world: &World) -> Self {
        Self::over(world, API).await
    }

    /// The same by another address.
    pub async fn over(world: &World, ip: &str) -> Self {
        let io = world.connect_tls(ip, 443, "api.test", b"h2").await.unwrap();
        let (client, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// One more conversation on the same connection.
    pub async fn talk(&mut self, path: &str) -> Talk {
        let (say, answer) = self.ask(path);
        Talk::Http { say, hear: answer.await.unwrap().into_body() }
    }

    /// A request whose body goes up, and its answer.
    pub fn ask(
        &mut self,
        path: &str,
    ) -> (Sender<Bytes>, impl Future<Output = hyper::Result<Response<Incoming>>> + use<>) {
        let (say, body) = channel();
        let request = Request::post(format!("https://api.test{path}")).body(body).unwrap();
        (say, self.0.send_request(request))
    }
}

/// The same over HTTP/1; the connection goes on by itself.
pub async fn ask_h1<I: Io + 'static>(
    io: I,
    path: &str,
) -> (Sender<Bytes>, impl Future<Output = hyper::Result<Response<Incoming>>> + use<I>) {
    let (mut client, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let (say, body) = channel();
    let request = Request::post(path).header("host", "api.test").body(body).unwrap();
    (say, client.send_request(request))
}

impl Talk {
    async fn h1(io: impl Io + 'static) -> Self {
        let (say, answer) = ask_h1(io, "/echo").await;
        Self::Http { say, hear: answer.await.unwrap().into_body() }
    }

    async fn upgrade(io: impl Io + 'static) -> Self {
        let (mut client, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::get("/ws")
            .header("host", "api.test")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(String::new())
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        Self::Raw(Box::new(TokioIo::new(hyper::upgrade::on(answer).await.unwrap())))
    }

    /// Says something and hears it come back.
    pub async fn goes_on(&mut self, text: &str) {
        match self {
            Self::Http { say, hear } => {
                say.send(Bytes::copy_from_slice(text.as_bytes())).await.unwrap();
                let mut heard = Vec::new();
                while heard.len() < text.len() {
                    let frame = hear.frame().await.expect("not at its end").unwrap();
                    heard.extend_from_slice(frame.data_ref().unwrap());
                }
                assert_eq!(heard, text.as_bytes());
            }
            Self::Raw(io) => {
                io.write_all(text.as_bytes()).await.unwrap();
                io.flush().await.unwrap();
                let mut heard = vec![0; text.len()];
                io.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, text.as_bytes());
            }
        }
    }

    /// Ends it in good order: nothing more comes, and nothing is missing.
    pub async fn end(self) {
        match self {
            Self::Http { say, hear } => {
                drop(say);
                let rest = hear.collect().await.unwrap().to_bytes();
                assert!(rest.is_empty(), "{rest:?}");
            }
            Self::Raw(mut io) => {
                io.shutdown().await.unwrap();
                assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
            }
        }
    }

    /// Waits until the agent sees that it was broken off, without a word more.
    pub async fn is_broken_off(&mut self) {
        match self {
            Self::Http { say, hear } => {
                assert!(hear.frame().await.expect("not a good end").is_err());
                say.closed().await;
            }
            Self::Raw(io) => assert!(matches!(io.read(&mut [0; 8]).await, Ok(0) | Err(_))),
        }
    }
}

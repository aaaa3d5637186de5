//! An upstream that speaks one version of HTTP and answers as a test says, and an agent of either
//! version before it.

use std::net::SocketAddr;

use bytes::Bytes;
use egret::audit::Audit;
use egret::policy::Protocol;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::credentials::{SECRET, active, granted, with_credential};
use super::peers::{Ca, led_to, server, tls};
use super::talk::{H2, ask_h1};
use super::upstream::EchoBody;
use super::world::{API, Answer, Client, World, allow};

/// The version on the agent's side, and on the upstream's.
#[derive(Clone, Copy, Debug)]
pub struct Legs {
    pub agent_h2: bool,
    pub origin_h2: bool,
}

impl Legs {
    /// An agent's HTTP/1 is forwarded as HTTP/1, and its HTTP/2 as what the upstream speaks.
    pub const ALL: [Self; 3] = [
        Self { agent_h2: false, origin_h2: false },
        Self { agent_h2: true, origin_h2: false },
        Self { agent_h2: true, origin_h2: true },
    ];

    /// A server for `api.test` on the upstream's side: where it is, and who signed its certificate.
    pub async fn origin<F, Fut>(self, answer: F) -> Origin
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<EchoBody>> + Send + 'static,
    {
        let ca = Ca::new("ca.test");
        let mut config = server(ca.identity("api.test"));
        let protocol: &[u8] = if self.origin_h2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        let address = tls(config, move |io| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = answer.clone();
                    async move { Ok::<_, std::convert::Infallible>(answer(request).await) }
                });
                let io = TokioIo::new(io);
                let _ = if self.origin_h2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                };
            }
        })
        .await;
        Origin { address, ca: ca.pem() }
    }

    pub async fn client(self, world: &World) -> Client {
        if self.agent_h2 {
            world.h2(API, 443, "api.test").await
        } else {
            world.h1(API, 443, "api.test").await
        }
    }

    /// What a request to `path` needs besides, as this agent writes it.
    pub fn request(self, method: &str, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method);
        if self.agent_h2 {
            request.uri(format!("https://api.test{path}"))
        } else {
            request.uri(path).header("host", "api.test")
        }
    }

    /// A request whose body goes up piece by piece.
    pub async fn ask(self, world: &World, path: &str) -> Asked {
        if self.agent_h2 {
            let (say, answer) = H2::new(world).await.ask(path);
            Asked { say, answer: tokio::spawn(answer) }
        } else {
            let io = world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap();
            let (say, answer) = ask_h1(io, path).await;
            Asked { say, answer: tokio::spawn(answer) }
        }
    }
}

pub struct Asked {
    pub say: Sender<Bytes>,
    pub answer: JoinHandle<hyper::Result<Response<Incoming>>>,
}

impl Asked {
    pub async fn answer(self) -> Answer {
        Answer::read(self.answer.await.unwrap().unwrap()).await
    }
}

pub struct Origin {
    pub address: SocketAddr,
    ca: String,
}

impl Origin {
    /// An agent that may ask it anything.
    pub fn world(&self) -> World {
        let rules = vec![allow("api.test", 443, Protocol::Https)];
        World::new(led_to(rules, self.address, &self.ca))
    }

    /// The same with [`SECRET`] attached to each request, and scrubbed from each answer.
    pub fn secret_world(&self) -> World {
        let rules = vec![granted(allow("api.test", 443, Protocol::Https))];
        let policy = with_credential(led_to(rules, self.address, &self.ca));
        World::with(policy, active(SECRET), Audit::in_memory())
    }

    pub fn policy(&self, rules: Vec<egret::policy::Rule>) -> egret::policy::Policy {
        led_to(rules, self.address, &self.ca)
    }
}

//! Upstreams that do one thing exactly: TLS servers with a configuration of the test's, sockets
//! that follow a script, and one that nobody can connect to.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egret::policy::{HostName, Policy, ResolveTo, Rule, UpstreamSettings};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{HandshakeKind, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A policy of `rules` whose `api.test` is at `address`.
pub fn led_to(rules: Vec<Rule>, address: SocketAddr, ca: &str) -> Policy {
    let to = ResolveTo { ip: address.ip(), port: Some(address.port()) };
    let resolve = [(HostName::parse("api.test").unwrap(), to)].into();
    let ca = if ca.is_empty() { vec![] } else { vec![ca.into()] };
    let upstream = UpstreamSettings { ca, resolve, ..UpstreamSettings::default() };
    Policy { rules, upstream, ..Policy::deny_all("test") }
}

/// An authority of somebody else, not of egret.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a certificate for `name` says, before a test changes it.
pub fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    pub fn identity(&self, name: &str) -> Identity {
        self.sign(&params(name))
    }
}

/// A certificate that signed itself.
pub fn self_signed(params: &CertificateParams) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// Valid from one year to the other.
pub fn between(mut params: CertificateParams, from: i32, to: i32) -> CertificateParams {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// A server with this certificate that asks for nothing.
pub fn server(identity: Identity) -> ServerConfig {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain, identity.key)
        .unwrap()
}

/// Accepts on a loopback port for as long as the test lives.
pub async fn listen<Fut>(serve: impl Fn(TcpStream) -> Fut + Send + 'static) -> SocketAddr
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(serve(io));
        }
    });
    address
}

/// A TLS server; `serve` gets what passed the handshake.
pub async fn tls<Fut>(
    config: ServerConfig,
    serve: impl Fn(TlsStream<TcpStream>) -> Fut + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(move |io| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(io) = acceptor.accept(io).await {
                serve(io).await;
            }
        }
    })
    .await
}

/// What a [`greeter`] saw of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub resumed: bool,
    /// The Authorization header of each request, in order.
    pub requests: Vec<String>,
}

/// An HTTP/1 server that answers each request, and keeps connections apart in its notes.
pub async fn greeter(config: ServerConfig) -> (SocketAddr, Arc<Mutex<Vec<Visit>>>) {
    let visits = Arc::<Mutex<Vec<Visit>>>::default();
    let noted = Arc::clone(&visits);
    let address = tls(config, move |mut io| {
        let visits = Arc::clone(&noted);
        async move {
            let resumed = io.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            let place = {
                let mut visits = visits.lock().unwrap();
                visits.push(Visit { resumed, requests: vec![] });
                visits.len() - 1
            };
            while let Some(head) = read_head(&mut io).await {
                let header = |line: &str| line.strip_prefix("authorization: ").map(str::to_owned);
                let authorization = head.lines().find_map(header).unwrap_or_default();
                visits.lock().unwrap()[place].requests.push(authorization);
                let close = head.lines().next().is_some_and(|line| line.contains("/close "));
                let connection = if close { "close" } else { "keep-alive" };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: {connection}\r\n\r\nok"
                );
                if io.write_all(answer.as_bytes()).await.is_err() || close {
                    let _ = io.shutdown().await;
                    return;
                }
            }
        }
    })
    .await;
    (address, visits)
}

/// The head of the next request, in lower-case field names; `None` when the peer has closed.
pub async fn read_head<IO: tokio::io::AsyncRead + Unpin>(io: &mut IO) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Says `answer` to each request and closes. Notes the heads.
pub async fn scripted(answer: &'static [u8]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&heads);
    let address = listen(move |mut io| {
        let heads = Arc::clone(&noted);
        async move {
            if let Some(head) = read_head(&mut io).await {
                heads.lock().unwrap().push(head);
                let _ = io.write_all(answer).await;
                let _ = io.shutdown().await;
            }
        }
    })
    .await;
    (address, heads)
}

/// An address on which every SYN is dropped: its queue is full, and nobody accepts.
pub struct Blackhole {
    pub address: SocketAddr,
    _queue: tokio::net::TcpListener,
    _full: Vec<TcpStream>,
}

impl Blackhole {
    /// At `ip` and `port`; 0 for any port.
    pub async fn at(ip: [u8; 4], port: u16) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(ip.into(), port)).unwrap();
        let queue = socket.listen(1).unwrap();
        let address = queue.local_addr().unwrap();
        let mut full = Vec::new();
        loop {
            let more = TcpSocket::new_v4().unwrap().connect(address);
            match tokio::time::timeout(Duration::from_millis(500), more).await {
                Ok(connected) => full.push(connected.unwrap()),
                Err(_) => return Self { address, _queue: queue, _full: full },
            }
            assert!(full.len() < 100, "the queue does not fill");
        }
    }
}

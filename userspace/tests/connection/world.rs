//! An interceptor, an agent and its policy, without kernel, namespaces or files.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use egret::audit::{Audit, Record};
use egret::connection::{self, Interceptor, InterceptorParts, Settings};
use egret::forward::dial::{Resolve, Resolving};
use egret::forward::resolve::ResolveError;
use egret::http::serve::ServeLimits;
use egret::identify::{Agent, AgentCell, AgentLink, Flow, OriginalDst, Process, SessionId};
use egret::inject::CredentialSet;
use egret::policy::{
    Action, HostName, HostPattern, Limits, MethodSet, PathPattern, Policy, Protocol, ResolveTo,
    Rule, UpstreamSettings,
};
use egret::shutdown;
use egret::tls::authority::Authority;
use egret::tls::leaf::LeafMinter;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::upstream::Upstream;

/// The address that stands for `api.test` inside the agent.
pub const API: &str = "198.18.0.1";
/// The same for `other.test`.
pub const OTHER: &str = "198.18.0.2";

pub struct World {
    pub interceptor: Arc<Interceptor>,
    pub audit: Audit,
    agent: Arc<AgentCell>,
    trigger: shutdown::Trigger,
    watcher: shutdown::Watcher,
}

struct NoResolver;

impl Resolve for NoResolver {
    fn resolve<'a>(&'a self, name: &'a HostName) -> Resolving<'a> {
        Box::pin(async { Err(ResolveError::NotFound(name.clone())) })
    }
}

/// An allow rule for `host` and `port`.
pub fn allow(host: &str, port: u16, protocol: Protocol) -> Rule {
    Rule {
        name: format!("allow {host}").into(),
        action: Action::Allow,
        hosts: vec![HostPattern::parse(host).unwrap()],
        ports: Some(vec![port]),
        protocol: Some(protocol),
        methods: None,
        paths: None,
        credentials: vec![],
        limits: Limits::default(),
        reason: None,
        origin: String::new(),
    }
}

/// The same for GET below `/open` and what the test upstream serves.
pub fn allow_get(host: &str, port: u16, protocol: Protocol) -> Rule {
    Rule {
        methods: Some(MethodSet::new(["GET"]).unwrap()),
        paths: Some(vec![PathPattern::parse("/**").unwrap()]),
        ..allow(host, port, protocol)
    }
}

pub fn policy(rules: Vec<Rule>, upstreams: &[(&str, &Upstream)]) -> Policy {
    let resolve: BTreeMap<_, _> = upstreams
        .iter()
        .map(|(name, up)| {
            let to = ResolveTo { ip: up.address.ip(), port: Some(up.address.port()) };
            (HostName::parse(name).unwrap(), to)
        })
        .collect();
    let ca = upstreams.iter().filter(|(_, u)| !u.ca.is_empty()).map(|(_, u)| u.ca.as_str().into());
    let upstream = UpstreamSettings { ca: ca.collect(), resolve, ..Default::default() };
    Policy { rules, upstream, ..Policy::deny_all("test") }
}

fn session() -> SessionId {
    SessionId("0123456789abcdef".into())
}

fn agent(policy: Policy, credentials: CredentialSet) -> Agent {
    let link =
        AgentLink { name: "agent".into(), policy: policy.into(), credentials: credentials.into() };
    Agent { chain: vec![link], session: session() }
}

impl World {
    pub fn new(policy: Policy) -> Self {
        Self::with(policy, CredentialSet::default(), Audit::in_memory())
    }

    pub fn with(policy: Policy, credentials: CredentialSet, audit: Audit) -> Self {
        let leaves = LeafMinter::new(Authority::generate("test").unwrap()).unwrap();
        Self::by(&Arc::new(leaves), policy, credentials, audit)
    }

    /// With other limits on what an agent's connection may use.
    pub fn limited(policy: Policy, serve: ServeLimits) -> Self {
        let leaves = LeafMinter::new(Authority::generate("test").unwrap()).unwrap();
        let audit = Audit::in_memory();
        Self::of(&Arc::new(leaves), policy, CredentialSet::default(), audit, serve)
    }

    /// With an authority that the test knows.
    pub fn by(
        leaves: &Arc<LeafMinter>,
        policy: Policy,
        credentials: CredentialSet,
        audit: Audit,
    ) -> Self {
        Self::of(leaves, policy, credentials, audit, ServeLimits::default())
    }

    fn of(
        leaves: &Arc<LeafMinter>,
        policy: Policy,
        credentials: CredentialSet,
        audit: Audit,
        serve: ServeLimits,
    ) -> Self {
        Self::made(leaves, agent(policy, credentials), audit, serve, Arc::new(NoResolver))
    }

    /// With names that resolve: nothing of the policy says where they lead.
    pub fn resolving(policy: Policy, resolver: Arc<dyn Resolve>) -> Self {
        let leaves = Arc::new(LeafMinter::new(Authority::generate("test").unwrap()).unwrap());
        let agent = agent(policy, CredentialSet::default());
        Self::made(&leaves, agent, Audit::in_memory(), ServeLimits::default(), resolver)
    }

    fn made(
        leaves: &Arc<LeafMinter>,
        agent: Agent,
        audit: Audit,
        serve: ServeLimits,
        resolver: Arc<dyn Resolve>,
    ) -> Self {
        let settings = Settings { peek: Duration::from_secs(5), serve, ..Settings::default() };
        let names = |ip: IpAddr| {
            let name = match ip.to_string().as_str() {
                API => "api.test",
                OTHER => "other.test",
                _ => return None,
            };
            Some(HostName::parse(name).unwrap())
        };
        let interceptor = Interceptor::new(InterceptorParts {
            leaves: Arc::clone(leaves),
            resolver,
            audit: audit.clone(),
            names: Arc::new(names),
            settings,
        });
        let (trigger, watcher) = shutdown::channel();
        let agent = AgentCell::new(agent).into();
        Self { interceptor: interceptor.into(), audit, agent, trigger, watcher }
    }

    /// A connection of the agent to `ip:port`, in memory.
    pub fn connect(&self, ip: &str, port: u16) -> DuplexStream {
        self.connect_as(&self.agent, ip, port)
    }

    /// A connection of another agent behind the same interceptor.
    pub fn connect_as(&self, cell: &Arc<AgentCell>, ip: &str, port: u16) -> DuplexStream {
        let (agent, egret) = tokio::io::duplex(64 * 1024);
        let process =
            Process { pid: 7, tgid: 7, uid: 1000, comm: "curl".into(), exe: None, cgroup: None };
        let flow = Flow {
            agent: Arc::clone(cell),
            process,
            original: OriginalDst(SocketAddr::new(ip.parse().unwrap(), port)),
        };
        let serving =
            connection::serve(Arc::clone(&self.interceptor), flow, egret, self.watcher.clone());
        tokio::spawn(serving);
        agent
    }

    /// The same with TLS inside, verified against egret's authority.
    pub async fn connect_tls(
        &self,
        ip: &str,
        port: u16,
        sni: &str,
        alpn: &[u8],
    ) -> std::io::Result<TlsStream<DuplexStream>> {
        tls_client(self.connect(ip, port), &self.interceptor.authority_pem(), sni, alpn).await
    }

    pub async fn h1(&self, ip: &str, port: u16, sni: &str) -> Client {
        Client::h1(self.connect_tls(ip, port, sni, b"http/1.1").await.unwrap()).await
    }

    pub async fn h2(&self, ip: &str, port: u16, sni: &str) -> Client {
        Client::h2(self.connect_tls(ip, port, sni, b"h2").await.unwrap()).await
    }

    /// Audit records once there are `n`, as `event decision reason`.
    pub async fn records(&self, n: usize) -> Vec<String> {
        self.full_records(n).await.iter().map(summary).collect()
    }

    pub async fn full_records(&self, n: usize) -> Vec<Record> {
        for _ in 0..500 {
            if self.audit.records().len() >= n {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.audit.records()
    }

    /// Replaces the agent's policy; its credentials are gone with it.
    pub fn replace(&self, policy: Policy) {
        self.replace_with(policy, CredentialSet::default());
    }

    pub fn replace_with(&self, policy: Policy, credentials: CredentialSet) {
        self.agent.replace(agent(policy, credentials).into());
    }

    /// Takes the agent's policy away.
    pub fn deny(&self) {
        self.agent.replace(Agent { chain: vec![], session: session() }.into());
    }

    pub fn drain(&self) {
        self.trigger.drain();
    }
}

fn summary(record: &Record) -> String {
    let reason = record.reason.map_or(String::new(), |r| format!(" {r}"));
    format!("{} {}{reason}", record.event.as_str(), record.decision.as_str())
}

pub async fn tls_client<IO>(
    io: IO,
    ca: &str,
    sni: &str,
    alpn: &[u8],
) -> std::io::Result<TlsStream<IO>>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut roots = rustls::RootCertStore::empty();
    let cert = rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    roots.add(cert).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = rustls_pki_types::ServerName::try_from(sni.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, io).await
}

/// An HTTP client of the agent.
pub enum Client {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub async fn h1<IO>(io: IO) -> Self
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self::H1(sender)
    }

    pub async fn h2<IO>(io: IO) -> Self
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        Self::H2(sender)
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        match self {
            Self::H1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Self::H2(sender) => sender.send_request(request).await.unwrap(),
        }
    }

    /// Sends `METHOD path` to `host`, with a body.
    pub async fn call(&mut self, method: &str, host: &str, path: &str, body: &str) -> Answer {
        self.call_with(method, host, path, body, "").await
    }

    /// The same with an Authorization header, unless it is empty.
    pub async fn call_with(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        body: &str,
        authorization: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        let request = match self {
            Self::H1(_) => request.uri(path).header("host", host),
            Self::H2(_) => request.uri(format!("https://{host}{path}")),
        };
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        Answer::read(self.send(request.body(body).unwrap()).await).await
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        self.call("GET", host, path, "").await
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
    pub trailers: Option<http::HeaderMap>,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
        Self { status: head.status.as_u16(), headers: head.headers, body, trailers }
    }

    /// Status and the reason of a refusal by egret.
    pub fn refusal(&self) -> (u16, &str) {
        let mark = self.headers.get("x-egret").map_or("", |v| v.to_str().unwrap());
        (self.status, mark.strip_prefix("denied; reason=").unwrap_or(""))
    }
}

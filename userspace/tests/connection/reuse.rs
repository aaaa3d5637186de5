//! Upstream connections and TLS sessions are reused, and never by another agent, credential or
//! policy. Some servers take whoever authenticated first on a connection for the sender of all that
//! follows; a resumed session tells an upstream that two clients are one.

use std::sync::{Arc, Mutex};

use egret::audit::Audit;
use egret::identify::{Agent, AgentCell, AgentLink, SessionId};
use egret::inject::CredentialSet;
use egret::policy::{
    CredentialKind, CredentialSpec, HostPattern, OnCanary, PathPattern, Policy, Protocol, Rule,
};
use egret::secrets::{Operator, SecretRef};

use super::peers::{Ca, Visit, greeter, led_to, server};
use super::world::{API, Client, World, allow, tls_client};

/// `/one/**` is granted `one`, `/two/**` is granted `two`, `/none/**` nothing.
fn policy(address: std::net::SocketAddr, ca: &str) -> Policy {
    let rule = |path: &str, credentials: &[&str]| Rule {
        name: path.into(),
        paths: Some(vec![PathPattern::parse(path).unwrap()]),
        credentials: credentials.iter().map(|c| (*c).into()).collect(),
        ..allow("api.test", 443, Protocol::Https)
    };
    let rules = vec![
        rule("/one/**", &["one"]),
        rule("/two/**", &["two"]),
        rule("/both/**", &["one", "x-two"]),
        rule("/htob/**", &["x-two", "one"]),
        rule("/none/**", &[]),
    ];
    let credential = |name: &str, kind| CredentialSpec {
        name: name.into(),
        secret: SecretRef::Env(name.to_uppercase()),
        hosts: vec![HostPattern::parse("api.test").unwrap()],
        kind,
        env: None,
        shape: None,
        on_canary: OnCanary::Deny,
    };
    let header = CredentialKind::Header { name: "x-two".into(), value: "{secret}".into() };
    let credentials = vec![
        credential("one", CredentialKind::Bearer),
        credential("two", CredentialKind::Bearer),
        credential("x-two", header),
    ];
    Policy { credentials, ..led_to(rules, address, ca) }
}

fn active(policy: &Policy) -> CredentialSet {
    let operator = Operator::new(0, |name| Some(format!("the-secret-of-{name}").into()));
    CredentialSet::activate(policy, &operator).unwrap()
}

fn link(name: &str, policy: &Policy) -> AgentLink {
    AgentLink {
        name: name.into(),
        policy: policy.clone().into(),
        credentials: active(policy).into(),
    }
}

fn cell(session: &str, chain: Vec<AgentLink>) -> Arc<AgentCell> {
    AgentCell::new(Agent { chain, session: SessionId(session.into()) }).into()
}

struct Scene {
    world: World,
    policy: Policy,
    visits: Arc<Mutex<Vec<Visit>>>,
}

async fn scene() -> Scene {
    let ca = Ca::new("ca.test");
    let (address, visits) = greeter(server(ca.identity("api.test"))).await;
    let policy = policy(address, &ca.pem());
    let world = World::with(policy.clone(), active(&policy), Audit::in_memory());
    Scene { world, policy, visits }
}

impl Scene {
    /// One request on a connection of its own; only what is upstream can be shared.
    async fn get(&self, path: &str) {
        let client = self.world.h1(API, 443, "api.test").await;
        Self::ask(client, path).await;
    }

    async fn get_as(&self, agent: &Arc<AgentCell>, path: &str) {
        let io = self.world.connect_as(agent, API, 443);
        let ca = self.world.interceptor.authority_pem();
        let io = tls_client(io, &ca, "api.test", b"http/1.1").await.unwrap();
        Self::ask(Client::h1(io).await, path).await;
    }

    async fn ask(mut client: Client, path: &str) {
        let answer = client.get("api.test", path).await;
        assert_eq!((answer.status, &*answer.body), (200, "ok"), "{path}");
    }

    fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap().clone()
    }

    /// How many requests came over each connection.
    fn shape(&self) -> Vec<usize> {
        self.visits().iter().map(|v| v.requests.len()).collect()
    }
}

#[tokio::test]
async fn requests_with_other_credentials_use_other_connections() {
    let scene = scene().await;
    for path in ["/one/a", "/two/a", "/none/a", "/one/b", "/two/b", "/none/b"] {
        scene.get(path).await;
    }
    let visits = scene.visits();
    assert_eq!(scene.shape(), [2, 2, 2], "control: the same credential shares: {visits:?}");
    for (visit, secret) in visits.iter().zip(["the-secret-of-ONE", "the-secret-of-TWO", ""]) {
        for request in &visit.requests {
            assert!(request.ends_with(secret), "{request}");
        }
        assert!(!visit.resumed, "a session of another credential");
    }
    // The same set in another order is the same set; a part of it is not.
    scene.get("/both/a").await;
    scene.get("/htob/a").await;
    assert_eq!(scene.shape(), [2, 2, 2, 2]);
}

/// The greeter closes after a path that ends in `/close`, so that the next request needs a new
/// connection, which may resume the session of the last.
#[tokio::test]
async fn tls_sessions_are_resumed_by_the_same_agent_and_credential_only() {
    let scene = scene().await;
    let other = cell("0123456789abcdef", vec![link("other", &scene.policy)]);
    scene.get("/one/close").await;
    scene.get("/two/close").await;
    scene.get("/none/close").await;
    scene.get_as(&other, "/one/close").await;
    scene.get("/one/close").await;
    scene.get_as(&other, "/one/close").await;
    let resumed: Vec<bool> = scene.visits().iter().map(|v| v.resumed).collect();
    assert_eq!(resumed, [false, false, false, false, true, true]);
    scene.world.replace_with(scene.policy.clone(), active(&scene.policy));
    scene.get("/one/close").await;
    assert!(!scene.visits()[6].resumed, "the session of the old policy");
}

#[tokio::test]
async fn agents_and_sessions_and_chains_share_nothing() {
    let scene = scene().await;
    let policy = &scene.policy;
    let session = "0123456789abcdef";
    let agents = [
        cell(session, vec![link("a", policy)]),
        cell(session, vec![link("b", policy)]),
        cell("fedcba9876543210", vec![link("a", policy)]),
        cell(session, vec![link("a", policy), link("b", policy)]),
        cell(session, vec![link("a", policy), link("c", policy)]),
    ];
    for round in ["/one/1", "/one/2"] {
        for agent in &agents {
            scene.get_as(agent, round).await;
        }
    }
    assert_eq!(scene.shape(), [2; 5], "each has its own connection, and keeps it");
    assert!(scene.visits().iter().all(|v| !v.resumed));
}

#[tokio::test]
async fn a_replaced_policy_begins_anew() {
    let scene = scene().await;
    scene.get("/one/a").await;
    scene.get("/one/b").await;
    assert_eq!(scene.shape(), [2], "control");
    scene.world.replace_with(scene.policy.clone(), active(&scene.policy));
    scene.get("/one/c").await;
    assert_eq!(scene.shape(), [2, 1]);
    assert!(!scene.visits()[1].resumed, "nor is the session of the old policy resumed");
}

#[tokio::test]
async fn http_2_connections_are_apart_too() {
    let ca = Ca::new("ca.test");
    let mut config = server(ca.identity("api.test"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connections = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let noted = Arc::clone(&connections);
    let address = super::peers::tls(config, move |io| {
        let connections = Arc::clone(&noted);
        async move {
            let place = {
                let mut all = connections.lock().unwrap();
                all.push(vec![]);
                all.len() - 1
            };
            let mut h2 = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((request, mut answer))) = h2.accept().await {
                let path = request.uri().path().to_owned();
                connections.lock().unwrap()[place].push(path);
                answer.send_response(http::Response::new(()), true).unwrap();
            }
        }
    })
    .await;
    let policy = policy(address, &ca.pem());
    let world = World::with(policy.clone(), active(&policy), Audit::in_memory());
    // One connection of the agent: what upstream connections are used is egret's choice.
    let mut client = world.h2(API, 443, "api.test").await;
    for path in ["/one/a", "/two/a", "/one/b", "/none/a", "/two/b"] {
        assert_eq!(client.get("api.test", path).await.status, 200);
    }
    let seen = connections.lock().unwrap().clone();
    assert_eq!(seen, [vec!["/one/a", "/one/b"], vec!["/two/a", "/two/b"], vec!["/none/a"]]);
}

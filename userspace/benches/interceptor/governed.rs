//! egret's interceptor over TCP, with the flow that the kernel would have told it of.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use egret::audit::{Audit, AuditOptions};
use egret::connection::{self, Interceptor, InterceptorParts, Settings};
use egret::forward::resolve::Resolver;
use egret::identify::{Agent, AgentCell, AgentLink, Flow, OriginalDst, Process, SessionId};
use egret::inject::CredentialSet;
use egret::policy::{HostName, Policy};
use egret::secrets::Operator;
use egret::shutdown;
use egret::tls::authority::Authority;
use egret::tls::leaf::LeafMinter;
use tokio::net::TcpListener;

use crate::tls::NAME;

/// What the agent dialled: the address that stands for the name.
const SYNTHETIC: &str = "198.18.0.1";

/// Serves until it is killed. With a credential, requests are injected and answers scrubbed.
pub(crate) fn run(folder: &Path, credential: bool) {
    let role = if credential { "egret" } else { "plain" };
    let policy = policy(folder, credential);
    let operator = Operator::new(0, |_| Some("s3cr3t-value-of-the-operator".into()));
    let credentials = CredentialSet::activate(&policy, &operator).expect("the secret");
    let session = SessionId::random();
    let state = folder.join(role);
    let audit = Audit::open(&AuditOptions::new(state, session.clone())).expect("an audit log");
    let leaves = LeafMinter::new(Authority::generate(role).expect("an authority")).expect("a key");
    std::fs::write(folder.join(format!("{role}.pem")), leaves.authority().pem()).expect("a file");
    let link = AgentLink {
        name: "bench".into(),
        policy: Arc::new(policy),
        credentials: Arc::new(credentials),
    };
    let agent = Arc::new(AgentCell::new(Agent { chain: vec![link], session }));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(serve(agent, audit, leaves));
}

fn policy(folder: &Path, credential: bool) -> Policy {
    let port = std::fs::read_to_string(folder.join("upstream.port")).expect("the upstream's port");
    let granted = if credential { "credentials = [\"api\"]" } else { "" };
    let text = format!(
        "version = 1\nname = \"bench\"\n\
         [credentials.api]\nsecret = \"env:TOKEN\"\nhosts = [\"{NAME}\"]\nbearer = true\n\
         [[rule]]\nname = \"read\"\naction = \"allow\"\nhosts = [\"{NAME}\"]\n\
         methods = [\"GET\", \"POST\"]\npaths = [\"/**\"]\n{granted}\n\
         [upstream]\nca = [\"upstream.pem\"]\nresolve = {{ \"{NAME}\" = \"127.0.0.1:{port}\" }}\n"
    );
    let text = if credential { text } else { without_credentials(&text) };
    let path = folder.join(if credential { "egret.toml" } else { "plain.toml" });
    std::fs::write(&path, text).expect("a file");
    egret::config::load_policy(&path).expect("a valid policy").policy
}

fn without_credentials(text: &str) -> String {
    let (head, rest) = text.split_once("[credentials.api]").expect("it is there");
    let (_, rules) = rest.split_once("[[rule]]").expect("it is there");
    format!("{head}[[rule]]{rules}")
}

async fn serve(agent: Arc<AgentCell>, audit: Audit, leaves: LeafMinter) {
    let name = HostName::parse(NAME).expect("a name");
    let ip: IpAddr = SYNTHETIC.parse().expect("an address");
    let interceptor = Arc::new(Interceptor::new(InterceptorParts {
        leaves: Arc::new(leaves),
        resolver: Arc::new(Resolver::system()),
        audit,
        names: Arc::new(move |asked: IpAddr| (asked == ip).then(|| name.clone())),
        settings: Settings::default(),
    }));
    let process = Process {
        pid: 7,
        tgid: 7,
        uid: 1000,
        comm: "agent".into(),
        exe: Some("/usr/bin/agent".into()),
        cgroup: Some("/egret/bench".into()),
    };
    let (_trigger, watcher) = shutdown::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("its address").port());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let original = OriginalDst((ip, 443).into());
        let flow = Flow { agent: Arc::clone(&agent), process: process.clone(), original };
        let (interceptor, watcher) = (Arc::clone(&interceptor), watcher.clone());
        tokio::spawn(connection::serve(interceptor, flow, stream, watcher));
    }
}

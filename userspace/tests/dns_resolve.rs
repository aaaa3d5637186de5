//! egret's own resolution of upstream names, against name servers on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use egret::dns::answer::Transport;
use egret::dns::{Answer, Handler, Names, answer, serve};
use egret::forward::address::{self, Special};
use egret::forward::resolve::{ResolveError, Resolver};
use egret::outcome::Reason;
use egret::policy::{HostName, UnmatchedNames};
use egret::shutdown::{self, Trigger};
use hickory_proto::op::{Message, ResponseCode};
use tokio::net::{TcpListener, UdpSocket};

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// A name server: `*.ok.example` has addresses, `broken.example` fails, the rest does not exist.
#[derive(Default)]
struct NameServer {
    names: Names,
    asked: AtomicUsize,
}

impl Handler for NameServer {
    fn handle(&self, query: &[u8], transport: Transport, _: SocketAddr) -> Answer {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let ok = |h: &HostName| h.as_str().ends_with(".ok.example");
        let mut answer = answer(query, transport, &self.names, &ok, UnmatchedNames::Nxdomain);
        if answer.outcome.name.starts_with("broken.") {
            let mut m = Message::from_vec(&answer.bytes.unwrap()).unwrap();
            m.metadata.response_code = ResponseCode::ServFail;
            m.authorities.clear();
            answer.bytes = m.to_vec().ok();
        }
        answer
    }
}

async fn name_server() -> (SocketAddr, Arc<NameServer>, Trigger) {
    // UDP and TCP on one port, as a resolver expects it; the port is free on both or we try again.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let handler = Arc::new(NameServer::default());
    let (trigger, watcher) = shutdown::channel();
    tokio::spawn(serve(vec![udp], vec![tcp], Arc::clone(&handler), watcher));
    (address, handler, trigger)
}

#[tokio::test]
async fn both_families_come_back_ipv4_first_and_are_kept() {
    let (server, handler, _trigger) = name_server().await;
    let resolver = Resolver::from_servers(vec![server]);
    let found = resolver.resolve(&host("a.ok.example")).await.unwrap();
    let pair = handler.names.pair_of(&host("a.ok.example")).unwrap();
    assert_eq!(found, [IpAddr::V4(pair.v4), IpAddr::V6(pair.v6)]);
    // They are egret's synthetic addresses: a name that leads to one is never dialled.
    assert_eq!(address::check(found[0], &[]), Err(Special::Benchmarking));
    assert_eq!(address::check(found[1], &[]), Err(Special::UniqueLocal));

    let asked = handler.asked.load(Ordering::SeqCst);
    assert_eq!(resolver.resolve(&host("a.ok.example")).await.unwrap(), found);
    assert_eq!(handler.asked.load(Ordering::SeqCst), asked, "answered from the cache");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let (server, _handler, _trigger) = name_server().await;
    let resolver = Resolver::from_servers(vec![server]);
    let missing = resolver.resolve(&host("missing.example")).await.unwrap_err();
    assert_eq!(missing, ResolveError::NotFound(host("missing.example")));
    let broken = resolver.resolve(&host("broken.example")).await.unwrap_err();
    assert!(matches!(broken, ResolveError::Failed { .. }), "{broken}");
    assert_eq!(missing.reason(), Reason::UpstreamName);
    assert_eq!(broken.reason(), Reason::UpstreamName);
    assert!(resolver.resolve(&host("b.ok.example")).await.is_ok(), "control");
}

/// In a namespace without any route, which only root can make.
#[test]
fn name_servers_that_cannot_be_reached_are_no_missing_name() {
    if !nix::unistd::geteuid().is_root() {
        return drop(writeln!(std::io::stderr(), "SKIPPED: needs root"));
    }
    let resolving = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolver = Resolver::from_servers(vec!["192.0.2.1:53".parse().unwrap()]);
        runtime.block_on(resolver.resolve(&host("a.ok.example"))).unwrap_err()
    };
    let error = std::thread::spawn(resolving).join().unwrap();
    assert!(matches!(error, ResolveError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::UpstreamName);
    // What an agent is told names no server; which one it was is for the host's own log.
    assert_eq!(error.why(), "no name server could be reached");
}

#[tokio::test]
async fn the_hosts_file_is_final_for_the_names_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let (conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
    std::fs::write(&conf, "search bad..name\nnameserver 127.0.0.1\noptions ndots:5\n").unwrap();
    std::fs::write(&hosts, "10.1.2.3 Api.test api\n10.1.2.4 api.test # two\n::1 six.test\n")
        .unwrap();
    let resolver = Resolver::from_files(&conf, &hosts);
    for (name, expected) in [
        ("api.test", &["10.1.2.3", "10.1.2.4"][..]),
        ("six.test", &["::1"]),
        ("api", &["10.1.2.3"]),
    ] {
        let expected: Vec<IpAddr> = expected.iter().map(|t| t.parse().unwrap()).collect();
        assert_eq!(resolver.resolve(&host(name)).await.unwrap(), expected, "{name}");
    }
    assert_eq!(address::check("10.1.2.3".parse().unwrap(), &[]), Err(Special::Private));
}

#[tokio::test]
async fn a_host_without_name_servers_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("resolv.conf");
    let resolver = Resolver::from_files(&conf, folder.path().join("hosts"));
    let absent = resolver.resolve(&host("a.example")).await.unwrap_err();
    assert!(absent.to_string().contains(&conf.display().to_string()), "{absent}");
    std::fs::write(&conf, "# nothing\n").unwrap();
    let empty = resolver.resolve(&host("a.example")).await.unwrap_err();
    assert!(matches!(empty, ResolveError::Config { .. }), "{empty}");
    assert_eq!(empty.reason(), Reason::UpstreamName);
}

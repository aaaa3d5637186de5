//! Which address is dialled: one that was checked, and one that answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use egret::forward::dial::{Resolve, Resolving};
use egret::policy::{HostName, Policy, Protocol, UpstreamSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::peers::Blackhole;
use super::world::{API, Client, World, allow};

/// Answers one list after the other, the last one for ever.
struct Turning(Vec<Vec<IpAddr>>, AtomicUsize);

impl Resolve for Turning {
    fn resolve<'a>(&'a self, _: &'a HostName) -> Resolving<'a> {
        let turn = self.1.fetch_add(1, Ordering::SeqCst).min(self.0.len() - 1);
        Box::pin(async move { Ok(self.0[turn].clone()) })
    }
}

fn turning(answers: &[&[IpAddr]]) -> Arc<Turning> {
    Arc::new(Turning(answers.iter().map(|a| a.to_vec()).collect(), AtomicUsize::new(0)))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `api.test:port` may be at any address of these networks.
fn policy(port: u16, protocol: Protocol, private: &[&str]) -> Policy {
    let private = private.iter().map(|n| n.parse().unwrap()).collect();
    let upstream = UpstreamSettings { private, ..UpstreamSettings::default() };
    let rules = vec![allow("api.test", port, protocol)];
    Policy { rules, upstream, ..Policy::deny_all("test") }
}

/// Who was connected to.
type Met = Arc<Mutex<Vec<SocketAddr>>>;

/// Servers at all of these addresses, on one port, that close each connection after an answer.
async fn servers(addresses: &[&str]) -> (u16, Met) {
    let met = Met::default();
    'another_port: loop {
        let mut listeners = Vec::new();
        let mut port = 0;
        for address in addresses {
            let Ok(listener) = TcpListener::bind(SocketAddr::new(ip(address), port)).await else {
                continue 'another_port;
            };
            port = listener.local_addr().unwrap().port();
            listeners.push(listener);
        }
        for listener in listeners {
            let met = Arc::clone(&met);
            tokio::spawn(async move {
                while let Ok((mut io, _)) = listener.accept().await {
                    met.lock().unwrap().push(io.local_addr().unwrap());
                    tokio::spawn(async move {
                        let _ = io.read(&mut [0; 4096]).await;
                        let answer =
                            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                        let _ = io.write_all(answer).await;
                        let _ = io.shutdown().await;
                    });
                }
            });
        }
        return (port, met);
    }
}

fn met(met: &Met) -> Vec<IpAddr> {
    met.lock().unwrap().iter().map(SocketAddr::ip).collect()
}

#[tokio::test]
async fn a_silent_address_does_not_hide_one_that_answers() {
    let (port, visited) = servers(&["127.0.0.3"]).await;
    let hole = Blackhole::at([127, 0, 0, 2], port).await;
    assert_eq!(hole.address, SocketAddr::new(ip("127.0.0.2"), port));
    let world = World::resolving(
        policy(port, Protocol::Http, &["127.0.0.0/8"]),
        turning(&[&[ip("127.0.0.2"), ip("127.0.0.3")]]),
    );
    let mut client = Client::h1(world.connect(API, port)).await;
    assert_eq!(client.get(&format!("api.test:{port}"), "/x").await.status, 200);
    assert_eq!(met(&visited), [ip("127.0.0.3")]);
}

#[tokio::test]
async fn a_refused_family_does_not_hide_the_other() {
    let (port, visited) = servers(&["127.0.0.3"]).await;
    for answer in [&[ip("::1"), ip("127.0.0.3")], &[ip("127.0.0.3"), ip("::1")]] {
        let world = World::resolving(
            policy(port, Protocol::Tcp, &["127.0.0.0/8", "::1/128"]),
            turning(&[answer]),
        );
        let mut io = world.connect(API, port);
        io.write_all(b"x").await.unwrap();
        assert!(io.read(&mut [0; 16]).await.unwrap() > 0, "nobody listens at ::1");
    }
    assert_eq!(met(&visited), [ip("127.0.0.3"), ip("127.0.0.3")]);
}

#[tokio::test]
async fn ipv6_alone_is_dialled() {
    let Ok(probe) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else {
        panic!("this machine has no IPv6 loopback");
    };
    drop(probe);
    let (port, visited) = servers(&["::1"]).await;
    let world =
        World::resolving(policy(port, Protocol::Tcp, &["::1/128"]), turning(&[&[ip("::1")]]));
    let mut io = world.connect(API, port);
    io.write_all(b"x").await.unwrap();
    assert!(io.read(&mut [0; 16]).await.unwrap() > 0);
    assert_eq!(met(&visited), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
}

#[tokio::test]
async fn a_network_that_is_narrower_than_the_answer_leaves_the_rest_out() {
    let (port, visited) = servers(&["127.0.0.2", "127.0.0.3"]).await;
    let both = [ip("127.0.0.2"), ip("127.0.0.3")];
    for (private, expected) in [
        (&["127.0.0.3/32"][..], Some("127.0.0.3")),
        (&["127.0.0.2/32"], Some("127.0.0.2")),
        (&["10.0.0.0/8"], None),
    ] {
        visited.lock().unwrap().clear();
        let world = World::resolving(policy(port, Protocol::Http, private), turning(&[&both]));
        let mut client = Client::h1(world.connect(API, port)).await;
        let answer = client.get(&format!("api.test:{port}"), "/x").await;
        match expected {
            Some(address) => {
                assert_eq!(answer.status, 200);
                assert_eq!(met(&visited), [ip(address)], "{private:?}");
            }
            None => {
                assert_eq!(answer.refusal(), (403, "upstream_private"));
                assert_eq!(met(&visited), [] as [IpAddr; 0]);
            }
        }
    }
}

/// DNS rebinding: the name's owner changes the answer after the first look.
#[tokio::test]
async fn each_dial_goes_to_the_address_that_was_checked_for_it() {
    let (port, visited) = servers(&["127.0.0.2", "127.0.0.3"]).await;
    let resolver = turning(&[&[ip("127.0.0.2")], &[ip("127.0.0.3")], &[ip("127.0.0.2")]]);
    let names = Arc::clone(&resolver);
    let world = World::resolving(policy(port, Protocol::Http, &["127.0.0.2/32"]), resolver);
    let host = format!("api.test:{port}");
    let mut client = Client::h1(world.connect(API, port)).await;
    // One question per dial, and no second look between the check and the connection.
    assert_eq!(client.get(&host, "/first").await.status, 200);
    assert_eq!(names.1.load(Ordering::SeqCst), 1);
    assert_eq!(client.get(&host, "/rebound").await.refusal(), (403, "upstream_private"));
    assert_eq!(client.get(&host, "/control").await.status, 200);
    assert_eq!(names.1.load(Ordering::SeqCst), 3);
    assert_eq!(met(&visited), [ip("127.0.0.2"), ip("127.0.0.2")]);
}

#[tokio::test]
async fn the_operators_word_leads_to_any_address_and_port() {
    let (port, visited) = servers(&["::1"]).await;
    let mut policy = policy(80, Protocol::Http, &[]);
    let to = egret::policy::ResolveTo { ip: Ipv6Addr::LOCALHOST.into(), port: Some(port) };
    policy.upstream.resolve.insert(HostName::parse("api.test").unwrap(), to);
    let world = World::resolving(policy, turning(&[&[Ipv4Addr::new(192, 0, 2, 1).into()]]));
    let mut client = Client::h1(world.connect(API, 80)).await;
    assert_eq!(client.get("api.test", "/x").await.status, 200);
    assert_eq!(met(&visited), [ip("::1")], "and no private network is opened by it");
}

//! The network namespace and the listeners in it.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};

use egret::redirect::listener::Listeners;
use egret::redirect::netns::{NAMESERVER_V4, NAMESERVER_V6, Netns, own_cookie};

use crate::harness::{Box, outside, skipped};

#[test]
fn only_loopback_exists_and_both_families_count_as_configured() {
    if skipped("only_loopback_exists_and_both_families_count_as_configured") {
        return;
    }
    let b = Box::new();
    let script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route | wc -l
        getent ahosts both.test";
    let mut plan = b.script(script);
    plan.extra_hosts = vec!["203.0.113.9 both.test".into(), "2001:db8::9 both.test".into()];
    let out = b.output(plan);
    assert!(out.starts_with("    lo\n1\n"), "{out}");
    // getent asks with AI_ADDRCONFIG.
    assert!(out.contains("203.0.113.9") && out.contains("2001:db8::9"), "{out}");
}

#[test]
fn nothing_is_reachable_from_inside() {
    if skipped("nothing_is_reachable_from_inside") {
        return;
    }
    let netns = Netns::private().unwrap();
    let outside_server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside_server.local_addr().unwrap();
    assert!(TcpStream::connect(address).is_ok(), "control");
    let (tcp, udp) = netns
        .run(|| {
            let tcp =
                [address, "192.0.2.1:443".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()]
                    .map(|a| TcpStream::connect(a).map(drop).is_ok());
            let udp = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "192.0.2.1:53").is_ok();
            (tcp, udp)
        })
        .unwrap();
    assert_eq!((tcp, udp), ([false; 3], false));
}

#[test]
fn listeners_opened_inside_are_served_from_outside() {
    if skipped("listeners_opened_inside_are_served_from_outside") {
        return;
    }
    let netns = Netns::private().unwrap();
    let before = own_cookie().unwrap();
    assert_ne!(netns.cookie(), before);
    assert_eq!(netns.run(|| own_cookie().unwrap()).unwrap(), netns.cookie());
    assert_eq!(own_cookie().unwrap(), before, "the caller stays where it is");

    let l = Listeners::open(&netns).unwrap();
    l.intercept_v6.as_ref().unwrap().set_nonblocking(false).unwrap();
    l.dns_udp_v4.set_nonblocking(false).unwrap();
    let (intercept, dns) = (l.ports().intercept, l.ports().dns);
    let client = std::thread::spawn(move || {
        netns
            .run(|| {
                let mut stream = TcpStream::connect(("::1", intercept)).unwrap();
                stream.write_all(b"hello").unwrap();
                let udp = UdpSocket::bind((NAMESERVER_V4, 0)).unwrap();
                udp.send_to(b"query", ("127.0.0.1", dns)).unwrap();
                UdpSocket::bind((NAMESERVER_V6, 0)).unwrap();
            })
            .unwrap();
    });
    let mut text = String::new();
    let (mut accepted, peer) = l.intercept_v6.as_ref().unwrap().accept().unwrap();
    accepted.read_to_string(&mut text).unwrap();
    let mut query = [0; 16];
    let (len, _) = l.dns_udp_v4.recv_from(&mut query).unwrap();
    client.join().unwrap();
    assert_eq!((text.as_str(), &query[..len]), ("hello", &b"query"[..]));
    assert!(peer.ip().is_loopback());
    assert!(TcpStream::connect(("::1", intercept)).is_err(), "not there outside");
    assert!(!outside("cat /proc/net/dev").is_empty());
}

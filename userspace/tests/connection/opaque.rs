//! Connections that pass unopened, and those that do not.

use egret::policy::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream;
use super::world::{API, OTHER, World, allow, policy};

#[tokio::test]
async fn opaque_bytes_pass_both_ways_with_half_close() {
    let up = upstream::echo().await;
    let rules = vec![allow("api.test", 5432, Protocol::Tcp)];
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &up)]));
    let mut io = world.connect(API, 5432);
    io.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
    io.shutdown().await.unwrap();
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, up.notes.raw());
    assert_eq!(answer.len(), 8);
    let records = world.full_records(2).await;
    let bytes = records[1].bytes.unwrap();
    assert_eq!((bytes.up, bytes.down), (8, 8));
}

#[tokio::test]
async fn other_hosts_and_ports_are_closed() {
    let up = upstream::echo().await;
    let rules = vec![allow("api.test", 5432, Protocol::Tcp)];
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &up)]));
    for (ip, port) in [(OTHER, 5432), (API, 5433), ("192.0.2.1", 5432)] {
        let mut io = world.connect(ip, port);
        io.write_all(b"\0opaque").await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty(), "{ip}:{port}");
    }
    assert_eq!(up.notes.connections(), 0);
    assert_eq!(world.records(3).await, ["connect deny no_rule"; 3]);
}

#[tokio::test]
async fn ssh_is_told_why() {
    let world = World::new(policy(vec![], &[]));
    let mut io = world.connect(OTHER, 22);
    io.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(n @ 1..) = io.read(&mut chunk).await {
        answer.extend_from_slice(&chunk[..n]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("SSH-2.0-egret\r\n"), "{text}");
    assert!(text.contains("egret denied other.test (no_rule)"), "{text}");
}

/// What a client of another protocol is told: it says `turns` one by one, and reads in between.
async fn told(port: u16, turns: &[&[u8]]) -> Vec<u8> {
    let world = World::new(policy(vec![], &[]));
    let mut io = world.connect(OTHER, port);
    let mut answer = Vec::new();
    for turn in turns {
        io.write_all(turn).await.unwrap();
        assert!(io.read_buf(&mut answer).await.unwrap() > 0);
    }
    io.read_to_end(&mut answer).await.unwrap();
    assert_eq!(world.records(1).await, ["connect deny no_rule"]);
    answer
}

#[tokio::test]
async fn databases_tell_their_clients_why() {
    const ASKS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const BEGINS: &[u8] = b"\0\0\0\x10\0\x03\0\0user\0a\0\0";
    let text = b"egret denied other.test (no_rule)";
    for (what, port, turns, begins) in [
        ("PostgreSQL", 5432, &[ASKS, ASKS, BEGINS][..], &b"NNE"[..]),
        ("PostgreSQL without TLS", 7777, &[BEGINS], b"E"),
        ("Redis", 6379, &[b"*1\r\n$4\r\nPING\r\n"], b"-ERR "),
        ("MySQL", 3306, &[], b""),
    ] {
        let answer = told(port, turns).await;
        assert!(answer.starts_with(begins), "{what}: {}", answer.escape_ascii());
        let found = answer.windows(text.len()).any(|w| w == text);
        assert!(found, "{what}: {}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_an_outcome() {
    let up = upstream::echo().await;
    let rules = vec![allow("api.test", 5432, Protocol::Tcp), allow("other.test", 1, Protocol::Tcp)];
    let mut gone = upstream::echo().await;
    gone.address.set_port(1); // nothing listens there
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &gone)]));
    let mut io = world.connect(OTHER, 1);
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(world.records(2).await, ["connect allow", "response note upstream_connect"]);
}

#[tokio::test]
async fn draining_ends_opaque_connections() {
    let up = upstream::echo().await;
    let rules = vec![allow("api.test", 5432, Protocol::Tcp)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut io = world.connect(API, 5432);
    io.write_all(b"x").await.unwrap();
    let mut echoed = [0; 1];
    io.read_exact(&mut echoed).await.unwrap();
    world.drain();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(world.records(2).await[1], "response note shutting_down");
}

/// The least ClientHello with this server name.
fn hello(name: &[u8]) -> Vec<u8> {
    fn vector<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        let length = bytes.len().to_be_bytes();
        [&length[length.len() - N..], bytes].concat()
    }
    let list = [&[0][..], &vector::<2>(name)].concat();
    let extension = [&[0, 0][..], &vector::<2>(&vector::<2>(&list))].concat();
    let head = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 0x01, 1, 0]].concat();
    let body = [head, vector::<2>(&extension)].concat();
    let message = [&[1][..], &vector::<3>(&body)].concat();
    [&[0x16, 3, 1][..], &vector::<2>(&message)].concat()
}

/// Unopened, the upstream reads the very bytes: a name that egret cannot read, or reads only after
/// mapping it, may be another host there.
#[tokio::test]
async fn tls_passes_unopened_only_with_the_dialled_name_as_it_is_written() {
    let up = upstream::echo().await;
    let rules = vec![allow("api.test", 443, Protocol::Tls)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let odd = ["other-.test", "\u{ff41}pi.test", "a\u{ad}pi.test", "api.test\0.other.test"];
    for name in odd {
        let mut io = world.connect(API, 443);
        io.write_all(&hello(name.as_bytes())).await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = io.read_to_end(&mut answer).await;
        assert_ne!(answer, hello(name.as_bytes()), "{name}");
    }
    assert_eq!(up.notes.connections(), 0);
    assert_eq!(world.records(4).await, ["connect deny name_mismatch"; 4]);
    for control in ["api.test", "API.test"] {
        let mut io = world.connect(API, 443);
        io.write_all(&hello(control.as_bytes())).await.unwrap();
        io.shutdown().await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, hello(control.as_bytes()), "{control}");
    }
    assert_eq!(up.notes.connections(), 2);
}

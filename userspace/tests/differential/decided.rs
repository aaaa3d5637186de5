//! Requests through the interceptor to one server: what it read must be what was decided.

use std::collections::BTreeMap;
use std::time::Duration;

use egret::audit::{Event, Record};
use egret::outcome::Decision;
use egret::policy::Protocol;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::SILENCE;
use super::origins::Origin;
use super::raw::opening;
use super::requests::Sent;
use super::upstream::{Notes, Upstream};
use super::world::{API, World, allow, policy};

/// What the agent speaks. Upstream it is the same, but HTTP/1 where the server has no HTTP/2.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Plain,
    TlsH1,
    TlsH2,
}

/// How often each request was decided or read.
type Counted = BTreeMap<String, i64>;

/// Sends everything through the interceptor to one server, and compares what it read with what was
/// decided: of the whole run, because a server may write a request down that was given up meanwhile.
pub async fn behind(origin: &Origin, way: Way, ca: &str, sent: &[Sent]) -> Result<String, String> {
    let up = Upstream { address: origin.address, notes: Notes::default(), ca: ca.to_owned() };
    let rules = match way {
        Way::Plain => vec![allow("api.test", 80, Protocol::Http)],
        Way::TlsH1 | Way::TlsH2 => vec![allow("api.test", 443, Protocol::Https)],
    };
    let before = origin.seen().len();
    let mut worlds = Vec::with_capacity(sent.len());
    for one in sent {
        // A world for each, so that one that was broken off costs no other its connection.
        let world = World::new(policy(rules.clone(), &[("api.test", &up)]));
        ask(&world, way, &one.bytes).await;
        worlds.push(world);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut decided, mut refused, mut open) = (Counted::new(), 0, 0);
    for world in worlds {
        for record in finished(&world).await {
            let request = record.request.as_ref();
            match (record.event, record.decision) {
                (Event::Request, Decision::Allow) => {
                    let method = request.and_then(|r| r.method.as_deref()).unwrap_or("");
                    let path = request.and_then(|r| r.path.as_deref()).unwrap_or("");
                    *decided.entry(format!("{method} {path}")).or_default() += 1;
                }
                (Event::Request, Decision::Deny) => refused += 1,
                // What broke off, and what the server did not want, may or may not be in its log.
                (Event::Response, _) => {
                    let unwanted = request.and_then(|r| r.status) == Some(400);
                    open += i64::from(record.reason.is_some() || unwanted);
                }
                _ => {}
            }
        }
    }
    let all: i64 = decided.values().sum();
    agrees(&origin.seen()[before..], decided, open)?;
    Ok(format!("{} sent, {all} decided and read so, {refused} refused", sent.len()))
}

/// The records, once each decision has its outcome.
async fn finished(world: &World) -> Vec<Record> {
    for _ in 0..500 {
        let records = world.audit.records();
        let count = |event: Event, decision: Decision| {
            records.iter().filter(|r| r.event == event && r.decision == decision).count()
        };
        if count(Event::Request, Decision::Allow) == count(Event::Response, Decision::Note) {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.audit.records()
}

/// Whether what was read is what was allowed; `open` of those may be missing.
fn agrees(seen: &[String], mut allowed: Counted, open: i64) -> Result<(), String> {
    for line in seen.iter().filter(|line| is_request(line)) {
        let (request, host) = line.rsplit_once('|').ok_or(format!("read {line:?}"))?;
        let mut words = request.splitn(3, ' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        // haproxy writes the whole URI of a request over HTTP/2.
        let target = target.strip_prefix("https://api.test").unwrap_or(target);
        let path = target.split('?').next().unwrap_or("");
        let left = allowed.get_mut(&format!("{method} {path}")).filter(|n| **n > 0);
        *left.ok_or(format!("read {line:?}, which was not decided"))? -= 1;
        if !matches!(host, "api.test" | "api.test:80" | "api.test:443") {
            return Err(format!("read the host {host:?}"));
        }
    }
    let unread: i64 = allowed.values().sum();
    if unread > open {
        allowed.retain(|_, n| *n > 0);
        return Err(format!("decided, and not read: {allowed:?}"));
    }
    Ok(())
}

/// Whether a server took it for a request; some write down what they did not, nginx also what it did
/// not finish reading.
pub fn is_request(line: &str) -> bool {
    !line.ends_with("|-") && !line.starts_with("<BADREQ>") && !line.starts_with("-|")
}

/// Sends the bytes and reads until nothing comes.
async fn ask(world: &World, way: Way, bytes: &[u8]) {
    match way {
        Way::Plain => send(world.connect(API, 80), bytes).await,
        Way::TlsH1 => {
            send(world.connect_tls(API, 443, "api.test", b"http/1.1").await.unwrap(), bytes).await;
        }
        Way::TlsH2 => {
            let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
            send(io, &opening(bytes)).await;
        }
    }
}

pub async fn send<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, bytes: &[u8]) {
    let _ = io.write_all(bytes).await;
    let _ = io.flush().await;
    let mut buffer = [0; 4096];
    while let Ok(Ok(1..)) = tokio::time::timeout(SILENCE, io.read(&mut buffer)).await {}
}

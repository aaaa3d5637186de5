//! The differential run: servers that people run stand behind the interceptor, and read exactly the
//! requests that were decided: as many, with the method, the target and the host of the decision.
//!
//! What is sent is the admission table, well-formed requests with odd spellings, and mutations of both.
//! The control sends the malformed ones to the servers directly: there they read them differently,
//! which is what the admission stands in front of. `--table` prints that.
//!
//! It needs nginx, haproxy, Apache, Node and Python; one that is missing counts as ignored, by name.
//! EGRET_SEED and EGRET_MUTATIONS choose others, and how many.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "its result is a table for a person")]
#![expect(unreachable_pub, reason = "the modules of a test are its own crate")]
#![allow(dead_code, reason = "it shares the world of the connection tests, and needs a part of it")]

#[path = "../connection/cases.rs"]
mod cases;
mod origins;
mod requests;
#[path = "../connection/upstream.rs"]
mod upstream;
#[path = "../connection/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use egret::audit::{Event, Record};
use egret::outcome::Decision;
use egret::policy::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use origins::Origin;
use requests::Sent;
use upstream::{Notes, Upstream};
use world::{API, World, allow, policy};

/// Silence after which an answer is taken to be over.
const SILENCE: Duration = Duration::from_millis(80);

fn main() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (seed, count) = (number("EGRET_SEED", 1), number("EGRET_MUTATIONS", 300));
    let mut sent = requests::malformed();
    sent.extend(requests::well_formed());
    sent.extend(requests::mutations(seed, usize::try_from(count).unwrap()));
    let sent = Arc::new(sent);
    let (origins, missing) = origins::start();
    let origins: Vec<Arc<Origin>> = origins.into_iter().map(Arc::new).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut failed = 0;
    let mut tell = |name: &str, result: Result<String, String>| match result {
        Ok(what) => println!("test {name} ... ok ({what})"),
        Err(why) => {
            failed += 1;
            println!("test {name} ... FAILED\n{why}");
        }
    };
    let results = runtime.block_on(async {
        let begin = |origin: &Arc<Origin>| {
            let (origin, sent) = (Arc::clone(origin), Arc::clone(&sent));
            tokio::spawn(async move { behind(&origin, &sent).await })
        };
        let runs: Vec<_> = origins.iter().map(begin).collect();
        let mut results = Vec::new();
        for run in runs {
            results.push(run.await.unwrap());
        }
        results
    });
    for (origin, result) in origins.iter().zip(results) {
        tell(&format!("behind {}", origin.name), result);
    }
    let mut passed = origins.len();
    if origins.len() > 1 {
        let show = std::env::args().any(|a| a == "--table");
        tell("control: directly, they disagree", directly(&origins, show));
        passed += 1;
    }
    for name in &missing {
        println!("test behind {name} ... ignored, it is not installed");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {failed} failed; {} ignored; seed {seed}",
        passed - failed,
        missing.len()
    );
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How often each request was decided or read.
type Counted = BTreeMap<String, i64>;

/// Sends everything through the interceptor to one server, and compares what it read with what was
/// decided: of the whole run, because a server may write a request down that was given up meanwhile.
async fn behind(origin: &Origin, sent: &[Sent]) -> Result<String, String> {
    let up = Upstream { address: origin.address, notes: Notes::default(), ca: String::new() };
    let rules = vec![allow("api.test", 80, Protocol::Http)];
    let before = origin.seen().len();
    let mut worlds = Vec::with_capacity(sent.len());
    for one in sent {
        // A world for each, so that one that was broken off costs no other its connection.
        let world = World::new(policy(rules.clone(), &[("api.test", &up)]));
        ask(&world, &one.bytes).await;
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
        let path = target.split('?').next().unwrap_or("");
        let left = allowed.get_mut(&format!("{method} {path}")).filter(|n| **n > 0);
        *left.ok_or(format!("read {line:?}, which was not decided"))? -= 1;
        if !matches!(host, "api.test" | "api.test:80") {
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

/// Whether a server took it for a request; some write down what they did not.
fn is_request(line: &str) -> bool {
    !line.ends_with("|-") && !line.starts_with("<BADREQ>")
}

/// Sends the bytes and reads until nothing comes.
async fn ask(world: &World, bytes: &[u8]) {
    let mut io = world.connect(API, 80);
    let _ = io.write_all(bytes).await;
    let mut buffer = [0; 4096];
    while let Ok(Ok(1..)) = tokio::time::timeout(SILENCE, io.read(&mut buffer)).await {}
}

/// Sends the malformed requests to the servers themselves. Fails if they agree on nearly all.
fn directly(origins: &[Arc<Origin>], show: bool) -> Result<String, String> {
    let mut disagreed = 0;
    let cases = requests::malformed();
    for case in &cases {
        let read: Vec<Vec<String>> =
            origins.iter().map(|o| read_directly(o, &case.bytes)).collect();
        disagreed += usize::from(read.iter().any(|r| *r != read[0]));
        if show {
            let counts: Vec<String> =
                origins.iter().zip(&read).map(|(o, r)| format!("{} {}", o.name, r.len())).collect();
            println!("| {} | {} |", case.name, counts.join(" | "));
        }
    }
    let text =
        format!("{disagreed} of {} malformed requests are read in different ways", cases.len());
    if disagreed >= 10 { Ok(text) } else { Err(text) }
}

fn read_directly(origin: &Origin, bytes: &[u8]) -> Vec<String> {
    let before = origin.seen().len();
    let mut io = TcpStream::connect(origin.address).unwrap();
    io.set_read_timeout(Some(SILENCE)).unwrap();
    let _ = io.write_all(bytes);
    let mut buffer = [0; 4096];
    while let Ok(1..) = io.read(&mut buffer) {}
    drop(io);
    std::thread::sleep(Duration::from_millis(10));
    // The line without its version, which not every server writes as it came.
    let words = |line: &String| line.split(" HTTP/").next().unwrap_or("").to_owned();
    origin.seen()[before..].iter().filter(|line| is_request(line)).map(words).collect()
}

//! The differential run: servers that people run stand behind the interceptor, and read exactly the
//! requests that were decided: as many, with the method, the target and the host of the decision.
//!
//! What is sent is the admission table, well-formed requests with odd spellings, and mutations of both:
//! over HTTP/1 in the clear and inside TLS, and over HTTP/2. The control sends the malformed ones to
//! the servers directly: there they read them differently, which is what the admission stands in
//! front of. `--table` prints that, `--write` writes it into `README.md` of this folder.
//!
//! It needs nginx, haproxy, Apache, Node and Python; one that is missing counts as ignored, by name.
//! EGRET_SEED and EGRET_MUTATIONS choose others, and how many.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "its result is a table for a person")]
#![expect(unreachable_pub, reason = "the modules of a test are its own crate")]
#![allow(dead_code, reason = "it shares the world of the connection tests, and needs a part of it")]

#[path = "../connection/cases.rs"]
mod cases;
mod decided;
mod directly;
mod origins;
#[path = "../connection/peers.rs"]
mod peers;
#[path = "../connection/raw.rs"]
mod raw;
mod requests;
mod requests_h2;
#[path = "../connection/upstream.rs"]
mod upstream;
#[path = "../connection/world.rs"]
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use decided::{Way, behind};
use origins::Origin;
use peers::Ca;
use requests::Sent;

/// Silence after which an answer is taken to be over.
const SILENCE: Duration = Duration::from_millis(80);

/// What is sent, by what the agent speaks.
struct Sending {
    h1: Vec<Sent>,
    /// So many of them are no mutations.
    fixed: usize,
    h2: Vec<Sent>,
}

impl Sending {
    fn new(seed: u64, mutations: usize) -> Self {
        let mut h1 = requests::malformed();
        h1.extend(requests::well_formed());
        let fixed = h1.len();
        h1.extend(requests::mutations(seed, mutations));
        let mut h2 = requests_h2::table();
        h2.extend(requests_h2::well_formed());
        h2.extend(requests_h2::mutations(seed, mutations / 2));
        Self { h1, fixed, h2 }
    }

    fn of(&self, way: Way) -> &[Sent] {
        match way {
            Way::Plain => &self.h1,
            // The same reader reads the same bytes; the mutations have passed it in the clear.
            Way::TlsH1 => &self.h1[..self.fixed],
            Way::TlsH2 => &self.h2,
        }
    }
}

/// What came out, told as it comes.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn tell(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(what) => {
                self.passed += 1;
                println!("test {name} ... ok ({what})");
            }
            Err(why) => {
                self.failed += 1;
                println!("test {name} ... FAILED\n{why}");
            }
        }
    }
}

fn main() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
    };
    let (seed, count) = (number("EGRET_SEED", 1), number("EGRET_MUTATIONS", 300));
    let sending = Arc::new(Sending::new(seed, usize::try_from(count).unwrap()));
    let ca = Ca::new("ca.test");
    let shared = |origins: Vec<Origin>| origins.into_iter().map(Arc::new).collect::<Vec<_>>();
    let (plain, missing) = origins::start(None);
    let (plain, secure) = (shared(plain), shared(origins::start(Some(&ca)).0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut tally = Tally::default();
    runtime.block_on(play(&plain, &secure, &ca, &sending, &mut tally));
    let mut table = String::new();
    if plain.len() > 1 {
        tally.tell("control: directly, they disagree", directly::directly(&plain, &mut table));
        let h2: Vec<_> = secure.iter().filter(|o| o.speaks_h2()).map(Arc::clone).collect();
        let control = runtime.block_on(directly::directly_h2(&h2, &ca.pem(), &mut table));
        tally.tell("control: directly over HTTP/2, they disagree", control);
    }
    match std::env::args().nth(1).as_deref() {
        Some("--table") => println!("{table}"),
        Some("--write") => write(&table),
        _ => {}
    }
    for name in &missing {
        println!("test behind {name} ... ignored, it is not installed");
    }
    let Tally { passed, failed } = tally;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {} ignored; seed {seed}",
        missing.len()
    );
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All servers at once, each in one way after the other.
async fn play(
    plain: &[Arc<Origin>],
    secure: &[Arc<Origin>],
    ca: &Ca,
    sending: &Arc<Sending>,
    tally: &mut Tally,
) {
    let begin = |origin: &Arc<Origin>, ways: &'static [Way], ca: String| {
        let (origin, sending) = (Arc::clone(origin), Arc::clone(sending));
        tokio::spawn(async move {
            let mut results = Vec::new();
            for way in ways {
                let name = format!("behind {}, {way:?}", origin.name);
                results.push((name, behind(&origin, *way, &ca, sending.of(*way)).await));
            }
            results
        })
    };
    let mut runs: Vec<_> = plain.iter().map(|o| begin(o, &[Way::Plain], String::new())).collect();
    runs.extend(secure.iter().map(|o| begin(o, &[Way::TlsH1, Way::TlsH2], ca.pem())));
    for run in runs {
        for (name, result) in run.await.unwrap() {
            tally.tell(&name, result);
        }
    }
}

/// Puts the table behind its marker.
fn write(table: &str) {
    const MARK: &str = "<!-- table: what follows is written by the test -->\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, _) = text.split_once(MARK).unwrap();
    std::fs::write(path, format!("{before}{MARK}{table}")).unwrap();
}

//! What interception costs, as ratios within one run: a direct connection, `limit` (a bare
//! tokio-rustls and hyper interceptor with a leaf cache and pooled upstream connections, and
//! nothing else), and egret with a policy, a credential, scrubbing and its audit log on disk.
//!
//! ```text
//! cargo bench -p egret --bench interceptor              all of it, about a minute
//! cargo bench -p egret --bench interceptor -- load      one of: one, load, new, bulk, memory
//! ```
//! Upstream, interceptors and load are processes of their own, so that the processor time and the
//! memory of each can be told apart. Nothing is asserted: look at the ratios on a quiet machine.
#![expect(clippy::print_stdout, reason = "its result is a table for a person")]
#![expect(clippy::disallowed_methods, reason = "peers of the interceptor, without a Permit")]

mod governed;
mod limit;
mod load;
mod process;
mod tls;
mod upstream;

use std::time::Duration;

use load::Target;
use process::Peer;

/// Rounds of each measurement, in turn for each way; the median counts.
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["role", "upstream", folder] => upstream::run(folder.as_ref()),
        ["role", "limit", folder] => limit::run(folder.as_ref()),
        ["role", "plain", folder] => governed::run(folder.as_ref(), false),
        ["role", "egret", folder] => governed::run(folder.as_ref(), true),
        _ => compare(&words),
    }
}

/// One way to the upstream.
struct Way {
    name: &'static str,
    target: Target,
    /// Whose processor time and memory count.
    peer: Peer,
}

fn compare(chosen: &[&str]) {
    let wanted = |name: &str| chosen.is_empty() || chosen.contains(&name);
    let folder = tempfile::tempdir().expect("a folder for keys and the audit log");
    // The first is the upstream itself: the direct way.
    let ways: Vec<Way> =
        [("direct", "upstream"), ("limit", "limit"), ("plain", "plain"), ("egret", "egret")]
            .map(|(name, role)| {
                let peer = Peer::start(role, folder.path());
                let target = Target::new(peer.port, &folder.path().join(format!("{role}.pem")));
                Way { name, target, peer }
            })
            .into();
    println!("`plain` is egret without a credential: no injection, no scrubbing\n");
    if wanted("memory") {
        memory(&ways);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if wanted("one") {
            let measure = async |way: &Way| [load::one(&way.target).await, 0.0];
            table(&ways, &[("one connection: p50, µs", 1.0)], &measure).await;
        }
        if wanted("load") {
            let titles =
                [("32 connections: requests/s", 1.0), ("CPU ms per 1000 requests", 1000.0)];
            let measure = async |way: &Way| busy(way, load::many(&way.target, 32)).await;
            table(&ways, &titles, &measure).await;
        }
        if wanted("new") {
            let titles = [("new connections/s", 1.0), ("CPU ms per 1000 new connections", 1000.0)];
            let measure = async |way: &Way| busy(way, load::fresh(&way.target, 16)).await;
            table(&ways, &titles, &measure).await;
        }
        if wanted("bulk") {
            let titles = [("100 MiB: MB/s", 1e-6), ("100 MiB: CPU s per GB", 1e6)];
            let measure = async |way: &Way| busy(way, load::bulk(&way.target)).await;
            table(&ways, &titles, &measure).await;
        }
    });
}

/// Runs a load; answers units per second, and milliseconds of the peer's processor time per unit.
async fn busy(way: &Way, load: impl Future<Output = (f64, Duration)>) -> [f64; 2] {
    let before = way.peer.processor_ms();
    let (units, took) = load.await;
    let used = way.peer.processor_ms() - before;
    [units / took.as_secs_f64(), used / units]
}

/// Measures every way in turn, several times, and prints the medians and their ratios under the
/// titles; each title brings the factor to its unit.
async fn table<M>(ways: &[Way], titles: &[(&str, f64)], measure: &M)
where
    M: AsyncFn(&Way) -> [f64; 2],
{
    let mut values = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, values) in ways.iter().zip(&mut values) {
            values.push(measure(way).await);
        }
    }
    for (column, (title, scale)) in titles.iter().enumerate() {
        println!("{title}");
        let medians: Vec<f64> = values.iter().map(|v| median(v, column) * scale).collect();
        for (way, value) in ways.iter().zip(&medians) {
            let (direct, limit) = (value / medians[0], value / medians[1]);
            let name = way.name;
            println!("  {name:<8}{value:>10.1}   × direct {direct:>6.2}   × limit {limit:>6.2}");
        }
    }
}

fn median(values: &[[f64; 2]], column: usize) -> f64 {
    let mut all: Vec<f64> = values.iter().map(|v| v[column]).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn memory(ways: &[Way]) {
    println!("resident memory, MB: idle, with 256 connections");
    for way in ways.iter().skip(1) {
        // A runtime of its own: its connections are closed with it.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (idle, full) = runtime.block_on(async {
            let first = load::hold(&way.target, 1).await;
            let idle = way.peer.resident_mb();
            let held = load::hold(&way.target, 256).await;
            let full = way.peer.resident_mb();
            drop((first, held));
            (idle, full)
        });
        println!("  {:<8}{idle:>10.1}{full:>10.1}", way.name);
    }
}

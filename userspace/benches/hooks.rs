//! What the kernel programs cost per connection, by the kernel's own account (`run_time_ns` and
//! `run_cnt` of each program), for a process that is governed and for one that is not.
//!
//! ```text
//! cargo bench -p egret --bench hooks          as root; some seconds
//! ```
//! Each client makes connections over loopback and closes them. The first one runs before anything
//! is attached, the second beside a governed group, the third inside it. Nothing is asserted: look at
//! the ratios on a quiet machine. While it measures, the kernel's clock adds some tens of
//! nanoseconds to each run.
#![expect(clippy::print_stdout, reason = "its result is a table for a person")]
#![expect(clippy::expect_used, reason = "a failure of the set-up is the end of the measurement")]

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use egret::identify::SessionId;
use egret::redirect::cgroup::Hierarchy;
use egret::redirect::ebpf::{AgentFlags, Kernel, KernelOptions};
use egret::redirect::listener::Listeners;
use egret::redirect::netns::own_cookie;
use egret::redirect::orig_dst::flow_key;
use egret::redirect::run_time::{RunTime, measure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use std::os::fd::AsRawFd as _;

/// Connections of each client.
const CONNECTIONS: u32 = 20_000;
/// Where the governed one thinks that it connects to: TEST-NET-3 (RFC 5737).
const DIALLED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["client", address, group] => client(address, group),
        _ if !nix::unistd::geteuid().is_root() => println!("SKIPPED: it needs root"),
        _ => compare(),
    }
}

fn compare() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    egret::sys::probe::loopback_up().expect("a loopback");
    let plain = accept_all();

    let before = run_client(plain, "-");
    let kernel = Kernel::load(&KernelOptions::default()).expect("the kernel programs");
    let cgroup = Hierarchy::find().and_then(|h| h.create(&SessionId::random())).expect("a group");
    let _attachment = kernel.attach(&cgroup).expect("the programs attached");
    serve(&kernel, &cgroup);
    let _measuring = measure().expect("the kernel's measuring");

    let start = kernel.run_times().expect("run times");
    let beside = run_client(plain, "-");
    let middle = kernel.run_times().expect("run times");
    let inside = run_client((DIALLED, 80).into(), &cgroup.path().display().to_string());
    let end = kernel.run_times().expect("run times");

    println!("{CONNECTIONS} connections over loopback, each opened and closed");
    for (name, took) in [("nothing attached", before), ("ungoverned", beside), ("governed", inside)]
    {
        let each = took / CONNECTIONS;
        println!("  {name:<18} {each:>9.2?} a connection, {:.2} of the first", ratio(took, before));
    }
    table("ungoverned process", &start, &middle);
    table("governed process", &middle, &end);
}

/// A listener like egret's, whose connections are accepted and closed.
fn accept_all() -> SocketAddr {
    let listeners = Listeners::open_here().expect("listeners");
    let address = listeners.intercept_v4.local_addr().expect("its address");
    listeners.intercept_v4.set_nonblocking(false).expect("a flag");
    thread::spawn(move || while listeners.intercept_v4.accept().is_ok() {});
    address
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// Listeners in this namespace, accepted and looked up as egret does, and the lease kept.
fn serve(kernel: &Kernel, cgroup: &egret::redirect::cgroup::Cgroup) {
    let listeners = Listeners::open_here().expect("listeners");
    let netns = own_cookie().expect("a cookie");
    kernel.set_listeners(netns, cgroup.id(), listeners.ports().into()).expect("the map");
    kernel.set_agent(cgroup.id(), AgentFlags::ACTIVE).expect("the map");
    let feed = Arc::clone(kernel.feed());
    feed.beat().expect("a beat");
    let beating = Arc::clone(&feed);
    thread::spawn(move || {
        while beating.beat().is_ok() {
            thread::sleep(Duration::from_millis(500));
        }
    });
    thread::spawn(move || {
        let intercept = &listeners.intercept_v4;
        intercept.set_nonblocking(false).expect("a flag");
        while let Ok((stream, peer)) = intercept.accept() {
            if let Ok(local) = stream.local_addr() {
                let _ = feed.take_flow(&flow_key(netns, peer, local));
            }
        }
    });
}

fn run_client(to: SocketAddr, group: &str) -> Duration {
    let program = std::env::current_exe().expect("this program");
    let out =
        Command::new(program).args(["client", &to.to_string(), group]).output().expect("a client");
    let text = String::from_utf8_lossy(&out.stdout);
    let nanos = text.trim().parse().unwrap_or_else(|_| panic!("the client said {text:?}"));
    Duration::from_nanos(nanos)
}

/// Connects again and again, and prints how long it took in nanoseconds.
fn client(address: &str, group: &str) {
    if group != "-" {
        let procs = Path::new(group).join("cgroup.procs");
        std::fs::write(procs, std::process::id().to_string()).expect("the group");
    }
    let Ok(SocketAddr::V4(to)) = address.parse() else { panic!("an address: {address}") };
    let to = SockaddrIn::from(to);
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)
            .expect("a socket");
        connect(fd.as_raw_fd(), &to).expect("a connection");
        // Reset at the end, so that no port waits.
        let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&fd.as_fd(), sockopt::Linger, &reset).expect("an option");
    }
    println!("{}", start.elapsed().as_nanos());
}

fn table(title: &str, before: &[RunTime], after: &[RunTime]) {
    println!("\n{title}: the programs, by the kernel's account");
    let mut total = Duration::ZERO;
    for (b, a) in before.iter().zip(after) {
        let (runs, time) = (a.runs - b.runs, a.time.saturating_sub(b.time));
        if runs > 0 {
            let each = time / u32::try_from(runs).unwrap_or(u32::MAX);
            let share = f64::from(u32::try_from(runs).unwrap_or(u32::MAX)) / f64::from(CONNECTIONS);
            println!("  {:<16} {share:>5.2} runs a connection, {each:>9.0?} a run", a.program);
            total += time;
        }
    }
    println!("  {:<16} {:>9.0?} a connection", "together", total / CONNECTIONS);
}

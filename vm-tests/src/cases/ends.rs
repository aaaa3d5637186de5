//! What is left when egret ends: nothing when it ends by itself, a closed agent when it is
//! killed, and nothing again after the next start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Case;
use crate::fixtures::agent::{Orphans, Running, eventually, processes};
use crate::fixtures::link::Link;
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "nothing_is_left_after_a_normal_end", needs: &[], run: clean },
    Case {
        name: "killed_during_a_download_nothing_gets_out",
        needs: &[Need::Curl, Need::Python, Need::Veth],
        run: killed,
    },
    Case { name: "stopped_egret_lets_nothing_out", needs: &[Need::Python], run: stopped },
    Case {
        name: "the_next_start_sweeps_what_a_killed_one_left",
        needs: &[Need::Python],
        run: swept,
    },
];

/// The cgroup v2 folder of a process, as the host sees it.
fn cgroup(pid: Pid) -> Result<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::")).context("no cgroup v2")?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let root = mounts
        .lines()
        .filter_map(|l| l.split_once(" - "))
        .find(|(_, tail)| tail.starts_with("cgroup2 "))
        .and_then(|(head, _)| head.split(' ').nth(4))
        .context("cgroup v2 is not mounted")?;
    Ok(Path::new(root).join(path.trim_start_matches('/')))
}

/// An agent that tries to get out for as long as it lives, and its processes.
fn beating(world: &World, url: &str) -> Result<(Running, String, PathBuf)> {
    let marker = format!("{}-beat", world.name);
    let path = world.shared(&marker);
    let words = ["python3", &world.probe(), "beat", &path.display().to_string(), url];
    let running = world.egret()?.spawn(&words)?;
    eventually("the agent beats", || path.exists())?;
    Ok((running, marker, path))
}

/// The agents among the processes that carry the marker: egret carries it on its command line
/// too, and is told apart by it being our child.
fn agents(marker: &str, egret: Pid) -> Vec<Pid> {
    processes(marker).into_iter().filter(|pid| *pid != egret && !is_egret(*pid)).collect()
}

fn is_egret(pid: Pid) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|n| n == "egret"))
}

fn mounts_of(world: &World) -> Vec<String> {
    let folder = world.folder().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter(|l| l.contains(&folder)).map(str::to_owned).collect()
}

fn clean(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let marker = format!("{}-clean", world.name);
    let script = format!(": {marker}; sleep 1");
    let running = world.egret()?.spawn(&["sh", "-c", &script])?;
    eventually("the agent runs", || !agents(&marker, running.pid()).is_empty())?;
    let agent = *agents(&marker, running.pid()).first().context("the agent has gone")?;
    let folder = cgroup(agent)?;
    ensure!(folder.is_dir(), "control: {} is not there while the agent runs", folder.display());
    running.wait()?.expect(0)?;
    ensure!(!folder.exists(), "{} is left", folder.display());
    ensure!(processes(&marker).is_empty(), "processes are left: {:?}", processes(&marker));
    ensure!(mounts_of(&world).is_empty(), "mounts are left: {:?}", mounts_of(&world));
    Ok(())
}

fn killed(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let link = Link::up()?;
    let probe = world.probe();
    let marker = format!("{}-killed", world.name);
    let _orphans = Orphans(marker.clone());
    // A download, and beside it a program that tries the link directly, over and over.
    let script = format!(
        ": {marker}; (while :; do timeout 1 python3 {probe} udp {} {}; timeout 1 python3 {probe} tcp {} {}; done) & \
         curl -sS -o /dev/null https://api.test/slow; sleep 60",
        link.far4,
        link.canary4.udp.port(),
        link.far4,
        link.canary4.tcp.port(),
    );
    let mut running = world.egret()?.spawn(&["sh", "-c", &script])?;
    world.https.wait("the download flows", |u| u.streamed() > 100_000)?;
    running.signal(Signal::SIGKILL)?;
    running.wait_status()?;
    std::thread::sleep(Duration::from_secs(1));
    let (streamed, requests) = (world.https.streamed(), world.https.seen().len());
    std::thread::sleep(Duration::from_secs(3));
    ensure!(world.https.seen().len() == requests, "a request got out after egret died");
    let more = world.https.streamed() - streamed;
    ensure!(more == 0, "{more} bytes more were downloaded after egret died");
    link.must_be_silent()?;
    let reached = link.canary4.reached();
    ensure!(reached == 0, "a canary was reached {reached} times");
    world.egret()?.run(&["true"])?.expect(0)?;
    eventually("the next start ended the orphans", || processes(&marker).is_empty())
}

fn stopped(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (running, marker, path) = beating(&world, "https://api.test/beat")?;
    let _orphans = Orphans(marker);
    world.https.wait("the agent gets through", |u| !u.seen().is_empty())?;
    running.signal(Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(500));
    let before = world.https.seen().len();
    std::thread::sleep(Duration::from_secs(3));
    let after = world.https.seen().len();
    running.signal(Signal::SIGCONT)?;
    ensure!(after == before, "{} requests got out while egret was stopped", after - before);
    ensure!(path.exists(), "the agent did not run");
    world.https.wait("the agent gets through again", |u| u.seen().len() > after)
}

fn swept(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (mut running, marker, path) = beating(&world, "https://api.test/beat")?;
    let _orphans = Orphans(marker.clone());
    world.https.wait("the agent gets through", |u| !u.seen().is_empty())?;
    let agent = *agents(&marker, running.pid()).first().context("no agent is found")?;
    let folder = cgroup(agent)?;
    running.signal(Signal::SIGKILL)?;
    running.wait_status()?;
    std::thread::sleep(Duration::from_millis(500));
    let seen = world.https.seen().len();
    std::thread::sleep(Duration::from_secs(2));
    ensure!(world.https.seen().len() == seen, "requests got out after egret died");
    world.egret()?.run(&["true"])?.expect(0)?;
    eventually("no process is left", || processes(&marker).is_empty())?;
    eventually("the cgroup is gone", || !folder.exists())?;
    ensure!(mounts_of(&world).is_empty(), "mounts are left: {:?}", mounts_of(&world));
    let last = std::fs::read_to_string(&path)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(std::fs::read_to_string(&path)? == last, "the agent still runs");
    Ok(())
}

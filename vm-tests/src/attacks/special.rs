//! Attacks that are no single probe: egret stopped and killed, and started without what it needs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::batch::wrapped;
use super::judge::Outcome;
use super::scene::Scene;
use super::{Setup, Who};
use crate::fixtures::Running;
use crate::fixtures::agent::{Orphans, eventually};

/// Line 19. An agent that asks an allowed upstream, and beside it one that tries the link, over
/// and over: nothing of either gets out while egret is stopped, nor after it is killed.
pub(super) fn stopped_then_killed(scene: &Scene, who: Who) -> Result<Outcome> {
    let (world, link) = (&scene.world, &scene.side(true).link);
    let path = format!("/beat-uid{}", who.uid());
    let marker = format!("{}-attack-beat-{}", world.name, who.uid());
    let file = world.shared(&marker);
    let _orphans = Orphans(marker);
    let probe = world.probe();
    let (far, udp, tcp) = (link.far4, link.canary4.udp.port(), link.canary4.tcp.port());
    let script = format!(
        "(while :; do timeout 1 python3 {probe} udp {far} {udp}; timeout 1 python3 {probe} tcp \
         {far} {tcp}; done) >/dev/null 2>&1 & exec python3 {probe} beat {} https://api.test{path}",
        file.display(),
    );
    let egret = scene.egret(who, Setup::Plain);
    let mut running = Running::start(wrapped(scene, &egret, &["sh", "-c", &script]))?;
    let count = || scene.marks().iter().filter(|m| **m == path).count();
    eventually("the agent gets through", || count() > 0)?;
    link.forget();
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        running.signal(signal)?;
        if signal == Signal::SIGKILL {
            running.wait_status()?;
        }
        // What was on its way when the signal came has arrived.
        std::thread::sleep(Duration::from_millis(500));
        let before = count();
        std::thread::sleep(Duration::from_secs(2));
        let (more, packets) = (count() - before, link.packets());
        if more > 0 || !packets.is_empty() {
            let what = format!("after {signal}: {more} requests, packets {packets:?}");
            return Ok(Outcome::Leaked(what));
        }
        if signal == Signal::SIGSTOP {
            running.signal(Signal::SIGCONT)?;
            eventually("the agent gets through again", || count() > before)?;
        }
    }
    // The next start ends what the killed one left, so that nothing of it disturbs the others.
    Running::start(scene.egret(who, Setup::Plain).command(&["true"]))?.wait()?.expect(0)?;
    Ok(Outcome::Held)
}

/// Line 20. As root without the capabilities that loading programs needs.
pub(super) fn without_bpf(scene: &Scene, who: Who) -> Result<Outcome> {
    let words = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"];
    refuses(scene, who, &words, "bpf")
}

/// Line 20. With no cgroup v2 in sight.
pub(super) fn without_cgroup2(scene: &Scene, who: Who) -> Result<Outcome> {
    let script = "while read -r _ _ _ _ at _; do case $at in */cgroup|*/cgroup/*) umount -l $at; \
                  esac; done </proc/self/mountinfo 2>/dev/null; exec \"$@\"";
    refuses(scene, who, &["unshare", "-m", "sh", "-c", script, "sh"], "cgroup")
}

/// egret must not start anything in these surroundings, and must name what it misses.
fn refuses(scene: &Scene, who: Who, surroundings: &[&str], names: &str) -> Result<Outcome> {
    let egret = scene.egret(who, Setup::Plain);
    let agent = ["echo", "the agent ran"];
    Running::start(egret.command(&agent))?.wait()?.expect(0)?.says("the agent ran")?;
    let inner = egret.command(&agent);
    let (first, rest) = surroundings.split_first().context("a command")?;
    let mut command = Command::new(first);
    command.args(rest).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(n, v)| Some((n, v?))));
    let ended = Running::start(command)?.wait()?;
    if ended.stdout.contains("the agent ran") {
        return Ok(Outcome::Leaked(format!("egret started the agent without {names}")));
    }
    let said = ended.text().to_lowercase();
    ensure!(ended.code == 125, "code {}: {said}", ended.code);
    ensure!(said.contains(names), "it does not name {names}: {said}");
    Ok(Outcome::Held)
}

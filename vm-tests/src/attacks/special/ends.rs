//! Line 19, and the load under which egret is stopped and killed there.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::{Setup, Who};
use crate::attacks::scene::Scene;
use crate::attacks::stage::Stage;
use crate::fixtures::agent::{Orphans, eventually};
use crate::fixtures::link::Link;
use crate::fixtures::{Egret, Running};

/// An agent that asks an allowed upstream, and beside it one that tries the link, over and over.
pub(super) struct Load<'a> {
    scene: &'a Scene,
    pub(super) link: &'a Link,
    pub(super) running: Running,
    path: String,
    _orphans: Orphans,
}

impl<'a> Load<'a> {
    /// It has got through once: the control.
    pub(super) fn start(stage: &'a Stage<'a>, who: Who, what: &str) -> Result<Self> {
        let (scene, link) = (stage.scene, &stage.side().link);
        let world = &scene.world;
        let path = format!("/beat-{what}-{}-{}", stage.mode.name(), who.uid());
        let marker = format!("{}{}", world.name, path.replace('/', "-"));
        let file = world.shared(&marker);
        let orphans = Orphans(marker);
        let probe = world.probe();
        let (far, udp, tcp) = (link.far4, link.canary4.udp.port(), link.canary4.tcp.port());
        let script = format!(
            "(while :; do timeout 1 python3 {probe} udp {far} {udp}; timeout 1 python3 {probe} tcp \
             {far} {tcp}; done) >/dev/null 2>&1 & \
             exec python3 {probe} beat {} https://api.test{path}",
            file.display(),
        );
        let running = Running::start(stage.agent(who, Setup::Plain, &["sh", "-c", &script]))?;
        let load = Self { scene, link, running, path, _orphans: orphans };
        load.gets_through(0)?;
        link.forget();
        Ok(load)
    }

    /// Requests that the upstream saw.
    pub(super) fn count(&self) -> usize {
        self.scene.marks().iter().filter(|m| **m == self.path).count()
    }

    /// More requests than these arrive.
    pub(super) fn gets_through(&self, before: usize) -> Result<()> {
        eventually("the agent gets through", || self.count() > before)
    }

    /// What got out in two seconds that begin when `after` is over.
    pub(super) fn leaks(&self, event: &str, after: Duration) -> Option<Outcome> {
        // What was on its way when the signal came has arrived.
        std::thread::sleep(after);
        let before = self.count();
        std::thread::sleep(Duration::from_secs(2));
        let more = self.count() - before;
        if more > 0 {
            return Some(Outcome::Leaked(format!("after {event}: {more} requests")));
        }
        self.packets(event)
    }

    /// What has crossed the link since the beginning.
    pub(super) fn packets(&self, event: &str) -> Option<Outcome> {
        let packets = self.link.packets();
        (!packets.is_empty())
            .then(|| Outcome::Leaked(format!("after {event}: packets {packets:?}")))
    }
}

/// Nothing of the load gets out while egret is stopped, nor after it is killed.
pub(in crate::attacks) fn stopped_then_killed(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let mut load = Load::start(stage, who, "stopped")?;
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        load.running.signal(signal)?;
        if signal == Signal::SIGKILL {
            load.running.wait_status()?;
        }
        let before = load.count();
        if let Some(leak) = load.leaks(signal.as_str(), Duration::from_millis(500)) {
            return Ok(leak);
        }
        if signal == Signal::SIGSTOP {
            load.running.signal(Signal::SIGCONT)?;
            load.gets_through(before)?;
        }
    }
    drop(load);
    // The next start ends what the killed one left, so that nothing of it disturbs the others.
    Running::start(plain(stage, who).command(&["true"]))?.wait()?.expect(0)?;
    Ok(Outcome::Held)
}

/// `egret run` as it is, on the machine itself.
pub(super) fn plain<'a>(stage: &'a Stage<'a>, who: Who) -> Egret<'a> {
    let uid = who.uid();
    Egret::new(&stage.scene.world, stage.policy()).user(&format!("{uid}:{uid}"))
}

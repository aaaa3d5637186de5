//! A list of probes, run in one place as one user: one Python, one line per probe, and for each
//! what crossed the link between its beginning and the next one's.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::judge::Seen;
use super::scene::{Place, Scene};
use super::{Probe, Setup, Who};
use crate::fixtures::{Egret, Running};

/// For a whole batch on an emulated CPU.
const LIMIT: Duration = Duration::from_secs(900);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What is to be run, and where.
pub(super) struct Batch<'a> {
    pub(super) scene: &'a Scene,
    pub(super) probes: &'a [&'a Probe],
    pub(super) setup: Setup,
    pub(super) who: Who,
    pub(super) inside: bool,
}

impl Batch<'_> {
    /// Everything that was seen, by the probe's id.
    pub(super) fn run(&self) -> Result<BTreeMap<&'static str, Seen>> {
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let place = Place { inside: self.inside, who: self.who, number };
        let plan = self.plan(&place)?;
        self.scene.side(self.inside).link.forget();
        let host_before = self.scene.host.reached();
        let knocking = (self.setup == Setup::Knocked).then(|| self.scene.knock(self.inside));
        let ended = Running::start(self.command(&plan))?.wait_within(LIMIT)?;
        drop(knocking);
        let host_reached = self.scene.host.reached() > host_before;
        let mut packets = self.scene.side(self.inside).link.capture();
        if self.setup == Setup::Knocked {
            packets.clear(); // the machine's refusals to whoever knocks
        }
        let lines: Vec<Value> =
            ended.stdout.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        ensure!(
            lines.last().is_some_and(|l| l["id"] == "end"),
            "the probes did not come to their end: {}",
            ended.text()
        );
        let first = lines.first().and_then(|l| l["start"].as_f64()).unwrap_or(0.0);
        let early = packets.iter().find(|p| p.at.as_secs_f64() < first);
        ensure!(early.is_none() || !self.inside, "before the first probe: {early:?}");
        let marks = self.scene.marks();
        let mut seen = BTreeMap::new();
        for (at, probe) in self.probes.iter().enumerate() {
            let line = lines.get(at).context("a line for each probe")?;
            ensure!(line["id"] == probe.id, "{line} instead of {}", probe.id);
            let until = if at + 1 == self.probes.len() {
                f64::MAX // what comes after the last one is the last one's
            } else {
                lines[at + 1]["start"].as_f64().context("a start")?
            };
            let from = line["start"].as_f64().context("a start")?;
            let own: Vec<_> =
                packets.iter().filter(|p| (from..until).contains(&p.at.as_secs_f64())).collect();
            let text = |key: &str| line[key].as_str().unwrap_or("").to_owned();
            let mut said = text("said");
            // The client may not have heard the answer of a canary that it did reach.
            if self.inside && host_reached && probe.args.contains("$host") {
                said = "reached".into();
            }
            seen.insert(
                probe.id,
                Seen {
                    said,
                    detail: text("detail"),
                    control: line["control"] == true,
                    packets: own.iter().map(|p| p.what.clone()).collect(),
                    dns: own.iter().filter(|p| p.is_dns).count(),
                    upstream: marks.iter().any(|m| m.contains(&place.mark(probe.id))),
                },
            );
        }
        Ok(seen)
    }

    fn plan(&self, place: &Place) -> Result<String> {
        let items: Result<Vec<Value>> = self
            .probes
            .iter()
            .map(|probe| {
                let args: Result<Vec<String>> = probe
                    .args
                    .split_whitespace()
                    .map(|word| self.scene.word(word, place, probe.id))
                    .collect();
                Ok(json!({ "id": probe.id, "call": probe.call, "args": args? }))
            })
            .collect();
        let name = format!("plan-{}.json", place.number);
        let path = self.scene.world.write(&name, &Value::from(items?).to_string())?;
        Ok(path.display().to_string())
    }

    /// The probes' program, inside egret or not, in the surroundings of every run.
    fn command(&self, plan: &str) -> Command {
        let scene = self.scene;
        let runner = scene.world.path("attack.py").display().to_string();
        let (settle, patience) = (scene.settle.to_string(), scene.patience.to_string());
        let words = ["python3", &runner, plan, &settle, &patience];
        let uid = self.who.uid().to_string();
        if !self.inside {
            let mut command = around(scene, false, &uid);
            command.args(words).current_dir("/");
            command.env("ATTACK_TIMEOUT", scene.timeout.to_string());
            return command;
        }
        wrapped(scene, &scene.egret(self.who, self.setup), &words)
    }
}

/// `egret run …` in these surroundings.
pub(super) fn wrapped(scene: &Scene, egret: &Egret<'_>, words: &[&str]) -> Command {
    let inner = egret.command(words);
    let mut command = around(scene, true, "-");
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.current_dir(inner.get_current_dir().unwrap_or(Path::new("/")));
    command
}

/// A mount namespace in which the resolver is the test's, with a socket from before as fd 9.
fn around(scene: &Scene, inside: bool, uid: &str) -> Command {
    let link = &scene.side(inside).link;
    let mut command = Command::new("unshare");
    command.args(["-m", "python3"]).arg(scene.world.path("attack_around.py"));
    command.arg(scene.world.path("resolv.conf"));
    command.arg(link.far4.to_string()).arg(link.canary4.udp.port().to_string());
    command.arg(uid);
    command
}

//! A list of probes, run in one place as one user: one Python, one line per probe, and for each
//! what crossed the link between its beginning and the next one's.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::judge::Seen;
use super::kinds::{Probe, Setup, Who};
use super::scene::{Place, Scene, Where};
use super::stage::{Stage, around};
use super::visitors::{Handing, Knocking};
use super::words::Words;
use crate::fixtures::Running;

/// For a whole batch on an emulated CPU.
const LIMIT: Duration = Duration::from_secs(900);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What is to be run, and where.
pub(super) struct Batch<'a> {
    pub(super) scene: &'a Scene,
    /// Whose agent runs it, inside; outside, the daemon to aim at.
    pub(super) stage: Option<&'a Stage<'a>>,
    pub(super) probes: &'a [&'a Probe],
    pub(super) setup: Setup,
    pub(super) who: Who,
    pub(super) inside: bool,
}

impl Batch<'_> {
    /// Everything that was seen, by the probe's id.
    pub(super) fn run(&self) -> Result<BTreeMap<&'static str, Seen>> {
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let at = match self.stage {
            Some(stage) if self.inside => Where::Inside(stage.mode),
            _ => Where::Outside,
        };
        let place = Place { at, who: self.who, number };
        let plan = self.plan(&place)?;
        let link = &self.scene.side(at).link;
        link.forget();
        let host_before = self.scene.host.reached();
        let setup = |which| self.setup == which;
        let knocking = setup(Setup::Knocked).then(|| Knocking::start(self.scene, &place));
        let handing = setup(Setup::Late).then(|| Handing::start(self.scene, &place));
        let ended = Running::start(self.command(&plan))?.wait_within(LIMIT)?;
        drop((knocking, handing));
        let host_reached = self.scene.host.reached() > host_before;
        let mut packets = link.capture();
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
                    dialled: own.iter().filter(|p| !p.is_dns).map(|p| p.what.clone()).collect(),
                    upstream: marks.iter().any(|m| m.contains(&place.mark(probe.id))),
                },
            );
        }
        Ok(seen)
    }

    fn plan(&self, place: &Place) -> Result<String> {
        let words = Words { scene: self.scene, stage: self.stage, place };
        let items: Result<Vec<Value>> = self
            .probes
            .iter()
            .map(|probe| {
                let args: Result<Vec<String>> =
                    probe.args.split_whitespace().map(|word| words.word(word, probe.id)).collect();
                Ok(json!({ "id": probe.id, "call": probe.call, "args": args? }))
            })
            .collect();
        let name = format!("plan-{}.json", place.number);
        let path = self.scene.world.write(&name, &Value::from(items?).to_string())?;
        Ok(path.display().to_string())
    }

    /// The probes' program, as an agent or not, in the surroundings of every run.
    fn command(&self, plan: &str) -> Command {
        let scene = self.scene;
        let runner = scene.world.path("attack.py").display().to_string();
        let (settle, patience) = (scene.settle.to_string(), scene.patience.to_string());
        let words = ["python3", &runner, plan, &settle, &patience];
        match self.stage {
            Some(stage) if self.inside => stage.agent(self.who, self.setup, &words),
            _ => {
                let mut command = around(scene, Where::Outside);
                command.arg("--uid").arg(self.who.uid().to_string()).arg("--").args(words);
                command
            }
        }
    }
}

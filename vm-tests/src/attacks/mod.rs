//! The attack catalogue as probes that run: `egret-e2e attacks`.
//!
//! Each attack has a number and one or more probes. A probe runs ungoverned as its control, as root
//! and as an ordinary user, and then as an agent as both: of `egret run`, and attached to a
//! daemon. What it did is read off the wire (a link to a namespace of the test's own), at the
//! upstream, or from what the kernel let it do. A probe counts as held only if its control
//! succeeded in the same run.

mod batch; // a list of probes, run in one place as one user
mod catalogue; // what is tried
mod judge; // pure: from what was seen to a result
mod kinds; // pure: what the catalogue is made of
mod machine; // services and processes to aim at
mod nameserver; // the resolver that the machine and egret are given
mod policy; // what the agents may
mod scene; // what the attacks are played on
mod side; // a link with what stands at its far end
mod special; // what is no single probe: killing egret, withholding what it needs
mod stage; // one mode on the scene: how an agent is started there
mod table; // the lines, for people and for programs
mod tunnels; // servers of DNS tunnels
mod visitors; // who comes while a batch runs: knocks, and hands out sockets
mod words; // pure: the names in a probe's arguments

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use self::batch::Batch;
use self::judge::{Findings, Outcome, Seen};
use self::kinds::{Attack, Probe, Setup};
pub use self::kinds::{Mode, Who};
use self::scene::{Scene, Where};
use self::stage::Stage;
use crate::fixtures::Bench;
use crate::needs::Need;

/// What is to be played.
#[derive(Debug)]
pub struct Wanted {
    /// Lines of the catalogue; none is all.
    pub only: Vec<u8>,
    pub modes: Vec<Mode>,
    pub json: bool,
}

type Controls = BTreeMap<(Setup, Who), BTreeMap<&'static str, Seen>>;

/// Run the catalogue, or the lines that are wanted. True if nothing leaked.
pub fn run(bench: &Bench, wanted: &Wanted) -> Result<bool> {
    for need in [Need::Python, Need::Veth] {
        anyhow::ensure!(need.is_met(), "the attacks need {need:?}, which this machine lacks");
    }
    let scene = Scene::new(bench, &wanted.modes)?;
    let only = &wanted.only;
    let chosen: Vec<&Attack> =
        catalogue::all().filter(|a| only.is_empty() || only.contains(&a.number)).collect();
    let stages: Vec<Stage<'_>> = wanted
        .modes
        .iter()
        .map(|mode| Stage::open(&scene, *mode).with_context(|| format!("mode {}", mode.name())))
        .collect::<Result<_>>()?;
    let controls = play_controls(&scene, &stages, &chosen)?;
    let mut tight = true;
    for stage in &stages {
        let findings = play(stage, &chosen, &controls)
            .with_context(|| format!("mode {}", stage.mode.name()))?;
        let line = |attack: &&Attack| table::Line::of(attack, stage.mode, &findings);
        let lines: Vec<table::Line> = chosen.iter().map(line).collect();
        if wanted.json {
            lines.iter().for_each(|line| println!("{}", line.json()));
        } else {
            println!("egret {}\n{}", stage.mode.name(), table::text(&lines));
        }
        tight &= lines.iter().all(|line| !line.has_leak());
    }
    Ok(tight)
}

/// The probes that make sense in one of these modes, by their surroundings.
fn batches<'a>(
    scene: &Scene,
    chosen: &[&'a Attack],
    modes: &[Mode],
) -> Vec<(Setup, Vec<&'a Probe>)> {
    let wanted = |p: &Probe| modes.iter().any(|mode| !p.is_absent(*mode));
    Setup::ALL
        .into_iter()
        .map(|setup| {
            let all = chosen.iter().flat_map(|a| a.probes);
            let here =
                |p: &&Probe| p.setup == setup && wanted(p) && (!p.needs_ipv6 || scene.has_ipv6);
            (setup, all.filter(here).collect::<Vec<_>>())
        })
        .filter(|(_, probes)| !probes.is_empty())
        .collect()
}

/// Every probe where nothing governs it.
fn play_controls(scene: &Scene, stages: &[Stage<'_>], chosen: &[&Attack]) -> Result<Controls> {
    let attach = stages.iter().find(|s| s.mode == Mode::Attach);
    let modes: Vec<Mode> = stages.iter().map(|s| s.mode).collect();
    let mut controls = BTreeMap::new();
    scene.lead(Where::Outside)?;
    for (setup, probes) in batches(scene, chosen, &modes) {
        for who in Who::ALL {
            let batch = Batch { scene, stage: attach, probes: &probes, setup, who, inside: false };
            controls.insert((setup, who), batch.run().context("the controls")?);
        }
    }
    Ok(controls)
}

/// All probes as an agent of one mode, then the specials.
fn play(stage: &Stage<'_>, chosen: &[&Attack], controls: &Controls) -> Result<Findings> {
    let (scene, mode) = (stage.scene, stage.mode);
    let mut findings: Findings = BTreeMap::new();
    scene.lead(Where::Inside(mode))?;
    let mut specials: Vec<_> = chosen
        .iter()
        .flat_map(|a| a.specials)
        .filter(|special| special.modes.contains(&mode))
        .collect();
    if specials.iter().any(|s| s.id == special::SLOW) {
        stage.begin_slow()?;
    }
    // Its ends are collected before a daemon is killed, which would end them too.
    specials.sort_by_key(|s| s.id != special::SLOW);
    for (setup, probes) in batches(scene, chosen, &[mode]) {
        for who in Who::ALL {
            let stage = Some(stage);
            let batch = Batch { scene, stage, probes: &probes, setup, who, inside: true };
            let inside = batch.run().with_context(|| format!("inside, as {who:?}"))?;
            for probe in &probes {
                let by = if probe.by_root { Who::Root } else { who };
                let control = controls.get(&(setup, by)).and_then(|c| c.get(probe.id));
                let outcome = judge::outcome(probe, mode, who, control, inside.get(probe.id));
                findings.insert((probe.id, who), outcome);
            }
        }
    }
    for special in specials {
        for who in Who::ALL {
            let outcome = (special.run)(stage, who)
                .unwrap_or_else(|error| Outcome::Skipped(format!("control failed: {error:#}")));
            findings.insert((special.id, who), outcome);
            if let Some(daemon) = &stage.daemon {
                daemon.revive().with_context(|| format!("after {}", special.id))?;
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::catalogue;
    use super::kinds::{Known, Mode};

    #[test]
    fn the_catalogue_is_whole() {
        let numbers: Vec<u8> = catalogue::all().map(|a| a.number).collect();
        let expected: Vec<u8> = (1..=43).chain([71, 72, 79, 80]).collect();
        assert_eq!(numbers, expected);
        let ids: Vec<&str> = catalogue::all()
            .flat_map(|a| a.probes.iter().map(|p| p.id).chain(a.specials.iter().map(|s| s.id)))
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id twice");
        for attack in catalogue::all() {
            for mode in Mode::ALL {
                let has = attack.probes.iter().any(|p| !p.is_absent(mode))
                    || attack.specials.iter().any(|s| s.modes.contains(&mode))
                    || attack.not_yet.iter().any(|n| n.modes.contains(&mode));
                assert!(has, "line {} says nothing of {}", attack.number, mode.name());
            }
        }
    }

    #[test]
    fn what_is_stated_stands_in_the_document() {
        // Line breaks are the document's own affair.
        let text = include_str!("../../../SECURITY.md").replace("**", "");
        for attack in catalogue::all() {
            let known = attack.probes.iter().flat_map(|p| [p.run, p.attach]);
            let through = known.filter_map(|known| match known {
                Known::Through(_, sentence) => Some(sentence),
                Known::Holds | Known::Absent(_) => None,
            });
            for sentence in attack.stated.iter().map(|n| n.text).chain(through) {
                assert!(text.contains(sentence), "line {}: {sentence}", attack.number);
            }
        }
        assert!(text.contains(super::special::SHARED_TABLE));
    }
}

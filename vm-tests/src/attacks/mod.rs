//! The attack catalogue as probes that run: `egret-e2e attacks`.
//!
//! Each attack has a number and one or more probes. A probe runs outside egret as its control,
//! as root and as an ordinary user, and inside egret as both. What it did is read off the wire
//! (a link to a namespace of the test's own), at the upstream, or from what the kernel let it do.
//! A probe counts as held only if its control succeeded in the same run.

mod batch; // a list of probes, run in one place as one user
mod catalogue; // what is tried
mod judge; // pure: from what was seen to a result
mod machine; // services and processes to aim at
mod nameserver; // the resolver that the machine and egret are given
mod scene; // what the attacks are played on
mod special; // what is no single probe: killing egret, withholding what it needs
mod table; // the lines, for people and for programs

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use self::batch::Batch;
use self::judge::{Findings, Outcome};
use self::scene::Scene;
use crate::fixtures::Bench;
use crate::needs::Need;

/// How an agent is contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `egret run`: hooks, and namespaces of its own.
    Run,
}

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// uid 1000, without capabilities.
    User,
    /// uid 0.
    Root,
}

impl Who {
    pub const ALL: [Self; 2] = [Self::User, Self::Root];

    pub const fn uid(self) -> u32 {
        match self {
            Self::User => 1000,
            Self::Root => 0,
        }
    }
}

/// One line of the catalogue.
pub(in crate::attacks) struct Attack {
    pub(in crate::attacks) number: u8,
    pub(in crate::attacks) title: &'static str,
    pub(in crate::attacks) probes: &'static [Probe],
    pub(in crate::attacks) specials: &'static [Special],
    /// What is known to get through, each as a sentence of SECURITY.md.
    pub(in crate::attacks) stated: &'static [&'static str],
    /// What of this line has no probe.
    pub(in crate::attacks) not_yet: &'static [&'static str],
}

/// What tells that a probe got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::attacks) enum Sign {
    /// A packet crossed the link, or the canary at its end answered.
    Wire,
    /// A packet that is not a DNS message crossed the link.
    Dial,
    /// The probe could do what it is named after.
    Done,
    /// The upstream saw the probe's mark.
    Upstream,
    /// As `Done`; and the control is part of the probe, because it makes sense only inside.
    Inside,
}

/// In what surroundings a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::attacks) enum Setup {
    Plain,
    /// egret is started with `--allow-io-uring`.
    Uring,
    /// Somebody knocks at the agent's port from the far end of the link.
    Knocked,
}

/// One attempt, by a function of `probes/attack*.py`.
#[derive(Clone, Copy)]
pub(in crate::attacks) struct Probe {
    pub(in crate::attacks) id: &'static str,
    pub(in crate::attacks) call: &'static str,
    /// Separated by spaces; `$name` is replaced by the scene.
    pub(in crate::attacks) args: &'static str,
    pub(in crate::attacks) sign: Sign,
    pub(in crate::attacks) setup: Setup,
    /// The control needs root; the ordinary user could not do it anywhere.
    pub(in crate::attacks) by_root: bool,
    pub(in crate::attacks) needs_ipv6: bool,
    /// It must get through inside: what the other probes of its line do is shown to be possible.
    pub(in crate::attacks) passes: bool,
    /// For root inside it gets through, as this sentence of SECURITY.md says.
    pub(in crate::attacks) stated_for_root: Option<&'static str>,
}

/// An attack that the harness plays itself.
pub(in crate::attacks) struct Special {
    pub(in crate::attacks) id: &'static str,
    pub(in crate::attacks) run: fn(&Scene, Who) -> Result<Outcome>,
}

/// Run the catalogue, or the lines that are wanted. True if nothing leaked.
pub fn run(bench: &Bench, wanted: &[u8], json: bool) -> Result<bool> {
    for need in [Need::Python, Need::Veth] {
        anyhow::ensure!(need.is_met(), "the attacks need {need:?}, which this machine lacks");
    }
    let scene = Scene::new(bench)?;
    let chosen: Vec<&Attack> =
        catalogue::all().filter(|a| wanted.is_empty() || wanted.contains(&a.number)).collect();
    let findings = play(&scene, &chosen)?;
    let lines: Vec<table::Line> =
        chosen.iter().map(|attack| table::Line::of(attack, Mode::Run, &findings)).collect();
    if json {
        lines.iter().for_each(|line| println!("{}", line.json()));
    } else {
        print!("{}", table::text(&lines));
    }
    Ok(lines.iter().all(|line| !line.has_leak()))
}

/// All probes in all places, then the specials.
fn play(scene: &Scene, chosen: &[&Attack]) -> Result<Findings> {
    let mut findings: Findings = BTreeMap::new();
    let batches: Vec<(Setup, Vec<&Probe>)> = [Setup::Plain, Setup::Uring, Setup::Knocked]
        .into_iter()
        .map(|setup| {
            let all = chosen.iter().flat_map(|a| a.probes);
            let here = |p: &&Probe| p.setup == setup && (!p.needs_ipv6 || scene.has_ipv6);
            (setup, all.filter(here).collect::<Vec<_>>())
        })
        .filter(|(_, probes)| !probes.is_empty())
        .collect();
    let mut controls = BTreeMap::new();
    scene.lead(false)?;
    for (setup, probes) in &batches {
        for who in Who::ALL {
            let batch = Batch { scene, probes, setup: *setup, who, inside: false };
            controls.insert((*setup, who), batch.run().context("the controls")?);
        }
    }
    scene.lead(true)?;
    for (setup, probes) in &batches {
        for who in Who::ALL {
            let batch = Batch { scene, probes, setup: *setup, who, inside: true };
            let inside = batch.run().with_context(|| format!("inside, as {who:?}"))?;
            for probe in probes {
                let by = if probe.by_root { Who::Root } else { who };
                let control = controls.get(&(*setup, by)).and_then(|c| c.get(probe.id));
                let outcome = judge::outcome(probe, who, control, inside.get(probe.id));
                findings.insert((probe.id, who), outcome);
            }
        }
    }
    for special in chosen.iter().flat_map(|a| a.specials) {
        for who in Who::ALL {
            let outcome = (special.run)(scene, who)
                .unwrap_or_else(|error| Outcome::Skipped(format!("control failed: {error:#}")));
            findings.insert((special.id, who), outcome);
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::catalogue;

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
            let has = !attack.probes.is_empty()
                || !attack.specials.is_empty()
                || !attack.not_yet.is_empty();
            assert!(has, "line {} says nothing", attack.number);
        }
    }

    #[test]
    fn what_is_stated_stands_in_the_document() {
        // Line breaks are the document's own affair.
        let text = include_str!("../../../SECURITY.md").replace("**", "");
        for attack in catalogue::all() {
            let by_root = attack.probes.iter().filter_map(|p| p.stated_for_root);
            for sentence in attack.stated.iter().copied().chain(by_root) {
                assert!(text.contains(sentence), "line {}: {sentence}", attack.number);
            }
        }
    }
}

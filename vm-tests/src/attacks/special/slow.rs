//! Line 71: peers that stop in the middle, which take a minute. They begin before everything else,
//! and their ends are collected after it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::{Stage, said};
use crate::fixtures::Running;

pub(in crate::attacks) const SLOW: &str = "given-up";

/// Slow agents, one of each user.
pub(in crate::attacks) struct Slow(BTreeMap<Who, Running>);

impl Slow {
    pub(in crate::attacks) fn begin(stage: &Stage<'_>) -> Result<Self> {
        let begin = |who: Who| Running::start(stage.asking(None, who, &["slow_peers"]));
        Who::ALL.into_iter().map(|who| Ok((who, begin(who)?))).collect::<Result<_>>().map(Self)
    }
}

/// Each of them is given up within the time that SECURITY.md says, and others are served.
pub(in crate::attacks) fn slow_peers(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let slow = stage.slow().as_mut().and_then(|slow| slow.0.remove(&who));
    let slow = slow.context("the slow peers were not begun")?;
    let said = said(&slow.wait_within(Duration::from_secs(600))?)?;
    if said.kind == "done" {
        return Ok(Outcome::Leaked(said.detail));
    }
    ensure!(said.control, "{}", said.detail);
    Ok(Outcome::Held)
}

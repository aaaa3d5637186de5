//! Lines 42 and 72: floods of names and of half a request, and the memory of egret meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::{Stage, said};
use crate::fixtures::Running;
use crate::fixtures::agent::within;

/// An emulated CPU takes minutes for a flood.
const LONG: Duration = Duration::from_secs(600);

/// Names in each flood: several times what the cache of leaves holds (1024).
const NAMES: u64 = 2500;

/// Floods. The allocator takes memory in steps, so one flood alone shows nothing.
const FLOODS: usize = 5;

/// A leaf with its chain and a name of this length takes some 3 KiB: with a cache without a bound
/// every flood added more than 6 MiB. With one, at least one of them adds next to nothing.
const GROWTH: u64 = 3 << 20;

/// More names add nothing to the memory of egret.
pub(in crate::attacks) fn name_flood(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let tag = format!("names-{}-{}-", stage.mode.name(), who.uid());
    let prefix = stage.scene.world.shared(&tag).display().to_string();
    let (count, floods) = (NAMES.to_string(), FLOODS.to_string());
    let words = ["flood", "203.0.113.9:443", &count, &floods, &prefix];
    let mut running = Running::start(stage.asking(None, who, &words))?;
    let mut sizes = Vec::new();
    for flood in 0..FLOODS {
        let file = PathBuf::from(format!("{prefix}{flood}"));
        within(LONG, "a flood is over", || file.exists() || running.has_ended())?;
        if running.has_ended() {
            break;
        }
        // Connections that are being closed, and records that are being indexed.
        std::thread::sleep(Duration::from_secs(1));
        sizes.push(stage.memory(Some(&running))?);
        std::fs::write(file.with_extension("go"), "1")?;
    }
    let said = said(&running.wait_within(LONG * 2)?)?;
    ensure!(said.control && sizes.len() == FLOODS, "{}", said.detail);
    let steps = sizes.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    if said.kind == "done" || steps.min().is_none_or(|least| least > GROWTH) {
        return Ok(Outcome::Leaked(format!("{sizes:?} bytes of memory; {}", said.detail)));
    }
    Ok(Outcome::Held)
}

/// Connections, and how much of a head each leaves: just below what is refused for its size.
const HOGS: u64 = 600;
const HEAD: u64 = 60_000;

/// egret holds what it must read before it can decide, and little more.
pub(in crate::attacks) fn memory(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let world = &stage.scene.world;
    let tag = format!("hog-{}-{}", stage.mode.name(), who.uid());
    let (ready, go) = (world.shared(&format!("{tag}-ready")), world.shared(&format!("{tag}-go")));
    let (count, size) = (HOGS.to_string(), HEAD.to_string());
    let files = [ready.display().to_string(), go.display().to_string()];
    let words = ["memory_hog", &count, &size, &files[0], &files[1]];
    // What a daemon has grown to before; in a run, what egret is without any connection.
    let usual = 64 << 20;
    let before = if stage.daemon.is_some() { stage.memory(None)?.max(usual) } else { usual };
    let mut running = Running::start(stage.asking(None, who, &words))?;
    within(LONG, "the heads are there", || ready.exists() || running.has_ended())?;
    let size = stage.memory(Some(&running));
    std::fs::write(&go, "1")?;
    let said = said(&running.wait()?)?;
    let size = size?;
    // Twice the head, and what one connection costs beside it.
    let limit = before + HOGS * (2 * HEAD + (64 << 10));
    if said.kind == "done" || size > limit {
        return Ok(Outcome::Leaked(format!("{before}, then {size} bytes; {}", said.detail)));
    }
    ensure!(said.control, "{}", said.detail);
    Ok(Outcome::Held)
}

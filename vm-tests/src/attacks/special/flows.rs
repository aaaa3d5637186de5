//! Line 18: the table of flows, filled from inside.

use anyhow::{Result, ensure};

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::{Stage, said};
use crate::fixtures::Running;
use crate::fixtures::agent::eventually;

/// What does not fit fails, is recorded, and sends no packet; afterwards there is room again.
pub(in crate::attacks) fn full_table(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let link = &stage.side().link;
    link.forget();
    let before = stage.refused("flow_map_full")?;
    let found = stage.ask(None, who, &["full_table", "-"])?;
    if found.kind == "done" {
        return Ok(Outcome::Leaked(found.detail));
    }
    let packets = link.packets();
    if !packets.is_empty() {
        return Ok(Outcome::Leaked(format!("packets {packets:?}; {}", found.detail)));
    }
    ensure!(found.control, "{}", found.detail);
    ensure!(stage.refused("flow_map_full")? > before, "no record says flow_map_full");
    Ok(Outcome::Held)
}

/// What another agent meets meanwhile, as "Not promised" of SECURITY.md says it.
pub(in crate::attacks) const SHARED_TABLE: &str = "The table of connections that wait for an interceptor is one for all attached agents: one that holds 65,536 sockets in the middle of connecting makes those of the others fail, refused and recorded, until it lets go.";

/// One agent's flood must let nothing of another's out; that it refuses another is stated.
pub(in crate::attacks) fn another_while_full(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let (world, link) = (&stage.scene.world, &stage.side().link);
    let (ready, go) = (world.shared("table-is-full"), world.shared("table-may-go"));
    for file in [&ready, &go] {
        let _ = std::fs::remove_file(file);
    }
    let words = [ready.display().to_string(), go.display().to_string()];
    let another = stage.another("beside", &[])?;
    let asks = ["https", "-", "api.test", "GET", "/beside"];
    ensure!(stage.ask(Some(&another), who, &asks)?.kind == "done", "it is not served before");
    let flood = stage.asking(None, who, &["hold_table", &words[0], &words[1]]);
    let mut flood = Running::start(flood)?;
    link.forget();
    eventually("the table is full", || ready.exists() || flood.has_ended())?;
    let meanwhile = stage.ask(Some(&another), who, &asks);
    std::fs::write(&go, "1")?;
    let filled = said(&flood.wait()?)?;
    stage.dismiss(another)?;
    ensure!(filled.control, "the table did not become full: {}", filled.detail);
    let packets = link.packets();
    if !packets.is_empty() {
        return Ok(Outcome::Leaked(format!("packets {packets:?}")));
    }
    Ok(match meanwhile {
        Ok(said) if said.kind == "done" => Outcome::Held,
        Ok(said) if said.kind == "refused" => Outcome::Stated(SHARED_TABLE),
        other => Outcome::Leaked(format!("another agent is not served: {other:?}")),
    })
}

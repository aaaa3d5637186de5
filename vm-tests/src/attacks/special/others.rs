//! Lines 17 and 39: what belongs to another agent: its interceptor's ports, alive and gone, and its
//! TLS sessions.

use anyhow::{Result, bail, ensure};
use nix::unistd::Pid;

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::{Setup, Who};
use crate::attacks::stage::Stage;
use crate::fixtures::Running;
use crate::fixtures::agent::{Orphans, eventually, processes};
use crate::fixtures::netns::{listening, within_that_of};

/// The other agent may ask for forbidden.test. Its ports are dialled while it lives and when it is
/// gone.
pub(in crate::attacks) fn anothers_port(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let scene = stage.scene;
    let marker = format!("{}-another-{}-{}", scene.world.name, stage.mode.name(), who.uid());
    let another = stage.another("another", &[])?;
    let asks = ["https", "-", "forbidden.test", "GET", "/another"];
    ensure!(stage.ask(Some(&another), who, &asks)?.kind == "done", "it may not what it may");
    let script = format!(": {marker}; exec -a {marker} sleep 600");
    let command = stage.command(&another, who, Setup::Plain, &["bash", "-c", &script]);
    let _orphans = Orphans(marker.clone());
    let running = Running::start(command)?;
    let pid = its_process(&marker)?;
    let ports = interceptor_ports(stage, pid)?;
    // The control: whoever is not governed reaches them.
    let dialled = ports.clone();
    let reached = within_that_of(pid.as_raw(), move || {
        let to = |port: &&u16| std::net::TcpStream::connect(("127.0.0.1", **port)).is_ok();
        Ok(dialled.iter().filter(to).count())
    })?;
    ensure!(reached > 0, "nobody reaches {ports:?}");
    let path = format!("/stolen-{marker}");
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    let words = ["dial_ports", &list.join(","), "forbidden.test", &path];
    let alive = stage.ask(None, who, &words)?;
    drop(running);
    stage.dismiss(another)?;
    let stale = stage.ask(None, who, &words)?;
    for (said, when) in [(alive, "alive"), (stale, "gone")] {
        if said.kind == "done" {
            return Ok(Outcome::Leaked(format!("{when}: {}", said.detail)));
        }
    }
    if scene.marks().contains(&path) {
        return Ok(Outcome::Leaked("the upstream saw it".to_owned()));
    }
    Ok(Outcome::Held)
}

/// The process of the agent that carries the marker as its name; egret has it among others.
fn its_process(marker: &str) -> Result<Pid> {
    let named = || {
        processes(marker).into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(marker.as_bytes())
        })
    };
    eventually("the other agent runs", || named().is_some())?;
    match named() {
        Some(pid) => Ok(pid),
        None => bail!("the other agent is gone"),
    }
}

/// TCP ports that listen in its network namespace: in a run, the interceptor's and no others; where
/// it shares the machine's, those of the daemon's processes.
fn interceptor_ports(stage: &Stage<'_>, pid: Pid) -> Result<Vec<u16>> {
    let found = match &stage.daemon {
        Some(daemon) => daemon.ports()?,
        None => listening(pid, None)?,
    };
    ensure!(!found.is_empty(), "no port listens there");
    Ok(found)
}

/// A session that one agent was given is taken up by itself, and not by another.
pub(in crate::attacks) fn anothers_ticket(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let name = format!("session-{}-{}", stage.mode.name(), who.uid());
    let file = stage.scene.world.shared(&name).display().to_string();
    let own = stage.ask(None, who, &["own_ticket", "-", "api.test", &file])?;
    ensure!(own.control, "nobody takes a session up: {}", own.detail);
    let another = stage.another("ticket", &[])?;
    let found = stage.ask(Some(&another), who, &["anothers_ticket", "-", "api.test", &file]);
    stage.dismiss(another)?;
    let found = found?;
    if found.kind == "done" {
        return Ok(Outcome::Leaked(found.detail));
    }
    ensure!(found.control, "the other agent is not served: {}", found.detail);
    Ok(Outcome::Held)
}

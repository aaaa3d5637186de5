//! Line 19 for a daemon, under load: stopped, killed, started again, reloaded with an error; and
//! line 16, the ports of a dead one.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::ends::Load;
use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::Stage;
use crate::fixtures::agent::eventually;
use crate::fixtures::daemon::LEASE;

/// On its way when the signal came.
const MOMENT: Duration = Duration::from_millis(500);

/// The daemon stands still: when its lease is over, nothing gets out.
pub(in crate::attacks) fn daemon_stopped(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let pid = stage.the_daemon()?.pid()?;
    stopped(stage, who, pid, "SIGSTOP to the daemon")
}

/// The same for the process that meets the connections.
pub(in crate::attacks) fn interceptor_stopped(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let pid = stage.the_daemon()?.interceptor()?;
    stopped(stage, who, pid, "SIGSTOP to the interceptor")
}

fn stopped(stage: &Stage<'_>, who: Who, pid: nix::unistd::Pid, event: &str) -> Result<Outcome> {
    let load = Load::start(stage, who, "stop")?;
    kill(pid, Signal::SIGSTOP)?;
    let leak = load.leaks(event, LEASE + MOMENT);
    let before = load.count();
    kill(pid, Signal::SIGCONT)?;
    if let Some(leak) = leak {
        return Ok(leak);
    }
    load.gets_through(before)?;
    Ok(load.packets("SIGCONT").unwrap_or(Outcome::Held))
}

/// The daemon dies, as by the kernel's own hand when memory is short: nothing gets out, and the next
/// one serves the same agents.
pub(in crate::attacks) fn daemon_killed(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    ended(stage, who, Signal::SIGKILL)
}

/// The same when it ends in order, as for an update.
pub(in crate::attacks) fn daemon_restarted(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    ended(stage, who, Signal::SIGTERM)
}

fn ended(stage: &Stage<'_>, who: Who, signal: Signal) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let load = Load::start(stage, who, signal.as_str())?;
    daemon.end(signal)?;
    let leak = load.leaks(&format!("{signal} to the daemon"), MOMENT);
    let before = load.count();
    daemon.begin()?;
    if let Some(leak) = leak {
        return Ok(leak);
    }
    daemon.must_know(stage.name())?;
    load.gets_through(before)?;
    Ok(load.packets("the next start").unwrap_or(Outcome::Held))
}

/// The interceptor dies: the daemon starts another, and nothing gets out in between.
pub(in crate::attacks) fn interceptor_killed(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let load = Load::start(stage, who, "interceptor")?;
    let old = daemon.interceptor()?;
    kill(old, Signal::SIGKILL)?;
    std::thread::sleep(MOMENT);
    load.gets_through(load.count())?;
    ensure!(daemon.interceptor()? != old, "the dead interceptor is still there");
    Ok(load.packets("the interceptor's death").unwrap_or(Outcome::Held))
}

/// A configuration and a policy with errors in them change nothing.
pub(in crate::attacks) fn bad_reload(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let load = Load::start(stage, who, "reload")?;
    for file in [daemon.config.as_path(), stage.policy()] {
        let good = std::fs::read(file)?;
        // Every rule would be gone, and everything allowed, for a reader that is lenient.
        std::fs::write(file, "version = 1\nrule = \"none\"\n[[[\n")?;
        daemon.signal(Signal::SIGHUP)?;
        std::thread::sleep(Duration::from_secs(1));
        let refused = stage.ask(None, who, &["https", "-", "forbidden.test", "GET", "/reload"]);
        let served = load.gets_through(load.count());
        std::fs::write(file, good)?;
        daemon.signal(Signal::SIGHUP)?;
        if refused.is_ok_and(|said| said.kind == "done") {
            return Ok(Outcome::Leaked("forbidden.test is allowed after a bad reload".to_owned()));
        }
        if let Some(leak) = load.packets("a bad reload") {
            return Ok(leak);
        }
        served?;
        daemon.must_know(stage.name())?;
    }
    Ok(Outcome::Held)
}

/// Whoever could take a dead interceptor's ports would be the next one.
pub(in crate::attacks) fn ports_of_the_dead(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let ports = daemon.ports()?;
    ensure!(!ports.is_empty(), "the daemon listens nowhere");
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    daemon.end(Signal::SIGKILL)?;
    // The control: whoever is not governed can bind them, as soon as the interceptor has ended too.
    let network = stage.scene.machine.network_namespace();
    let control = network.within(move || {
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        eventually("somebody can bind them", || ports.iter().any(free))
    });
    let found = stage.ask(None, who, &["take_ports", &list.join(",")]);
    daemon.begin()?;
    let found = found?;
    if found.kind == "done" {
        return Ok(Outcome::Leaked(found.detail));
    }
    control?;
    Ok(Outcome::Held)
}

//! Line 20: egret started without what it needs must not start anything, and must name it.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::ends::plain;
use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::Stage;
use crate::fixtures::Running;
use crate::fixtures::agent::eventually;

/// As root without the capabilities that loading programs needs.
pub(in crate::attacks) fn without_bpf(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let words = ["setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"];
    refuses(stage, who, &words, "bpf")
}

/// With no cgroup v2 in sight.
pub(in crate::attacks) fn without_cgroup2(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let script = "while read -r _ _ _ _ at _; do case $at in */cgroup|*/cgroup/*) umount -l $at; \
                  esac; done </proc/self/mountinfo 2>/dev/null; exec \"$@\"";
    refuses(stage, who, &["unshare", "-m", "sh", "-c", script, "sh"], "cgroup")
}

fn refuses(stage: &Stage<'_>, who: Who, surroundings: &[&str], names: &str) -> Result<Outcome> {
    if stage.daemon.is_some() {
        return daemon_refuses(stage, surroundings, names);
    }
    let egret = plain(stage, who);
    let agent = ["echo", "the agent ran"];
    Running::start(egret.command(&agent))?.wait()?.expect(0)?.says("the agent ran")?;
    let ended = Running::start(around(surroundings, &egret.command(&agent))?)?.wait()?;
    if ended.stdout.contains("the agent ran") {
        return Ok(Outcome::Leaked(format!("egret started the agent without {names}")));
    }
    let said = ended.text().to_lowercase();
    ensure!(ended.code == 125, "code {}: {said}", ended.code);
    ensure!(said.contains(names), "it does not name {names}: {said}");
    Ok(Outcome::Held)
}

/// The daemon that runs is the control: it has started in the same place.
fn daemon_refuses(stage: &Stage<'_>, surroundings: &[&str], names: &str) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    daemon.status()?;
    let folder = stage.scene.world.path("run-without");
    let mut command = Command::new(&stage.scene.world.bench.egret);
    command.arg("daemon").arg("--config").arg(&daemon.config);
    command.arg("--state").arg(stage.scene.world.path("state-without"));
    command.arg("--run").arg(&folder).env("E2E_TOKEN", &stage.scene.world.secret);
    let mut running = Running::start(around(surroundings, &command)?)?;
    let socket = folder.join("control.sock");
    let ended = eventually("it ends", || running.has_ended() || socket.exists());
    if ended.is_err() || !running.has_ended() {
        return Ok(Outcome::Leaked(format!("the daemon started without {names}")));
    }
    let ended = running.wait()?;
    let said = ended.text().to_lowercase();
    ensure!(ended.code != 0 && said.contains(names), "it does not name {names}: {said}");
    Ok(Outcome::Held)
}

fn around(surroundings: &[&str], inner: &Command) -> Result<Command> {
    let (first, rest) = surroundings.split_first().context("a command")?;
    let mut command = Command::new(first);
    command.args(rest).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(n, v)| Some((n, v?))));
    Ok(command)
}

//! Line 11: sockets that are open when their group is attached.

use anyhow::{Result, bail, ensure};

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::{Stage, said};
use crate::fixtures::Running;
use crate::fixtures::agent::eventually;
use crate::fixtures::group::Group;

/// A process with open sockets is in a group that becomes an agent's: they are of no use any more.
pub(in crate::attacks) fn open_before_attach(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let (daemon, world, link) = (stage.the_daemon()?, &stage.scene.world, &stage.side().link);
    let name = format!("{}-held-{}", world.name, who.uid());
    let (ready, go) = (world.shared(&format!("{name}-ready")), world.shared(&format!("{name}-go")));
    let group = Group::new(who.uid())?;
    let mut command = stage.in_group(&group, who);
    command.arg("python3").arg(world.path("attack.py")).args(["one", "held_sockets"]);
    command.arg(link.far4.to_string()).arg(link.canary4.tcp.port().to_string());
    command.arg(link.canary4.udp.port().to_string()).arg(&ready).arg(&go);
    link.forget();
    let mut running = Running::start(command)?;
    eventually("the sockets are open", || ready.exists() || running.has_ended())?;
    ensure!(!link.packets().is_empty(), "the open sockets send nothing before either");
    daemon.attach(&name, stage.policy(), group.path())?;
    link.forget();
    std::fs::write(&go, "1")?;
    let ended = running.wait()?;
    let packets = link.packets();
    group.kill()?;
    daemon.detach(&name)?.expect(0)?;
    if !packets.is_empty() {
        return Ok(Outcome::Leaked(format!("{} packets: {packets:?}", packets.len())));
    }
    if !said(&ended)?.control {
        bail!("the TCP connection was not answered before");
    }
    Ok(Outcome::Held)
}

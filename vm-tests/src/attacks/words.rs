//! The names in a probe's arguments, each replaced by what it stands for on this scene.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

use super::scene::{Place, Scene, Where};
use super::side::{DNS2TCP, IODINE, RESOLVER};
use super::stage::Stage;
use super::tunnels::{DNS2TCP_DOMAIN, IODINE_DOMAIN};
use super::visitors;

/// What the words of one batch are about.
pub(super) struct Words<'a> {
    pub(super) scene: &'a Scene,
    /// The stage with the daemon, for words that are about it.
    pub(super) stage: Option<&'a Stage<'a>>,
    pub(super) place: &'a Place,
}

impl Words<'_> {
    /// One word of one probe's arguments.
    pub(super) fn word(&self, word: &str, id: &str) -> Result<String> {
        let Some(name) = word.strip_prefix('$') else { return Ok(word.to_owned()) };
        if let Some(host) = name.strip_prefix("dial:") {
            let inside = self.place.at != Where::Outside;
            return Ok(if inside { "-".into() } else { self.scene.upstream(host).to_string() });
        }
        if let Some(service) = name.strip_prefix("service:") {
            return self.scene.service(service.parse()?);
        }
        if let Some(kind) = name.strip_prefix("late:") {
            return visitors::late(self.scene, self.place, kind);
        }
        if let Some((host, port)) = name.split_once(':') {
            let host = self.word(&format!("${host}"), id)?;
            return Ok(format!("{host}:{}", self.word(port, id)?));
        }
        match name.strip_prefix("daemon-") {
            Some(what) => self.of_the_daemon(what),
            None => self.of_the_scene(name, id),
        }
    }

    fn of_the_scene(&self, name: &str, id: &str) -> Result<String> {
        let (scene, side) = (self.scene, self.scene.side(self.place.at));
        let link = &side.link;
        Ok(match name {
            "far4" => link.far4.to_string(),
            "far6" => link.far6.to_string(),
            "tcp4" => link.canary4.tcp.port().to_string(),
            "udp4" => link.canary4.udp.port().to_string(),
            "tcp6" => link.canary6.tcp.port().to_string(),
            "udp6" => link.canary6.udp.port().to_string(),
            "broadcast" => Ipv4Addr::from(u32::from(link.far4) + 1).to_string(),
            "dev" => link.device.clone(),
            "index" => side.index.to_string(),
            "scoped" => side.far_scoped.clone(),
            "host" => scene.host.tcp.port().to_string(),
            "hostudp" => scene.host.udp.port().to_string(),
            "local" => scene.local.tcp.port().to_string(),
            "network" => scene.machine.network_namespace().name().to_owned(),
            "knocked" => visitors::KNOCKED.to_string(),
            "resolver" => RESOLVER.to_string(),
            "iodine" => IODINE.to_string(),
            "iodine-domain" => IODINE_DOMAIN.to_owned(),
            "dns2tcp" => DNS2TCP.to_string(),
            "dns2tcp-domain" => DNS2TCP_DOMAIN.to_owned(),
            "place" => match self.place.at {
                Where::Outside => "outside".to_owned(),
                Where::Inside(_) => "inside".to_owned(),
            },
            "ports" => match self.stage.and_then(|s| s.daemon.as_ref()) {
                Some(daemon) => comma_separated(&daemon.ports()?),
                None => "all".to_owned(),
            },
            "mark" => self.place.mark(id),
            "victim" => side.victim(self.place.who).context("a victim")?.to_string(),
            "policy" => scene.policy(self.place.at).display().to_string(),
            "state" => scene.world.state().display().to_string(),
            "setuid" => scene.setuid.display().to_string(),
            "egret" => scene.world.bench.egret.display().to_string(),
            "beside-egret" => format!("{}.attack", scene.world.bench.egret.display()),
            _ => bail!("the scene has no ${name}"),
        })
    }

    fn of_the_daemon(&self, what: &str) -> Result<String> {
        let daemon = self.stage.and_then(|s| s.daemon.as_ref()).context("there is no daemon")?;
        Ok(match what {
            "run" => daemon.folder.display().to_string(),
            "pins" => daemon.folder.join("bpf").display().to_string(),
            "trust" => daemon.trust().display().to_string(),
            "state" => daemon.state.display().to_string(),
            "config" => daemon.config.display().to_string(),
            "interceptor" => daemon.interceptor()?.to_string(),
            _ => bail!("the daemon has no ${what}"),
        })
    }
}

fn comma_separated(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

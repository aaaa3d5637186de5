//! One mode on the scene: how a program becomes an agent there, and where its records are.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::kinds::{Mode, Setup, Who};
use super::policy;
use super::scene::{Scene, Where};
use super::side::Side;
use super::special::Slow;
use crate::fixtures::daemon::Daemon;
use crate::fixtures::group::Group;
use crate::fixtures::upstream::Upstream;
use crate::fixtures::{Egret, Ended, Running, agent};

/// A mode, with what it needs to run.
pub(super) struct Stage<'a> {
    pub(super) scene: &'a Scene,
    pub(super) mode: Mode,
    /// Of attach mode.
    pub(super) daemon: Option<Daemon>,
    main: Agent,
    slow: RefCell<Option<Slow>>,
}

/// Whose programs are governed: a policy by name; attached, also a group of the machine.
pub(super) struct Agent {
    pub(super) name: String,
    policy: PathBuf,
    group: Option<Group>,
}

impl<'a> Stage<'a> {
    pub(super) fn open(scene: &'a Scene, mode: Mode) -> Result<Self> {
        let daemon = match mode {
            Mode::Run => None,
            Mode::Attach => Some(Daemon::start(&scene.machine, &scene.world)?),
        };
        let policy = scene.policy(Where::Inside(mode)).to_owned();
        let main = governed(daemon.as_ref(), &scene.world.name, &policy)?;
        Ok(Self { scene, mode, daemon, main, slow: RefCell::new(None) })
    }

    pub(super) fn side(&self) -> &Side {
        self.scene.side(Where::Inside(self.mode))
    }

    /// The daemon, where there must be one.
    pub(super) fn the_daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("there is no daemon in this mode")
    }

    /// The policy of the agent that most attacks are played as.
    pub(super) fn policy(&self) -> &Path {
        &self.main.policy
    }

    /// The name of the agent that most attacks are played as.
    pub(super) fn name(&self) -> &str {
        &self.main.name
    }

    /// A command as the agent.
    pub(super) fn agent(&self, who: Who, setup: Setup, words: &[&str]) -> Command {
        self.command(&self.main, who, setup, words)
    }

    /// Another agent, with a policy of its own that allows these hosts too.
    pub(super) fn another(&self, what: &str, more: &[(&str, Upstream)]) -> Result<Agent> {
        let name = format!("{}-{what}", self.scene.world.name);
        let policy = policy::another(&self.scene.world, &name, more)?;
        governed(self.daemon.as_ref(), &name, &policy)
    }

    /// It is no agent any more.
    pub(super) fn dismiss(&self, agent: Agent) -> Result<()> {
        let Agent { name, group, .. } = agent;
        let (Some(daemon), Some(group)) = (&self.daemon, group) else { return Ok(()) };
        // Its processes end first: a group that is detached governs nobody.
        group.kill()?;
        daemon.detach(&name)?.expect(0)?;
        Ok(())
    }

    /// A command as that agent.
    pub(super) fn command(&self, agent: &Agent, who: Who, setup: Setup, words: &[&str]) -> Command {
        match (&self.daemon, &agent.group) {
            (Some(daemon), Some(group)) => self.attached(daemon, group, who, words),
            _ => self.run(agent, who, setup, words),
        }
    }

    /// `egret run …` in the surroundings of every command.
    fn run(&self, agent: &Agent, who: Who, setup: Setup, words: &[&str]) -> Command {
        let world = &self.scene.world;
        let uid = who.uid();
        let mut egret = Egret::new(world, &agent.policy).user(&format!("{uid}:{uid}"));
        if setup == Setup::Uring {
            egret = egret.option("--allow-io-uring");
        }
        let inner = egret.named(&agent.name).command(words);
        let mut command = around(self.scene, Where::Inside(self.mode));
        command.arg("--chdir").arg(world.folder()).arg("--");
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(n, v)| Some((n, v?))));
        command
    }

    /// A process of the machine that is moved into the group, in surroundings like a unit's.
    fn attached(&self, daemon: &Daemon, group: &Group, who: Who, words: &[&str]) -> Command {
        let mut command = self.in_group(group, who);
        command.args(words).env("SSL_CERT_FILE", daemon.trust());
        command
    }

    /// The same for any group, up to the words.
    pub(super) fn in_group(&self, group: &Group, who: Who) -> Command {
        let world = &self.scene.world;
        let mut command = around(self.scene, Where::Inside(self.mode));
        command.arg("--cgroup").arg(group.path()).arg("--unit").arg(world.shared(""));
        command.arg("--chdir").arg(world.folder());
        command.arg("--uid").arg(who.uid().to_string()).arg("--");
        command
    }

    /// One probe as that agent, by a function of `probes/attack*.py`.
    pub(super) fn ask(&self, agent: Option<&Agent>, who: Who, words: &[&str]) -> Result<Said> {
        let ended = Running::start(self.asking(agent, who, words))?.wait()?;
        said(&ended)
    }

    /// The command for one probe.
    pub(super) fn asking(&self, agent: Option<&Agent>, who: Who, words: &[&str]) -> Command {
        let runner = self.scene.world.path("attack.py").display().to_string();
        let words = [&["python3", &runner, "one"], words].concat();
        self.command(agent.unwrap_or(&self.main), who, Setup::Plain, &words)
    }

    /// Every record of this mode.
    pub(super) fn records(&self) -> Result<Vec<Value>> {
        match &self.daemon {
            Some(daemon) => agent::records_in(&self.scene.world.bench.egret, &daemon.state),
            None => agent::records(&self.scene.world),
        }
    }

    /// Records of the main agent with this reason.
    pub(super) fn refused(&self, reason: &str) -> Result<usize> {
        let is_it = |r: &&Value| {
            let agents = r["agent"].as_array().into_iter().flatten();
            r["reason"] == reason && agents.into_iter().any(|a| *a == self.name())
        };
        Ok(self.records()?.iter().filter(is_it).count())
    }

    /// Bytes of memory of the egret that serves the agent; in a run, that is `running`.
    pub(super) fn memory(&self, running: Option<&Running>) -> Result<u64> {
        let pid = match &self.daemon {
            Some(daemon) => daemon.interceptor()?,
            None => running.context("nothing runs")?.pid(),
        };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes << 10)
    }

    /// Begin the attacks that take a minute, to be collected at the end.
    pub(super) fn begin_slow(&self) -> Result<()> {
        *self.slow.borrow_mut() = Some(Slow::begin(self)?);
        Ok(())
    }

    pub(super) fn slow(&self) -> std::cell::RefMut<'_, Option<Slow>> {
        self.slow.borrow_mut()
    }
}

/// A group for it, attached, where there is a daemon.
fn governed(daemon: Option<&Daemon>, name: &str, policy: &Path) -> Result<Agent> {
    let mut agent = Agent { name: name.to_owned(), policy: policy.to_owned(), group: None };
    if let Some(daemon) = daemon {
        let group = Group::new(Who::User.uid())?;
        daemon.attach(name, policy, group.path())?;
        agent.group = Some(group);
    }
    Ok(agent)
}

/// The beginning of every command: the stand-in host, and a socket from before as fd 9.
pub(super) fn around(scene: &Scene, at: Where) -> Command {
    let link = &scene.side(at).link;
    let mut command = scene.machine.command("python3");
    command.arg(scene.world.path("attack_around.py"));
    command.arg("--before").arg(link.far4.to_string());
    command.arg(link.canary4.udp.port().to_string());
    command.env("ATTACK_TIMEOUT", scene.timeout.to_string());
    // The one folder that is writable in all surroundings.
    command.env("TMPDIR", scene.world.shared(""));
    command
}

/// What one probe said of itself.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) kind: String,
    pub(super) detail: String,
    pub(super) control: bool,
}

/// The last line of an output.
pub(super) fn said(ended: &Ended) -> Result<Said> {
    let line = ended.stdout.lines().rev().find_map(|l| serde_json::from_str::<Value>(l).ok());
    let Some(line) = line.filter(|l| l["said"].is_string()) else {
        bail!("the probe said nothing: {}", ended.text());
    };
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let said =
        Said { kind: text("said"), detail: text("detail"), control: line["control"] == true };
    ensure!(!["broken", "missing"].contains(&said.kind.as_str()), "{}: {}", said.kind, said.detail);
    Ok(said)
}

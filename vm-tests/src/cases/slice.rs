//! A service in agents.slice on a machine whose pid 1 is systemd, with the real daemon, from the
//! transaction that starts both to the daemon's worst days.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Case;
use super::systemd::{MACHINE, SLICE, UNITS, show, state, systemctl};
use crate::fixtures::agent::{Ended, eventually, outside};
use crate::fixtures::link::Link;
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a_service_is_enforced_whatever_happens_to_the_daemon",
        needs: NEEDS,
        run: whatever_happens,
    },
    Case { name: "a_command_in_the_slice_just_works", needs: NEEDS, run: just_works },
];

const NEEDS: &[Need] = &[Need::FreshSystemd, Need::Python, Need::Curl, Need::Veth];
const CONFIG: &str = "/etc/egret";
const BPFFS: &str = "/run/egret/bpf";

/// egret installed as an operator installs it; everything is as before when it is dropped.
struct Machine<'a> {
    bench: &'a Bench,
    world: World,
    link: Link,
    units: Vec<PathBuf>,
    _alone: std::sync::MutexGuard<'static, ()>,
}

impl<'a> Machine<'a> {
    fn new(bench: &'a Bench) -> Result<Self> {
        let alone = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let world = World::new(bench)?;
        let link = Link::up()?;
        let machine = Self { bench, world, link, units: Vec::new(), _alone: alone };
        machine.world.write("load.py", include_str!("../probes/load.py"))?;
        std::fs::create_dir_all(CONFIG)?;
        machine.policy("")?;
        let agents =
            "[[agent]]\nname = \"agents\"\nslice = \"agents.slice\"\npolicy = \"p.toml\"\n";
        std::fs::write(format!("{CONFIG}/egret.toml"), agents)?;
        let bin = bench.egret.display().to_string();
        outside(&bin, &["systemd", "install", "--bin", &bin])?.expect(0)?;
        Ok(machine)
    }

    /// The policy of the slice, with something behind it.
    fn policy(&self, more: &str) -> Result<()> {
        let http = self.world.http.address;
        let text = format!(
            "version = 1\nname = \"slice\"\n[[rule]]\nname = \"up\"\naction = \"allow\"\n\
             hosts = [\"api.test\"]\nprotocol = \"http\"\n\
             [upstream]\nresolve = {{ \"api.test\" = \"{http}\" }}\n{more}"
        );
        Ok(std::fs::write(format!("{CONFIG}/p.toml"), text)?)
    }

    /// A service that asks for ever; its counts are in the file of its name.
    fn load(&mut self, name: &str, slice: &str) -> Result<PathBuf> {
        let (program, file) = (self.world.path("load.py"), self.world.shared(name));
        let (tcp, udp) = (self.link.canary4.tcp.port(), self.link.canary4.udp.port());
        let text = format!(
            "[Service]\n{slice}ExecStart=/usr/bin/python3 {} {} http://api.test/ {} {tcp} {udp}\n",
            program.display(),
            file.display(),
            self.link.far4,
        );
        let unit = Path::new(UNITS).join(format!("{name}.service"));
        std::fs::write(&unit, text)?;
        self.units.push(unit);
        systemctl(&["daemon-reload"])?.expect(0)?;
        systemctl(&["start", &format!("{name}.service")])?.expect(0)?;
        Ok(file)
    }

    fn egret(&self, words: &[&str]) -> Result<Ended> {
        outside(&self.bench.egret.display().to_string(), words)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let egret = self.bench.egret.display().to_string();
        let run = |program: &str, words: &[&str]| {
            let _ = outside(program, words);
        };
        for unit in &self.units {
            let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
            run("systemctl", &["stop", &name]);
            let _ = std::fs::remove_file(unit);
        }
        run("systemctl", &["kill", "--signal=SIGKILL", "agents.slice"]);
        run("systemctl", &["stop", "egret.service"]);
        // Takes the slice with it, which refuses to be stopped.
        run("umount", &[BPFFS]);
        let _ = eventually("the slice to end", || state("agents.slice") != "active");
        let _ = std::fs::remove_dir(SLICE);
        run(&egret, &["systemd", "uninstall"]);
        run("systemctl", &["daemon-reload"]);
        run("systemctl", &["reset-failed"]);
        for folder in ["/run/egret", CONFIG, "/var/lib/egret"] {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// What a load has counted so far.
fn counts(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn number(counts: &Value, what: &str) -> u64 {
    counts[what].as_u64().unwrap_or(0)
}

/// Waits until the load is served again, and says what it counted meanwhile.
fn served_again(file: &Path, after: &str) -> Result<()> {
    let (before, started) = (counts(file), Instant::now());
    eventually(&format!("served again after {after}"), || {
        number(&counts(file), "served") > number(&before, "served") + 2
    })?;
    let now = counts(file);
    let more = |what: &str| number(&now, what) - number(&before, what);
    println!(
        "after {after}: served {}, refused {} in {:.1?}",
        more("served"),
        more("refused"),
        started.elapsed()
    );
    Ok(())
}

fn daemon_pid() -> Result<String> {
    let pid = show("egret.service", "MainPID")?;
    ensure!(pid != "0", "the daemon does not run");
    Ok(pid)
}

fn whatever_happens(bench: &Bench) -> Result<()> {
    let mut machine = Machine::new(bench)?;
    // The control: outside of the slice the same program reaches the canary, and the wire sees it.
    let free = machine.load("e2e-free", "")?;
    eventually("the control reaches the canary", || number(&counts(&free), "reached") > 0)?;
    eventually("the control's datagrams leave", || number(&counts(&free), "sent") > 0)?;
    systemctl(&["stop", "e2e-free.service"])?.expect(0)?;
    machine.link.must_not_be_silent("the control")?;
    std::thread::sleep(Duration::from_millis(500)); // what is on its way
    machine.link.forget();

    // One transaction, as at boot: the service pulls in the slice, the slice waits for the daemon.
    ensure!(state("egret.service") != "active", "nobody has started the daemon yet");
    let held = machine.load("e2e-load", "Slice=agents.slice\n")?;
    ensure!(state("egret.service") == "active", "the slice did not wait for the daemon");
    served_again(&held, "the start of everything")?;
    let first = machine.egret(&["status", "--json"])?.expect(0)?;
    let session = |text: &str| -> Result<String> {
        let status: Value = serde_json::from_str(text.trim())?;
        Ok(status["agents"][0]["session"].as_str().context("a session")?.to_owned())
    };
    let session_before = session(&first.stdout)?;

    let pid = daemon_pid()?;
    outside("kill", &["-9", &pid])?.expect(0)?;
    eventually("another daemon", || daemon_pid().is_ok_and(|now| now != pid))?;
    served_again(&held, "kill -9")?;
    systemctl(&["restart", "egret.service"])?.expect(0)?;
    served_again(&held, "systemctl restart")?;

    machine.policy("x =\n")?;
    systemctl(&["reload", "egret.service"])?;
    eventually("the refusal of the reload is recorded", || {
        let words = ["audit", "--json", "--last", "200", "--state", "/var/lib/egret"];
        machine.egret(&words).is_ok_and(|e| e.stdout.contains("reload_refused"))
    })?;
    served_again(&held, "a bad reload")?;
    machine.policy("")?;
    systemctl(&["reload", "egret.service"])?.expect(0)?;
    served_again(&held, "a good reload")?;

    let pid = daemon_pid()?;
    outside("kill", &["-STOP", &pid])?.expect(0)?;
    let (before, stopped) = (counts(&held), Instant::now());
    eventually("the stopped daemon's agents are refused", || {
        number(&counts(&held), "refused") > number(&before, "refused")
    })?;
    println!("after SIGSTOP: closed within {:.1?}", stopped.elapsed());
    outside("kill", &["-CONT", &pid])?.expect(0)?;
    served_again(&held, "SIGCONT")?;

    let last = counts(&held);
    println!("in all: {last}");
    ensure!(number(&last, "refused") > 0, "nothing was refused: the load was not there");
    ensure!(number(&last, "reached") == 0, "the canary was reached");
    ensure!(number(&last, "sent") == 0, "a datagram was sent");
    machine.link.must_be_silent()?;
    let after = machine.egret(&["status", "--json"])?.expect(0)?;
    ensure!(session(&after.stdout)? == session_before, "it is another agent now");
    let verify = machine.egret(&["audit", "verify", "--state", "/var/lib/egret"])?;
    ensure!(matches!(verify.code, 0 | 2), "the log: {}", verify.text());
    Ok(())
}

fn just_works(bench: &Bench) -> Result<()> {
    let machine = Machine::new(bench)?;
    systemctl(&["start", "egret.service", "agents.slice"])?.expect(0)?;
    eventually("the slice is attached", || {
        machine.egret(&["status"]).is_ok_and(|e| e.code == 0 && e.stdout.contains("agents.slice"))
    })?;
    let ask = |slice: &str, url: &str| {
        let slice = format!("--slice={slice}");
        let words = [
            "--wait",
            "--pipe",
            "--collect",
            &slice,
            "--",
            "curl",
            "--http0.9",
            "-sS",
            "-m",
            "10",
            url,
        ];
        outside("systemd-run", &words)
    };
    ask("agents.slice", "http://api.test/")?.expect(0)?;
    ensure!(machine.world.http.connections() > 0, "the upstream saw nothing");
    ask("agents.slice", "http://api.test:81/")?.says("egress_denied")?;
    let url = format!("http://{}:{}/", machine.link.far4, machine.link.canary4.tcp.port());
    ask("agents.slice", &url)?.says("egress_denied")?;
    machine.link.must_be_silent()?;
    // The control.
    ask("e2e-control.slice", &url)?.says("CANARY")?;
    // Without root, by the daemon: only a member of its group.
    let egret = machine.bench.egret.display().to_string();
    let command =
        format!("cd / && {egret} run --policy {CONFIG}/p.toml -- curl -sS http://api.test/");
    let by = |user: &str| outside("su", &[user, "-s", "/bin/sh", "-c", &command]);
    by("agent")?.expect(125)?.says("not yours to use")?;
    by("operator")?.expect(0).map(drop)
}

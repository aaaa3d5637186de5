//! The units, on a machine whose pid 1 is systemd. The daemon's part is played by programs that a
//! probe pins in its place, so these tests say what systemd does with the units and nothing about
//! the daemon.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use super::Case;
use crate::fixtures::agent::{Ended, eventually, outside};
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "units_verify", needs: &[Need::SystemdAnalyze], run: units_verify },
    Case {
        name: "the_slice_is_closed_before_the_daemon",
        needs: SYSTEMD,
        run: the_slice_is_closed_before_the_daemon,
    },
    Case {
        name: "the_guard_holds_while_systemd_reads_its_files",
        needs: SYSTEMD,
        run: the_guard_holds_while_systemd_reads_its_files,
    },
    Case {
        name: "the_slice_ends_with_its_pins",
        needs: SYSTEMD,
        run: the_slice_ends_with_its_pins,
    },
    Case {
        name: "a_held_unit_starts_when_it_is_served",
        needs: SYSTEMD,
        run: a_held_unit_starts_when_it_is_served,
    },
    Case {
        name: "a_held_unit_has_the_walls_of_a_run",
        needs: SYSTEMD,
        run: a_held_unit_has_the_walls_of_a_run,
    },
    Case { name: "the_machine_trusts_and_forgets", needs: SYSTEMD, run: trusts_and_forgets },
];

const SYSTEMD: &[Need] = &[Need::FreshSystemd, Need::Python];

pub(super) const UNITS: &str = "/etc/systemd/system";
const BPFFS: &str = "/run/egret/bpf";
pub(super) const SLICE: &str = "/sys/fs/cgroup/agents.slice";

/// Units are the machine's, and tests run side by side.
pub(super) static MACHINE: Mutex<()> = Mutex::new(());

/// egret's units installed on this machine; everything is as before when it is dropped.
struct Installed<'a> {
    bench: &'a Bench,
    world: World,
    units: Vec<PathBuf>,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Installed<'a> {
    /// Installs them with drop-ins for `e2e-held-*.service`, and makes sure that the daemon does
    /// not start: what follows is without it.
    fn new(bench: &'a Bench) -> Result<Self> {
        let alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let world = World::new(bench)?;
        let mut installed = Self { bench, world, units: Vec::new(), _alone: alone };
        installed.world.write("pins.py", include_str!("../probes/pins.py"))?;
        installed.world.write("held.py", include_str!("../probes/held.py"))?;
        installed
            .unit("egret.service.d/99-e2e.conf", "[Unit]\nConditionPathExists=/no/daemon\n")?;
        let bin = bench.egret.display().to_string();
        let words = ["systemd", "install", "--bin", &bin, "--unit", "held=e2e-held-*.service"];
        outside(&bin, &words)?.expect(0)?;
        Ok(installed)
    }

    fn unit(&mut self, name: &str, text: &str) -> Result<()> {
        let path = Path::new(UNITS).join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, text)?;
        self.units.push(path);
        systemctl(&["daemon-reload"])?.expect(0).map(drop)
    }

    /// Puts programs in the place of the daemon's, on a cgroup as well: see pins.py.
    fn pin(&self, how: &str, cgroup: Option<&str>) -> Result<()> {
        systemctl(&["start", "run-egret-bpf.mount"])?.expect(0)?;
        let program = self.world.path("pins.py").display().to_string();
        let words = ["python3", &program, BPFFS, how].into_iter().chain(cgroup);
        let words: Vec<&str> = words.collect();
        outside(words[0], &words[1..])?.expect(0).map(drop)
    }

    /// `systemd-run` in a slice, to the end.
    fn in_slice(&self, slice: &str, words: &[&str]) -> Result<Ended> {
        let slice = format!("--slice={slice}");
        let options = ["--wait", "--pipe", &slice, "--"];
        outside("systemd-run", &[&options[..], words].concat())
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let egret = self.bench.egret.display().to_string();
        let run = |program: &str, words: &[&str]| {
            let _ = outside(program, words);
        };
        run("systemctl", &["kill", "--signal=SIGKILL", "agents.slice"]);
        // Takes the slice with it, which refuses to be stopped.
        run("umount", &[BPFFS]);
        let _ = eventually("the slice to end", || state("agents.slice") != "active");
        let _ = std::fs::remove_dir(SLICE);
        run(&egret, &["systemd", "uninstall"]);
        for path in &self.units {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_dir(Path::new(UNITS).join("egret.service.d"));
        run("systemctl", &["daemon-reload"]);
        run("systemctl", &["reset-failed"]);
        let _ = std::fs::remove_dir_all("/run/egret");
    }
}

pub(super) fn systemctl(words: &[&str]) -> Result<Ended> {
    outside("systemctl", words)
}

pub(super) fn state(unit: &str) -> String {
    show(unit, "ActiveState").unwrap_or_default()
}

pub(super) fn show(unit: &str, property: &str) -> Result<String> {
    let ended = systemctl(&["show", "--value", "--property", property, unit])?.expect(0)?;
    Ok(ended.stdout.trim().to_owned())
}

const SOCKET: &[&str] = &["python3", "-c", "import socket; socket.socket(); print('made one')"];

fn units_verify(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let root = world.path("root").display().to_string();
    let bin = bench.egret.display().to_string();
    let mut words = vec!["systemd", "install", "--root", &root, "--bin", &bin];
    for unit in ["ci-*.service", "e2e.slice", "name=inst@*.service"] {
        words.extend(["--unit", unit]);
    }
    outside(&bin, &words)?.expect(0)?;
    let units = Path::new(&root).join("etc/systemd/system");
    for name in ["ci-x.service", "inst@.service"] {
        std::fs::write(units.join(name), "[Service]\nExecStart=/bin/true\nSlice=agents.slice\n")?;
    }
    std::fs::write(units.join("e2e.slice"), "[Slice]\n")?;
    let verify = |names: &[&str]| -> Result<Ended> {
        let paths: Vec<String> =
            names.iter().map(|n| units.join(n).display().to_string()).collect();
        let mut words = vec!["verify", "--man=no"];
        words.extend(paths.iter().map(String::as_str));
        outside("systemd-analyze", &words)
    };
    let own = ["egret.service", "run-egret-bpf.mount", "agents.slice", "e2e.slice"];
    let verified = verify(&[&own[..], &["ci-x.service", "inst@1.service"]].concat())?;
    let complaints: Vec<&str> =
        verified.stderr.lines().filter(|l| l.contains(&root) || l.contains("egret")).collect();
    ensure!(verified.code == 0 && complaints.is_empty(), "{}", verified.text());
    // The control: what is not right is said, of a drop-in too.
    for (file, right, wrong) in [
        ("egret.service", "OOMPolicy=", "OOMPolicie="),
        ("ci-.service.d/50-egret.conf", "BPFProgram=egress:", "BPFProgram=egres:"),
    ] {
        let path = units.join(file);
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, text.replace(right, wrong))?;
        verify(&["egret.service", "ci-x.service"])?.says(file)?;
        std::fs::write(&path, text)?;
    }
    Ok(())
}

fn the_slice_is_closed_before_the_daemon(bench: &Bench) -> Result<()> {
    let machine = Installed::new(bench)?;
    machine.in_slice("e2e-control.slice", SOCKET)?.expect(0)?.says("made one")?;
    // systemd-run itself may report success of a unit that never began.
    machine.in_slice("agents.slice", &["echo", "it ran"])?.hides("it ran")?;
    ensure!(state("agents.slice") == "inactive");
    // The mount came with the slice, and is enough for nothing.
    ensure!(show("agents.slice", "AssertResult")? == "no");

    machine.pin("refuse", None)?;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(BPFFS)?);
    ensure!(mode & 0o777 == 0o700, "the mount has mode {mode:o}");
    machine.in_slice("agents.slice", &["echo", "it ran"])?.says("it ran")?;
    ensure!(state("agents.slice") == "active", "the slice ended with its last unit");
    let closed = |slice: &str| -> Result<()> {
        machine.in_slice(slice, SOCKET)?.hides("made one")?.says("PermissionError")?;
        Ok(())
    };
    closed("agents.slice")?;
    closed("agents-below.slice")?;
    // After systemd has read its files again it has put its programs back.
    systemctl(&["daemon-reload"])?.expect(0)?;
    closed("agents.slice")?;
    // It cannot be stopped by mistake.
    let stop = systemctl(&["stop", "agents.slice"])?;
    ensure!(stop.code != 0 && state("agents.slice") == "active", "{}", stop.text());
    closed("agents.slice")
}

/// What the daemon does before it is ready: systemd takes over a cgroup that is there already, and
/// leaves the programs on it alone.
fn the_guard_holds_while_systemd_reads_its_files(bench: &Bench) -> Result<()> {
    let mut machine = Installed::new(bench)?;
    std::fs::create_dir(SLICE)?;
    let inode = || std::fs::metadata(SLICE).map(|m| std::os::unix::fs::MetadataExt::ino(&m));
    let made = inode()?;
    machine.pin("refuse", Some(SLICE))?;
    let seen = machine.world.shared("seen");
    let probe = format!(
        "import socket\nwhile True:\n  try: socket.socket().close(); now = 'open'\n  \
         except PermissionError: now = 'closed'\n  open('{}', 'a').write(now + '\\n')",
        seen.display()
    );
    let program = machine.world.write("watch.py", &probe)?;
    let text = format!(
        "[Service]\nSlice=agents.slice\nExecStart=/usr/bin/python3 {}\n",
        program.display()
    );
    machine.unit("e2e-watch.service", &text)?;
    systemctl(&["start", "e2e-watch.service"])?.expect(0)?;
    let lines = || std::fs::read_to_string(&seen).unwrap_or_default();
    for command in ["daemon-reload", "daemon-reload", "daemon-reexec"] {
        let before = lines().len();
        eventually("the probe to go on", || lines().len() > before + 100)?;
        systemctl(&[command])?.expect(0)?;
    }
    systemctl(&["restart", "e2e-watch.service"])?.expect(0)?;
    systemctl(&["stop", "e2e-watch.service"])?.expect(0)?;
    let lines = lines();
    ensure!(lines.contains("closed"), "the probe saw nothing");
    let open = lines.lines().filter(|l| *l == "open").count();
    ensure!(open == 0, "open {open} times of {}", lines.lines().count());
    ensure!(inode()? == made, "systemd made another cgroup");
    Ok(())
}

fn the_slice_ends_with_its_pins(bench: &Bench) -> Result<()> {
    let machine = Installed::new(bench)?;
    machine.pin("refuse", None)?;
    let words = ["--slice=agents.slice", "--unit=e2e-agent", "--collect", "sleep", "1000"];
    outside("systemd-run", &words)?.expect(0)?;
    ensure!(state("e2e-agent.service") == "active");
    outside("umount", &[BPFFS])?.expect(0)?;
    eventually("the agent to be stopped", || state("e2e-agent.service") != "active")?;
    eventually("the slice to end", || state("agents.slice") == "inactive")?;
    machine.in_slice("agents.slice", &["echo", "it ran"])?.hides("it ran")?;
    // New pins, and all is as it was.
    machine.pin("refuse", None)?;
    machine.in_slice("agents.slice", SOCKET)?.hides("made one")?.says("PermissionError")?;
    Ok(())
}

fn a_held_unit_starts_when_it_is_served(bench: &Bench) -> Result<()> {
    let mut machine = Installed::new(bench)?;
    let (before, main) = (machine.world.shared("before"), machine.world.shared("main"));
    let text = format!(
        "[Service]\nType=oneshot\nExecStartPre=/bin/touch {}\nExecStart=/bin/touch {}\n",
        before.display(),
        main.display()
    );
    machine.unit("e2e-held-1.service", &text)?;
    machine.unit("e2e-free.service", &text)?;
    systemctl(&["start", "e2e-free.service"])?.expect(0)?;
    for path in [&before, &main] {
        std::fs::remove_file(path).context("the control did not run")?;
    }
    let start = || systemctl(&["start", "e2e-held-1.service"]);
    let ran = || before.exists() || main.exists();

    ensure!(start()?.code != 0 && !ran(), "without programs");
    ensure!(show("e2e-held-1.service", "AssertResult")? == "no");
    machine.pin("refuse", None)?;
    let closed = start()?;
    ensure!(closed.code != 0 && !ran(), "closed, and nobody has attached: {}", closed.text());
    ensure!(state("e2e-held-1.service") == "failed", "a skipped unit looks like one that is well");
    journal_says("e2e-held-1.service", "has not attached")?;
    machine.pin("agent", None)?;
    start()?.expect(0)?;
    ensure!(before.exists() && main.exists(), "served, and it did not run");
    Ok(())
}

fn journal_says(unit: &str, what: &str) -> Result<()> {
    let ended = outside("journalctl", &["--no-pager", "-u", unit])?;
    ended.says(what).map(drop)
}

fn a_held_unit_has_the_walls_of_a_run(bench: &Bench) -> Result<()> {
    let mut machine = Installed::new(bench)?;
    machine.pin("agent", None)?;
    std::fs::create_dir_all("/run/egret/trust")?;
    std::fs::write("/run/egret/trust/bundle.pem", "held-marker\n")?;
    std::fs::create_dir_all("/run/egret/env")?;
    std::fs::write("/run/egret/env/held", "HELD_TOKEN=held-placeholder\n")?;
    let probe = machine.world.path("held.py").display().to_string();
    let common = "tcp tmp null";
    // As root every wall has something to hold; the control shows that it was there to reach.
    for (user, control, inside) in [
        (
            "root",
            "packet vsock raw bpf io_uring pins bus manager cgroups sysctl etc usr disk admin",
            "bundle variable placeholder",
        ),
        (&*bench.user, "vsock io_uring bus", "bundle variable placeholder"),
    ] {
        for (name, wanted) in [("free", control), ("held", inside)] {
            let unit = format!("e2e-{name}-{user}.service");
            let out = machine.world.shared(&unit);
            let text = format!(
                "[Service]\nType=oneshot\nUser={user}\nExecStart=/usr/bin/python3 {probe}\n\
                 StandardOutput=file:{}\n",
                out.display()
            );
            machine.unit(&unit, &text)?;
            systemctl(&["start", &unit])?.expect(0)?;
            let said = std::fs::read_to_string(&out)?;
            let works: Vec<&str> = said.split_whitespace().skip(1).collect();
            let mut expected: Vec<&str> = common.split(' ').chain(wanted.split(' ')).collect();
            let (mut works, said) = (works, said.clone());
            works.sort_unstable();
            expected.sort_unstable();
            if works != expected {
                bail!("{unit}: {said}expected {expected:?}");
            }
            let _ = std::fs::remove_dir("/tmp/held-mount");
        }
    }
    Ok(())
}

fn trusts_and_forgets(bench: &Bench) -> Result<()> {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let world = World::new(bench)?;
    let bundle = || std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt");
    let egret = |words: &[&str]| crate::fixtures::agent::egret(&world, words);
    egret(&["ca", "trust"])?.expect(0)?.says("ran update-ca-certificates")?;
    let pem = std::fs::read_to_string(world.state().join("ca/ca.pem"))?;
    ensure!(bundle()?.contains(pem.trim()), "the bundle lacks it");
    egret(&["ca", "show"])?.expect(0)?.says("egret.crt")?;
    egret(&["ca", "rotate"])?.expect(0)?.says("egret ca trust")?;
    egret(&["ca", "trust", "--remove"])?.expect(0)?;
    ensure!(!bundle()?.contains(pem.trim()), "the bundle still has it");
    ensure!(bundle()?.contains("BEGIN CERTIFICATE"), "the machine's own certificates are gone");
    Ok(())
}

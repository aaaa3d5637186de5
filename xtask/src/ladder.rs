//! `cargo xtask test`: every rung of the test ladder, cheapest first, each with its log. A rung
//! that fails does not stop the others; a rung that this machine cannot run is named.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::report::{Counts, Row, Table, counts_in, failures_in};
use crate::{attacks, build, clients, ebpf, fuzz, host, sh, tidy, vm};

/// What the command line asked for.
pub(crate) struct Wanted {
    pub(crate) no_vm: bool,
    pub(crate) only: Vec<String>,
}

/// The rungs in order, and when to use each.
const RUNGS: &[(&str, &str)] = &[
    ("fmt", "the layout of the code"),
    ("build", "the kernel programs and target/release/egret"),
    ("clippy", "the compiler's and clippy's lints, all of them errors"),
    ("tidy", "the rules of this repository"),
    ("unit", "unit, table and in-memory connection tests; no privileges"),
    ("e2e", "the real binary on this kernel; needs root and cgroup v2"),
    (
        "attacks-run",
        "the catalogue of attacks against `egret run`, compared with SECURITY.md; as e2e",
    ),
    ("attacks-attach", "the same against `egret attach`"),
    ("clients", "unmodified clients against real servers, compared with README.md; as e2e"),
    ("fuzz", "each fuzz target for ten seconds; needs a network the first time"),
    ("vm-6.1", "the end-to-end tests under Debian's kernel 6.1"),
    ("vm-6.1-attacks", "the attacks that depend on the kernel, both ways, there"),
    ("vm-6.12", "the end-to-end tests under Debian's kernel 6.12"),
    ("vm-6.12-attacks", "the attacks that depend on the kernel, both ways, there"),
];

/// Climbed only when they are named.
const ON_REQUEST: &[&str] = &["vm-6.1-attacks", "vm-6.12-attacks"];

/// One climb: where logs go, and what has been built so far.
struct Climb<'a> {
    workspace: &'a Path,
    logs: PathBuf,
    table: Table,
    /// Opened by the first VM rung; the error is kept for the others.
    lab: Option<Result<vm::Lab, String>>,
    /// Begun beside the rungs on this kernel, which mostly wait.
    fuzz: Option<fuzz::Build>,
}

/// Climb the ladder. True if nothing failed.
pub(crate) fn run(workspace: &Path, wanted: &Wanted) -> Result<bool> {
    for name in &wanted.only {
        if !RUNGS.iter().any(|(rung, _)| rung == name) {
            let known: Vec<String> =
                RUNGS.iter().map(|(rung, what)| format!("  {rung:15} {what}")).collect();
            bail!("there is no rung {name}; the rungs are\n{}", known.join("\n"));
        }
    }
    let logs = workspace.join("target/xtask/logs");
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs)?;
    host::install_clients();
    let is_wanted = |rung: &str| wanted.only.is_empty() || wanted.only.iter().any(|o| o == rung);
    if is_wanted("e2e") || is_wanted("clients") {
        clients::install_packages();
    }
    let mut climb = Climb { workspace, logs, table: Table::default(), lab: None, fuzz: None };
    for (rung, what) in RUNGS.iter().filter(|(rung, _)| is_wanted(rung)) {
        println!("── {rung}: {what}");
        let started = Instant::now();
        // Kernel programs that do not build are for the rungs to complain of.
        let is_waiting = *rung == "e2e" && host::no_e2e_here().is_none();
        if is_waiting && is_wanted("fuzz") && ebpf::build(workspace).is_ok() {
            climb.fuzz = Some(fuzz::Build::begin(workspace, &climb.logs));
        }
        let row = if wanted.no_vm && rung.starts_with("vm-") {
            Row::not_run(rung, "--no-vm was given")
        } else if wanted.only.is_empty() && ON_REQUEST.contains(rung) {
            let how = format!("a quarter of an hour on an emulated CPU: ask with --only {rung}");
            Row::not_run(rung, &how)
        } else {
            climb.rung(rung).unwrap_or_else(|error| {
                eprintln!("{error:#}");
                Row { time: started.elapsed(), ..Row::failed(rung, &format!("{error:#}")) }
            })
        };
        println!("   {:?} in {:.0?}", row.verdict, started.elapsed());
        climb.table.add(row);
    }
    Ok(climb.table.print())
}

impl Climb<'_> {
    fn rung(&mut self, rung: &str) -> Result<Row> {
        let started = Instant::now();
        match rung {
            "fmt" => self.cargo(rung, &["fmt", "--all", "--check"]),
            "clippy" => self.cargo(
                rung,
                &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            ),
            "unit" => self.cargo(rung, &["test", "--workspace", "--locked", "--no-fail-fast"]),
            "build" => {
                build::egret(self.workspace, false)?;
                Ok(self.done(rung, true, started))
            }
            "tidy" => Ok(self.done(rung, tidy::run(self.workspace)?, started)),
            "fuzz" => fuzz::rung(self.workspace, &self.logs, self.fuzz.take()),
            "e2e" => self.e2e(),
            "clients" => clients::rung(self.workspace, rung, &self.log(rung)),
            "attacks-run" => self.attacks(rung, attacks::Mode::Run),
            "attacks-attach" => self.attacks(rung, attacks::Mode::Attach),
            vm => self.vm(vm.trim_start_matches("vm-")),
        }
    }

    fn log(&self, rung: &str) -> PathBuf {
        self.logs.join(format!("{rung}.log"))
    }

    fn done(&self, rung: &str, ok: bool, started: Instant) -> Row {
        Row::new(rung, Counts::one(ok), started.elapsed(), &self.log(rung))
    }

    /// A cargo command; its test results are counted if it has any.
    fn cargo(&self, rung: &str, args: &[&str]) -> Result<Row> {
        if rung != "fmt" {
            // egret does not compile without the kernel object, which is cheap when unchanged.
            ebpf::build(self.workspace)?;
        }
        let mut command = build::cargo(self.workspace);
        command.args(args);
        self.counted(rung, &mut command, &mut |_| {})
    }

    fn counted(&self, rung: &str, command: &mut Command, see: &mut dyn FnMut(&str)) -> Result<Row> {
        let started = Instant::now();
        let log = self.log(rung);
        let ok = sh::logged(command, &log, see)?;
        let printed = std::fs::read(&log)?;
        let printed = String::from_utf8_lossy(&printed);
        let mut counts = counts_in(&printed);
        if counts == Counts::default() {
            counts = Counts::one(ok);
        } else if !ok && counts.failed == 0 {
            counts.failed = 1;
        }
        if !ok {
            println!("{}", sh::tail(&log, 40));
        }
        Ok(Row::new(rung, counts, started.elapsed(), &log).naming(failures_in(&printed)))
    }

    fn e2e(&self) -> Result<Row> {
        if let Some(why) = host::no_e2e_here() {
            return Ok(Row::not_run("e2e", &why));
        }
        let egret = build::egret(self.workspace, false)?;
        let e2e = build::e2e(self.workspace)?;
        let mut command = Command::new(e2e);
        command.arg("--egret").arg(egret);
        command.env("EGRET_POLICIES", self.workspace.join("policies"));
        self.counted("e2e", &mut command, &mut |line| println!("   {line}"))
    }

    fn attacks(&self, rung: &str, mode: attacks::Mode) -> Result<Row> {
        attacks::rung(self.workspace, rung, mode, &self.log(rung))
    }

    /// `6.1`, or `6.1-attacks`.
    fn vm(&mut self, what: &str) -> Result<Row> {
        let rung = format!("vm-{what}");
        let (series, is_attacks) = match what.split_once('-') {
            Some((series, _)) => (series, true),
            None => (what, false),
        };
        let (workspace, log) = (self.workspace, self.log(&rung));
        let egret = build::egret(workspace, false)?;
        let e2e = build::e2e(workspace)?;
        let lab =
            self.lab.get_or_insert_with(|| vm::Lab::open(workspace).map_err(|e| format!("{e:#}")));
        let lab = match lab {
            Ok(lab) => lab,
            Err(why) => return Ok(Row::not_run(&rung, why)),
        };
        if let Some(why) = lab.lacks(series) {
            return Ok(Row::not_run(&rung, &why));
        }
        if is_attacks {
            return attacks::vm_rung(workspace, &rung, lab, series, &log);
        }
        let run = lab.run(series, &egret, &e2e, &[], &mut |line| println!("   {line}"))?;
        // A guest that boots late under a loaded machine is a fact worth seeing.
        if run.boot > Duration::from_secs(120) {
            println!("   the boot took {:.0?}", run.boot);
        }
        Ok(Row::from_vm(&rung, &run))
    }
}

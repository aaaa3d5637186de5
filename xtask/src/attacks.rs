//! `cargo xtask attacks`: plays the catalogue of attacks, prints a table for each mode, and compares
//! them with those in SECURITY.md, which `--write` replaces.

mod document;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::report::{Counts, Row};
use crate::{build, host, sh, vm};
use document::{Committed, Complaint};
use table::Line;

/// How an agent is contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Run,
    Attach,
    #[default]
    Both,
}

impl Mode {
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["run"],
            Self::Attach => &["attach"],
            Self::Both => &["run", "attach"],
        }
    }
}

/// What the command line asked for.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) mode: Mode,
    pub(crate) json: bool,
    /// A kernel series to boot; none is this machine.
    pub(crate) vm: Option<String>,
    /// Lines of the catalogue; none is all.
    pub(crate) only: Vec<u8>,
    pub(crate) write: bool,
    /// Take the binaries in target/ as they are, egret's debug build among them.
    pub(crate) no_build: bool,
}

const DOCUMENT: &str = "SECURITY.md";

/// The lines that depend on the kernel: sockets, cgroups, namespaces, DNS as it is redirected, and
/// the control socket. The rest is the same program on every kernel, and an emulated CPU is slow:
/// `cargo xtask attacks --vm 6.1` plays all of it.
const KERNEL_LINES: &[u8] =
    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 21, 22, 23, 79, 80];

/// Build, play, print, compare. True if nothing is worse than the document says.
pub(crate) fn run(workspace: &Path, wanted: &Wanted) -> Result<bool> {
    ensure!(
        !wanted.write || wanted.only.is_empty(),
        "--write replaces whole tables: leave --only out"
    );
    let objects = match &wanted.vm {
        Some(series) => in_vm(&vm::Lab::open(workspace)?, workspace, series, wanted)?,
        None => here(workspace, wanted)?,
    };
    let lines = lines(&objects)?;
    if wanted.json {
        objects.iter().for_each(|object| println!("{object}"));
    } else {
        print!("{}", table::text(&lines));
    }
    let kernel = wanted.vm.clone().map_or_else(series, Ok)?;
    let path = workspace.join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if wanted.write {
        std::fs::write(&path, document::replaced(&document, &lines, &kernel)?)?;
        eprintln!("{DOCUMENT} has the new tables of Linux {kernel}");
        return Ok(lines.iter().all(|l| !l.has_leak()));
    }
    let complaints = compare(&Committed::read(&document)?, &kernel, wanted, &lines);
    complaints.iter().for_each(|complaint| eprintln!("{}", complaint.text));
    Ok(complaints.is_empty())
}

fn compare(before: &Committed, kernel: &str, wanted: &Wanted, lines: &[Line]) -> Vec<Complaint> {
    let mut complaints = before.compare(kernel, lines);
    complaints.extend(before.not_played(kernel, wanted.mode.names(), lines));
    complaints
}

/// A rung of the ladder: one mode on this machine, with its counts.
pub(crate) fn rung(workspace: &Path, name: &str, mode: Mode, log: &Path) -> Result<Row> {
    if let Some(why) = host::no_e2e_here() {
        return Ok(Row::not_run(name, &why));
    }
    let wanted = Wanted { mode, ..Wanted::default() };
    climb(workspace, name, &series()?, &wanted, log, &|wanted| here(workspace, wanted))
}

/// A rung of the ladder: both modes on another kernel, the lines that depend on it.
pub(crate) fn vm_rung(
    workspace: &Path,
    name: &str,
    lab: &vm::Lab,
    series: &str,
    log: &Path,
) -> Result<Row> {
    let wanted = Wanted { only: KERNEL_LINES.to_vec(), ..Wanted::default() };
    let play = |wanted: &Wanted| in_vm(lab, workspace, series, wanted);
    climb(workspace, name, series, &wanted, log, &play)
}

fn climb(
    workspace: &Path,
    name: &str,
    kernel: &str,
    wanted: &Wanted,
    log: &Path,
    play: &dyn Fn(&Wanted) -> Result<Vec<Value>>,
) -> Result<Row> {
    let started = Instant::now();
    let document = std::fs::read_to_string(workspace.join(DOCUMENT))?;
    let committed = Committed::read(&document)?;
    let mut lines = lines(&play(wanted)?)?;
    let mut complaints = compare(&committed, kernel, wanted, &lines);
    // On a busy machine a control can come too late, which skips its probe. A leak is never tried
    // again.
    let again: Vec<u8> = complaints.iter().filter_map(|c| u8::try_from(c.line?).ok()).collect();
    if !again.is_empty() && !lines.iter().any(Line::has_leak) {
        let texts: Vec<&str> = complaints.iter().map(|c| c.text.as_str()).collect();
        println!("   once more, for: {}", texts.join("; "));
        let second = self::lines(&play(&Wanted { only: again, ..wanted.clone() })?)?;
        for line in &mut lines {
            let same = |l: &&Line| (l.number, &l.mode) == (line.number, &line.mode);
            if let Some(new) = second.iter().find(same) {
                *line = new.clone();
            }
        }
        complaints = compare(&committed, kernel, wanted, &lines);
    }
    let meant: Vec<u64> = complaints.iter().filter_map(|c| c.line).collect();
    let texts: Vec<String> = complaints.into_iter().map(|c| c.text).collect();
    std::fs::write(log, format!("{}\n{}\n", table::text(&lines), texts.join("\n")))?;
    texts.iter().for_each(|text| println!("   {text}"));
    let (held, skipped) = table::sums(lines.iter());
    let counts = Counts { passed: held, failed: u32::try_from(texts.len())?, skipped };
    let is_meant = |line: &&Line| meant.contains(&line.number);
    let failures = texts.into_iter().chain(lines.iter().filter(is_meant).flat_map(Line::remarked));
    Ok(Row::new(name, counts, started.elapsed(), log).naming(failures.collect()))
}

fn lines(objects: &[Value]) -> Result<Vec<Line>> {
    let lines: Vec<Line> = objects.iter().map(Line::read).collect::<Result<_>>()?;
    ensure!(!lines.is_empty(), "the attacks printed no line");
    Ok(lines)
}

/// The running kernel's series, such as 6.18.
fn series() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.trim().split('.');
    let major = numbers.next().context("the kernel's release is empty")?;
    let minor = numbers.next().context("the kernel's release has one number")?;
    Ok(format!("{major}.{minor}"))
}

fn arguments(wanted: &Wanted) -> Vec<String> {
    let mode = match wanted.mode.names() {
        [one] => one,
        _ => "both",
    };
    let mut args = ["attacks", "--json", "--mode", mode].map(str::to_owned).to_vec();
    if !wanted.only.is_empty() {
        let numbers: Vec<String> = wanted.only.iter().map(u8::to_string).collect();
        args.extend(["--only".to_owned(), numbers.join(",")]);
    }
    args
}

fn binaries(workspace: &Path, wanted: &Wanted, egret: &str) -> Result<(PathBuf, PathBuf)> {
    if wanted.no_build {
        return Ok((workspace.join(egret), workspace.join("target/debug/egret-e2e")));
    }
    Ok((build::egret(workspace, false)?, build::e2e(workspace)?))
}

fn here(workspace: &Path, wanted: &Wanted) -> Result<Vec<Value>> {
    if let Some(why) = host::no_e2e_here() {
        bail!("the attacks cannot run here ({why}); `--vm 6.12` runs them in a VM");
    }
    host::install_clients();
    let (egret, e2e) = binaries(workspace, wanted, "target/debug/egret")?;
    let mut command = Command::new(e2e);
    command.args(arguments(wanted)).arg("--egret").arg(egret).stdin(Stdio::null());
    command.stderr(Stdio::inherit());
    // A leak is its failure too; the table tells which.
    let out = command.output().with_context(|| sh::line(&command))?;
    let objects = objects(&String::from_utf8_lossy(&out.stdout));
    ensure!(!objects.is_empty(), "`{}` ended with {}", sh::line(&command), out.status);
    Ok(objects)
}

fn in_vm(lab: &vm::Lab, workspace: &Path, series: &str, wanted: &Wanted) -> Result<Vec<Value>> {
    let (egret, e2e) = binaries(workspace, wanted, "target/release/egret")?;
    let mut printed = String::new();
    let mut see = |line: &str| {
        if !line.starts_with('{') {
            eprintln!("{line}");
        }
        printed += line;
        printed += "\n";
    };
    lab.run(series, &egret, &e2e, &arguments(wanted), &mut see)?;
    Ok(objects(&printed))
}

/// The lines that are objects with a number of the catalogue.
fn objects(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|l| serde_json::from_str::<Value>(l.trim()).ok())
        .filter(|v| v["line"].is_u64())
        .collect()
}

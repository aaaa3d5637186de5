//! `cargo xtask attacks`: plays the catalogue of attacks, prints one table, and compares it with
//! the one in SECURITY.md, which `--write` replaces.

mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::report::{Counts, Row};
use crate::{build, host, sh, vm};
use table::Line;

/// What the command line asked for.
#[derive(Default)]
pub(crate) struct Wanted {
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

/// Build, play, print, compare. True if nothing is worse than the document says.
pub(crate) fn run(workspace: &Path, wanted: &Wanted) -> Result<bool> {
    ensure!(
        !wanted.write || (wanted.only.is_empty() && wanted.vm.is_none()),
        "--write replaces the whole table by that of this machine: leave --only and --vm out"
    );
    let objects = match &wanted.vm {
        Some(series) => in_vm(workspace, series, wanted)?,
        None => here(workspace, wanted)?,
    };
    let lines: Vec<Line> = objects.iter().map(Line::read).collect::<Result<_>>()?;
    ensure!(!lines.is_empty(), "the attacks printed no line");
    if wanted.json {
        objects.iter().for_each(|object| println!("{object}"));
    } else {
        print!("{}", table::text(&lines));
    }
    let path = workspace.join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if wanted.write {
        std::fs::write(&path, table::replaced(&document, &lines, &series()?)?)?;
        eprintln!("{DOCUMENT} has the new table");
        return Ok(lines.iter().all(|l| !l.has_leak()));
    }
    let strict = wanted.vm.is_none() && is_of_this_kernel(&document);
    let complaints = table::compare(&lines, &table::committed(&document)?, strict);
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    Ok(complaints.is_empty())
}

/// The rung of the ladder: on this machine, with its counts.
pub(crate) fn rung(workspace: &Path, log: &Path) -> Result<Row> {
    if let Some(why) = host::no_e2e_here() {
        return Ok(Row::not_run("attacks", &why));
    }
    let started = Instant::now();
    let document = std::fs::read_to_string(workspace.join(DOCUMENT))?;
    let committed = table::committed(&document)?;
    let strict = is_of_this_kernel(&document);
    let play = || -> Result<(Vec<Line>, Vec<String>)> {
        let objects = here(workspace, &Wanted::default())?;
        let lines: Vec<Line> = objects.iter().map(Line::read).collect::<Result<_>>()?;
        let complaints = table::compare(&lines, &committed, strict);
        Ok((lines, complaints))
    };
    let (mut lines, mut complaints) = play()?;
    // On a busy machine a control can come too late, which skips its probe. A leak is never tried
    // again.
    if !complaints.is_empty() && !lines.iter().any(Line::has_leak) {
        println!("   once more, for: {}", complaints.join("; "));
        (lines, complaints) = play()?;
    }
    std::fs::write(log, format!("{}\n{}\n", table::text(&lines), complaints.join("\n")))?;
    complaints.iter().for_each(|complaint| println!("   {complaint}"));
    let (held, skipped) = table::sums(&lines);
    let failed = u32::try_from(complaints.len())?;
    Ok(Row::new("attacks", Counts { passed: held, failed, skipped }, started.elapsed(), log))
}

/// Whether the table in the document was made on a kernel like this one. Another kernel lacks other
/// things, so there only leaks are compared.
fn is_of_this_kernel(document: &str) -> bool {
    series().is_ok_and(|series| document.contains(&format!("On Linux {series}, by")))
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
    let mut args = vec!["attacks".to_owned(), "--json".to_owned()];
    if !wanted.only.is_empty() {
        let numbers: Vec<String> = wanted.only.iter().map(u8::to_string).collect();
        args.extend(["--only".to_owned(), numbers.join(",")]);
    }
    args
}

fn here(workspace: &Path, wanted: &Wanted) -> Result<Vec<Value>> {
    if let Some(why) = host::no_e2e_here() {
        bail!("the attacks cannot run here ({why}); `--vm 6.12` runs them in a VM");
    }
    host::install_clients();
    let (egret, e2e) = if wanted.no_build {
        (workspace.join("target/debug/egret"), workspace.join("target/debug/egret-e2e"))
    } else {
        (build::egret(workspace, false)?, build::e2e(workspace)?)
    };
    let mut command = Command::new(e2e);
    command.args(arguments(wanted)).arg("--egret").arg(egret).stdin(Stdio::null());
    command.stderr(Stdio::inherit());
    // A leak is its failure too; the table tells which.
    let out = command.output().with_context(|| sh::line(&command))?;
    let objects = objects(&String::from_utf8_lossy(&out.stdout));
    ensure!(!objects.is_empty(), "`{}` ended with {}", sh::line(&command), out.status);
    Ok(objects)
}

fn in_vm(workspace: &Path, series: &str, wanted: &Wanted) -> Result<Vec<Value>> {
    let (egret, e2e) = if wanted.no_build {
        (workspace.join("target/release/egret"), workspace.join("target/debug/egret-e2e"))
    } else {
        (build::egret(workspace, false)?, build::e2e(workspace)?)
    };
    let lab = vm::Lab::open(workspace)?;
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

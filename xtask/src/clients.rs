//! `cargo xtask clients`: installs unmodified clients, lets `egret-e2e clients` play each of them under
//! `egret run`, prints one table and compares it with the one in README.md, which `--write` replaces.

mod install;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::report::{Counts, Row};
use crate::{build, host, sh};
use table::{Asked, Line};

/// What the command line asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) only: Vec<String>,
    pub(crate) json: bool,
    pub(crate) write: bool,
    /// Install what is missing: as root from Debian's packages, the rest below target/.
    pub(crate) install: bool,
}

const DOCUMENT: &str = "README.md";

/// Build, install, play, print, compare. True if no client is worse than the document says.
pub(crate) fn run(workspace: &Path, wanted: &Wanted) -> Result<bool> {
    ensure!(
        !wanted.write || wanted.only.is_empty(),
        "--write replaces the whole table: leave --only out"
    );
    if let Some(why) = host::no_e2e_here() {
        anyhow::bail!("the clients run under `egret run` on this kernel: {why}");
    }
    let tools = tools(workspace, wanted.install)?;
    let mut command = command(workspace, &tools, &wanted.only)?;
    let output = command.stderr(Stdio::inherit()).output()?;
    let lines = table::lines(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(!lines.is_empty(), "no client was played");
    if wanted.json {
        print!("{}", String::from_utf8_lossy(&output.stdout));
    } else {
        print!("{}", table::text(&lines));
    }
    let path = workspace.join(DOCUMENT);
    let document = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if wanted.write {
        ensure!(
            lines.iter().all(Line::works),
            "only a whole table of clients that work is written"
        );
        std::fs::write(&path, table::replaced(&document, &lines)?)?;
        eprintln!("{DOCUMENT} has the new table");
        return Ok(true);
    }
    let asked = Asked { all: wanted.only.is_empty(), install: wanted.install };
    let complaints = table::compare(&document, &lines, asked)?;
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    Ok(complaints.is_empty())
}

/// Continuous integration has its machine for itself; a person's gets what is below target/.
fn may_install() -> bool {
    std::env::var_os("CI").is_some()
}

/// Packages of the matrix that the end-to-end tests use too, where they are installed at all.
pub(crate) fn install_packages() {
    if may_install() {
        host::install(install::DEBIAN);
    }
}

/// A rung of the ladder. What is not installed counts as skipped, by name.
pub(crate) fn rung(workspace: &Path, name: &str, log: &Path) -> Result<Row> {
    if let Some(why) = host::no_e2e_here() {
        return Ok(Row::not_run(name, &why));
    }
    let started = Instant::now();
    let install = may_install();
    let tools = tools(workspace, install)?;
    let mut printed = String::new();
    sh::logged(&mut command(workspace, &tools, &[])?, log, |line| {
        printed.push_str(line);
        printed.push('\n');
    })?;
    let lines = table::lines(&printed)?;
    print!("{}", table::text(&lines));
    let document = std::fs::read_to_string(workspace.join(DOCUMENT))?;
    let complaints = table::compare(&document, &lines, Asked { all: true, install })?;
    complaints.iter().for_each(|complaint| println!("   {complaint}"));
    let missing = lines.iter().filter(|l| l.is_missing()).count();
    let works = lines.iter().filter(|l| l.works()).count();
    let counts = Counts::of(works, complaints.len(), missing);
    Ok(Row::new(name, counts, started.elapsed(), log).naming(complaints))
}

/// The folder of what was installed, with what can be had.
fn tools(workspace: &Path, install: bool) -> Result<PathBuf> {
    let tools = workspace.join("target/clients");
    std::fs::create_dir_all(&tools)?;
    if install {
        host::install(install::DEBIAN);
        install::below(workspace, &tools);
    }
    Ok(tools)
}

fn command(workspace: &Path, tools: &Path, only: &[String]) -> Result<Command> {
    let egret = build::egret(workspace, false)?;
    let mut command = Command::new(build::e2e(workspace)?);
    command.arg("--egret").arg(egret).arg("clients").arg("--tools").arg(tools);
    if let Some(cargo) = install::real_cargo() {
        command.arg("--cargo").arg(cargo);
    }
    for name in only {
        command.arg("--only").arg(name);
    }
    Ok(command)
}

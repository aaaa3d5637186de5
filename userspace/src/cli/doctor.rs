//! `egret doctor`: what this machine lets egret promise, and what to do about the rest.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use super::check::count;
use super::output::{Colour, Style, json_line, table};
use crate::doctor::judge::AS_ROOT;
use crate::doctor::{Finding, Report, Run, Status, examine};

const HELP: &str = "\
Examples:
  sudo egret doctor
  sudo egret doctor --json | jq -r '.findings[] | select(.status != \"ok\") | .id'

Features of the kernel are tried, not concluded from its version: as root, doctor loads egret's
programs, attaches them to a cgroup of its own, proves that each hook fires, and takes everything
away again. Nothing that runs is touched.

Exit status: 0 nothing fails (there may be warnings), 1 something fails: `egret run` does not start
or a promise does not hold, 2 nothing fails but something that `egret run` needs could not be
probed.";

/// Probe what egret depends on, and say what each finding means for its promises (P1 to P10 in
/// SECURITY.md).
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Say of everything what it means, not only of what is not ok.
    #[arg(long, short, conflicts_with = "json")]
    verbose: bool,
}

/// Probes and prints.
pub(crate) fn run(args: &Args, state: &Path) -> ExitCode {
    let report = examine(state);
    let mut out = io::stdout().lock();
    // A reader that has gone away does not change what was found.
    let _ = if args.json {
        json_line(&mut out, &report)
    } else {
        print(&mut out, Style::stdout(), &report, args.verbose)
    };
    ExitCode::from(report.exit_code())
}

fn print(out: &mut dyn Write, style: Style, report: &Report, verbose: bool) -> io::Result<()> {
    writeln!(out, "egret {} on {}\n", report.version, style.paint(Colour::Plain, &report.kernel))?;
    let rows: Vec<_> = report
        .findings
        .iter()
        .map(|f| {
            let (colour, word) = shown(f.status);
            let name = (Colour::Plain, f.name.to_owned());
            vec![(colour, word.to_owned()), name, (Colour::Plain, f.found.clone())]
        })
        .collect();
    table(out, style, &[], &rows)?;
    // What only root may look at has one thing in common: one line says it.
    let (for_root, others): (Vec<_>, Vec<_>) =
        report.findings.iter().partition(|f| !verbose && f.fix.as_deref() == Some(AS_ROOT));
    for finding in others.into_iter().filter(|f| verbose || f.status != Status::Ok) {
        explain(out, style, finding)?;
    }
    if !for_root.is_empty() {
        let names: Vec<_> = for_root.iter().map(|f| f.name).collect();
        let unknown = style.paint(Colour::Dim, "unknown");
        writeln!(out, "\n{unknown} without root: {}\n  to do   {AS_ROOT}", names.join(", "))?;
    }
    conclude(out, style, report)
}

fn shown(status: Status) -> (Colour, &'static str) {
    match status {
        Status::Ok => (Colour::Green, "ok"),
        Status::Warn => (Colour::Yellow, "warn"),
        Status::Unknown => (Colour::Dim, "unknown"),
        Status::Fail => (Colour::Red, "FAIL"),
    }
}

fn explain(out: &mut dyn Write, style: Style, f: &Finding) -> io::Result<()> {
    let (colour, word) = shown(f.status);
    let promises: Vec<String> = f.promises.iter().map(|p| format!("{p:?}")).collect();
    let name = style.paint(Colour::Bold, f.name);
    writeln!(out, "\n{} {name} ({})", style.paint(colour, word), promises.join(", "))?;
    writeln!(out, "  found   {}", style.paint(Colour::Plain, &f.found))?;
    writeln!(out, "  means   {}", style.paint(Colour::Plain, &f.meaning))?;
    if let Some(fix) = &f.fix {
        writeln!(out, "  to do   {}", style.paint(Colour::Plain, fix))?;
    }
    Ok(())
}

fn conclude(out: &mut dyn Write, style: Style, report: &Report) -> io::Result<()> {
    let (colour, text) = match report.run {
        Run::Possible => (Colour::Green, "`egret run` can start here"),
        Run::Impossible => (Colour::Red, "`egret run` cannot start here"),
        Run::Unknown => (Colour::Yellow, "whether `egret run` can start here is not known"),
    };
    let [fail, unknown, warn] =
        [Status::Fail, Status::Unknown, Status::Warn].map(|s| report.count(s));
    let text = style.paint(colour, text);
    writeln!(out, "\n{text}: {fail} failed, {unknown} not probed, {}", count(warn, "warning"))
}

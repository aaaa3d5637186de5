//! `egret audit`: search, follow, verify, export and count what was recorded.

mod show;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Subcommand, ValueEnum};

pub(super) use show::summary as print_summary;

use super::output::{Colour, Style, json_line};
use crate::audit::query::{Filter, Reader, parse_since};
use crate::audit::verify::{Condition, Report, verify};
use crate::audit::{Layout, Summary, Timestamp, search};
use crate::outcome::Decision;

/// How often `--follow` looks for new records.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  egret audit --last 20                     the latest records
  egret audit --decision deny --since 1h    what was refused in the last hour
  egret audit --host '*.github.com' --json  one JSON object per line
  egret audit --follow                      records as they are written
  egret audit verify                        is the log complete and unchanged?";

const VERIFY_HELP: &str = "\
Exit codes: 0 intact, 1 tampered, 2 torn tail (an unfinished record of a killed writer),
3 unreadable, 4 shorter than a checkpoint.

Examples:
  egret audit verify
  cp /var/lib/egret/checkpoints/index.jsonl /safe/place     (from time to time)
  egret audit verify --checkpoint /safe/place/index.jsonl";

/// Show, follow, verify and export the audit log.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Keep printing records as they are written.
    #[arg(long)]
    follow: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check offline that no record was changed, removed or reordered.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// Checkpoints that were kept elsewhere; the log must contain them.
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The folder to which checkpoints are written.
        #[arg(long, value_name = "DIR")]
        checkpoints: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Print every record exactly as it was written.
    #[command(after_help = "Examples:\n  egret audit export > audit.jsonl\n  \
                            egret audit export --format csv --since 1d > today.csv")]
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
    },
    /// Count what was allowed and refused, by host and reason.
    #[command(after_help = "Examples:\n  egret audit report --since 1d\n  \
                            egret audit report --agent triage --json")]
    Report {
        #[command(flatten)]
        filter: FilterArgs,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, Default, clap::Args)]
struct FilterArgs {
    /// Any name of an agent's chain.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// A host or address; `*.x` is any name below x.
    #[arg(long)]
    host: Option<String>,
    #[arg(long, value_parser = decision, value_name = "allow|deny|ask|would_deny|note")]
    decision: Option<Decision>,
    /// RFC 3339, a date, or a distance: 90s, 10m, 2h, 1d.
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only the latest N.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl From<FilterArgs> for Filter {
    fn from(a: FilterArgs) -> Self {
        let FilterArgs { agent, session, host, decision, since, last } = a;
        Self { agent, session, host, decision, since, last }
    }
}

fn decision(text: &str) -> Result<Decision, String> {
    let all = [Decision::Allow, Decision::Deny, Decision::Ask, Decision::WouldDeny, Decision::Note];
    all.into_iter()
        .find(|d| d.as_str() == text.replace('-', "_"))
        .ok_or_else(|| "expected allow, deny, ask, would_deny or note".to_owned())
}

fn since(text: &str) -> Result<Timestamp, String> {
    parse_since(text, Timestamp::from_system(SystemTime::now()))
        .ok_or_else(|| "expected RFC 3339, a date, or a distance such as 10m, 2h or 1d".to_owned())
}

/// Runs `egret audit` on the log below the state folder `state`.
pub(crate) fn run(args: Args, state: &Path) -> ExitCode {
    let layout = Layout::new(state, None);
    let mut out = BufWriter::new(io::stdout().lock());
    let result = match args.command {
        None => list(&layout, &args.filter.into(), args.follow, args.json, &mut out),
        Some(Command::Verify { checkpoint, checkpoints, json }) => {
            let layout = Layout::new(state, checkpoints.as_deref());
            let report = verify(&layout, checkpoint.as_deref());
            print_verdict(&report, json, &mut out)
                .map(|()| ExitCode::from(report.condition().exit_code()))
        }
        Some(Command::Export { filter, format }) => {
            export(&layout, &filter.into(), format, &mut out)
        }
        Some(Command::Report { filter, json }) => count(&layout, &filter.into(), json, &mut out),
    };
    match result.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        // The reader of our output has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "egret: the audit log below {}: {e}", state.display());
            ExitCode::FAILURE
        }
    }
}

fn list(
    layout: &Layout,
    filter: &Filter,
    follow: bool,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let style = Style::stdout();
    if !follow {
        let found = search(layout, filter)?;
        show::lines(out, style, json, &found.lines, true)?;
        warn_damaged(found.damaged);
        return Ok(ExitCode::SUCCESS);
    }
    let mut reader = Reader::new(layout);
    // `--follow` alone begins with the latest few.
    let first = Filter { last: filter.last.or(Some(10)), ..filter.clone() };
    show::lines(out, style, json, &reader.read(&first)?, true)?;
    let rest = Filter { last: None, ..filter.clone() };
    loop {
        out.flush()?;
        std::thread::sleep(FOLLOW_EVERY);
        show::lines(out, style, json, &reader.read(&rest)?, false)?;
    }
}

fn export(
    layout: &Layout,
    filter: &Filter,
    format: Format,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let mut write = |line: &crate::audit::query::Line| match format {
        Format::Jsonl => writeln!(out, "{}", line.text),
        Format::Csv => show::csv_row(out, &line.record),
    };
    let mut reader = Reader::new(layout);
    if filter.last.is_some() {
        let lines = reader.read(filter)?;
        lines.iter().try_for_each(&mut write)?;
    } else {
        // Journal by journal, so that memory does not grow with the log.
        reader.each(|line| if filter.matches(&line.record) { write(&line) } else { Ok(()) })?;
    }
    warn_damaged(reader.damaged);
    Ok(ExitCode::SUCCESS)
}

fn count(
    layout: &Layout,
    filter: &Filter,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<ExitCode> {
    let found = search(layout, filter)?;
    let summary = Summary::of(found.lines.iter().map(|l| &l.record));
    if json {
        json_line(out, &summary)?;
    } else {
        show::summary(out, Style::stdout(), &summary)?;
    }
    warn_damaged(found.damaged);
    Ok(ExitCode::SUCCESS)
}

fn warn_damaged(damaged: u64) {
    if damaged > 0 {
        let _ = writeln!(
            io::stderr(),
            "egret: {damaged} lines of the log are damaged and not shown; run `egret audit verify`"
        );
    }
}

fn print_verdict(report: &Report, json: bool, out: &mut dyn Write) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Verdict<'a> {
        condition: Condition,
        #[serde(flatten)]
        report: &'a Report,
    }
    let condition = report.condition();
    if json {
        return json_line(out, &Verdict { condition, report });
    }
    let style = Style::stdout();
    let (colour, word) = match condition {
        Condition::Intact => (Colour::Green, "intact"),
        Condition::TornTail => (Colour::Yellow, "torn tail"),
        Condition::Unreadable => (Colour::Red, "unreadable"),
        Condition::Shorter => (Colour::Red, "shorter than a checkpoint"),
        Condition::Tampered => (Colour::Red, "tampered"),
    };
    let (j, r, c) = (report.journals, report.records, report.checkpoints);
    let word = style.paint(colour, word);
    writeln!(out, "{word}: {r} records in {j} journals, {c} checkpoints")?;
    for f in &report.findings {
        let at = f.seq.map_or_else(String::new, |s| format!(", record {s}"));
        writeln!(out, "  {}{at}: {}", style.paint(Colour::Bold, &f.journal), f.what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

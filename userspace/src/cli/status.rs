//! `egret status`: what the daemon governs now.

use std::io::{self, Write};
use std::process::ExitCode;

use super::attach::DaemonArgs;
use super::output::{Colour, Style, fail, json_line, table};
use crate::control::client::ask;
use crate::control::wire::{AgentStatus, Answer, Request, Status};

const HELP: &str = "\
Examples:
  egret status
  egret status --json | jq -r '.agents[] | select(.closed) | .name'

Exit status: 0 everything that is attached is enforced, 1 something is closed or the interceptor is
not there, 125 the daemon could not be asked.";

/// Show what the daemon governs
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let style = Style::stdout();
    let status = match ask(&args.daemon.run, &Request::Status, &[]) {
        Ok((Answer::Status(status), _)) => status,
        Ok(_) => return fail(Style::stderr(), "the daemon answered something else", 125),
        Err(error) => return fail(Style::stderr(), &error.to_string(), 125),
    };
    let mut out = io::stdout().lock();
    // A reader that has gone away does not change what was found.
    let _ = if args.json { json_line(&mut out, &status) } else { print(&mut out, style, &status) };
    let well = status.interceptor.pid.is_some()
        && status.orphans.is_empty()
        && status.agents.iter().all(|a| a.closed.is_none());
    ExitCode::from(u8::from(!well))
}

fn print(out: &mut dyn Write, style: Style, status: &Status) -> io::Result<()> {
    let interceptor = match status.interceptor.pid {
        Some(pid) => format!("interceptor {pid}"),
        None => "no interceptor: everything is refused".to_owned(),
    };
    writeln!(
        out,
        "egret {} daemon {}, {interceptor}, lease {} ms",
        status.version, status.pid, status.lease_ms
    )?;
    let mut rows: Vec<_> = status.agents.iter().map(row).collect();
    for name in &status.orphans {
        let state = (Colour::Red, "closed".to_owned());
        let why = (Colour::Plain, "nobody knows its policy; `egret detach` lets it go".to_owned());
        rows.push(vec![(Colour::Bold, name.clone()), state, why]);
    }
    if rows.is_empty() {
        return writeln!(out, "nothing is attached");
    }
    table(out, style, &[], &rows)?;
    for guard in &status.guards {
        writeln!(
            out,
            "unknown members of {} are refused everything",
            style.paint(Colour::Plain, guard)
        )?;
    }
    let KernelLoss { dropped, lost } = KernelLoss::of(status);
    if dropped > 0 || lost > 0 {
        writeln!(out, "{dropped} refusals in the kernel without a record, {lost} flows lost")?;
    }
    Ok(())
}

struct KernelLoss {
    dropped: u64,
    lost: u64,
}

impl KernelLoss {
    fn of(status: &Status) -> Self {
        Self { dropped: status.kernel.events_dropped, lost: status.kernel.flows_lost }
    }
}

fn row(agent: &AgentStatus) -> Vec<(Colour, String)> {
    let (colour, state) = match &agent.closed {
        Some(_) => (Colour::Red, "closed"),
        None => (Colour::Green, "enforced"),
    };
    let detail = match &agent.closed {
        Some(why) => why.clone(),
        None => format!("{} processes, {} network namespaces", agent.processes, agent.namespaces),
    };
    vec![
        (Colour::Bold, agent.chain.join(" > ")),
        (colour, state.to_owned()),
        (Colour::Plain, agent.cgroup.clone()),
        (Colour::Plain, agent.policy.clone()),
        (Colour::Dim, agent.source.clone()),
        (Colour::Plain, detail),
    ]
}

//! `egret run -- CMD`: flags in, exit code and summary out.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::audit::print_summary as show_summary;
use super::output::{Colour, Style, fail, json_line, say};
use crate::audit::Summary;
use crate::config::PolicyArgs;
use crate::control::{DEFAULT_RUN, RUN_VARIABLE, client};
use crate::session::{self, Finished, Options};

const EXAMPLES: &str = "\
Examples:
  sudo egret run --allow 'GET https://api.github.com/**' -- curl https://api.github.com/zen
  sudo -E egret run --allow api.example.com --bearer api.example.com=env:TOKEN -- ./agent
  sudo egret run --policy triage.toml --user ci -- make release
  sudo egret run --policy triage.toml --audit-mode -- npm install   (record, refuse nothing)

Exit codes: the command's own, or 128 + the signal that ended it; 125 egret failed and nothing was
started, 126 the command cannot be executed, 127 it was not found.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    /// The agent's name in records [default: the policy's name]
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// Run as this user (name or uid, with :group) [default: who called sudo, else you]
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
    /// Print no summary
    #[arg(long, short)]
    quiet: bool,
    /// Let set-user-id programs such as sudo change the user inside (they gain no capability)
    #[arg(long)]
    allow_new_privileges: bool,
    /// Let the command use io_uring, which makes sockets past the seccomp filter: TCP and UDP stay
    /// governed, other families such as AF_VSOCK do not
    #[arg(long)]
    allow_io_uring: bool,
    /// Do it in this process, as root, even where a daemon is
    #[arg(long)]
    no_daemon: bool,
    /// The daemon's folder
    #[arg(long = "run", value_name = "DIR", default_value = DEFAULT_RUN, env = RUN_VARIABLE)]
    run: PathBuf,
    /// Keep the command alive when egret is killed; it then reaches nothing
    #[arg(long, hide = true)]
    outlive: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(args: Args, state: &Path) -> ExitCode {
    let style = Style::stderr();
    let bundle = match args.policy.bundle() {
        Ok(bundle) => bundle,
        Err(error) => return fail(style, &error.to_string(), 125),
    };
    let loaded = match bundle.load() {
        Ok(loaded) => loaded,
        Err(error) => return fail(style, &error.to_string(), 125),
    };
    for lint in &loaded.lints {
        say(style, Colour::Yellow, "warning", &lint.to_string());
    }
    let options = Options {
        name: args.name,
        policy: loaded.policy,
        bundle,
        command: args.command,
        user: args.user,
        state: state.to_path_buf(),
        keep_privileges: args.allow_new_privileges,
        allow_io_uring: args.allow_io_uring,
        die_with_parent: !args.outlive,
    };
    let by_daemon = match client::is_there(&args.run) {
        Ok(there) => there && !args.no_daemon,
        Err(error) => return fail(style, &error.to_string(), 125),
    };
    let finished = if by_daemon {
        session::remote::run(&options, &args.run, |_| ())
    } else {
        session::run(&options, |_| ())
    };
    match finished {
        Ok(finished) => {
            if !args.quiet {
                summarise(style, &finished, args.json);
            }
            ExitCode::from(finished.status.code())
        }
        Err(error) => fail(style, &error.to_string(), error.exit_code()),
    }
}

fn summarise(style: Style, finished: &Finished, json: bool) {
    let mut err = io::stderr().lock();
    let _ = if json {
        let summary = json!({
            "session": finished.session.to_string(),
            "exit_code": finished.status.code(),
            "allowed": finished.summary.allowed,
            "refused": finished.summary.refused,
            "would_deny": finished.summary.would_deny,
            "failed": finished.summary.failed,
            "kernel_events_dropped": finished.events_dropped,
        });
        json_line(&mut err, &summary)
    } else {
        write_summary(&mut err, style, finished)
    };
}

fn write_summary(out: &mut dyn Write, style: Style, finished: &Finished) -> io::Result<()> {
    let Summary { allowed, refused, .. } = &finished.summary;
    writeln!(
        out,
        "{} {} allowed, {} refused; `egret audit --session {}` has the records",
        style.paint(Colour::Bold, "egret:"),
        Summary::total(allowed),
        Summary::total(refused),
        finished.session
    )?;
    if finished.summary != Summary::default() {
        show_summary(out, style, &finished.summary)?;
    }
    if finished.events_dropped > 0 {
        let dropped = finished.events_dropped;
        writeln!(out, "{dropped} refusals in the kernel have no record of their own")?;
    }
    Ok(())
}

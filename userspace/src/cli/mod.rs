//! The command line. One file per subcommand; this file is the map.

mod attach;
mod audit;
mod ca;
mod check;
mod daemon;
mod doctor;
mod explain;
mod generate;
mod log;
mod output;
mod run;
mod state;
mod status;
mod systemd;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{contain::init, intercept};

const EXAMPLES: &str = "\
Examples:
  egret run --allow 'GET https://api.github.com/**' -- curl https://api.github.com/zen
  egret run --policy triage.toml -- bash
  egret check policies/*.toml
  egret explain --policy triage.toml POST https://api.github.com/repos/a/b/issues
  egret audit --last 20
  egret audit verify";

/// Transparent egress enforcement for AI agents.
///
/// Every connection of the command is redirected by the kernel, checked against a policy, given
/// its credential at the boundary, and written to a tamper-evident log. What cannot be checked is
/// refused.
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Folder for the audit log [default: /var/lib/egret for root, else $XDG_STATE_HOME/egret]
    #[arg(long, global = true, env = "EGRET_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command whose every connection is enforced
    Run(run::Args),
    /// Enforce policies on cgroups, slices, units and containers that exist or will
    Daemon(daemon::Args),
    /// Govern a running cgroup, slice, unit, container or process's group
    Attach(attach::AttachArgs),
    /// Let an agent's cgroup go, or close it
    Detach(attach::DetachArgs),
    /// Let the daemon read egret.toml and every policy again, all or nothing
    Reload(attach::ReloadArgs),
    /// Show what the daemon governs
    Status(status::Args),
    /// Check policy files and print every error at once
    Check(check::Args),
    /// Say what a policy decides about a request, and why
    Explain(explain::Args),
    /// Run the case tables of policies
    Test(test::Args),
    /// Query, verify and export the audit log
    Audit(audit::Args),
    /// Say what this machine lets egret promise, and what to do about the rest
    Doctor(doctor::Args),
    /// Show, trust and replace the authority that agents of the daemon trust
    Ca(ca::Args),
    /// Install the units of egret, and hold other units under it
    Systemd(systemd::Args),
    /// Print a shell's completions
    Completions(generate::CompletionsArgs),
    /// Print the man page
    Man,
}

/// Runs the command line. Errors are printed below `cli/` and nowhere else.
pub fn main() -> ExitCode {
    // The stage process of `run` is this binary again; it must not parse anything an agent or a
    // user can spell, so it is recognised before clap.
    if let Some(code) = init::entry(std::env::args_os()) {
        return code;
    }
    if let Some(code) = intercept::entry(std::env::args_os()) {
        return code;
    }
    let cli = Cli::parse();
    log::init();
    let state = cli.state.unwrap_or_else(state::default_dir);
    match cli.command {
        Command::Run(args) => run::run(args, &state),
        Command::Daemon(args) => daemon::run(args, &state),
        Command::Attach(args) => attach::attach(args),
        Command::Detach(args) => attach::detach(&args),
        Command::Reload(args) => attach::reload(&args),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Audit(args) => audit::run(args, &state),
        Command::Doctor(args) => doctor::run(&args, &state),
        Command::Ca(args) => ca::run(&args, &state),
        Command::Systemd(args) => systemd::run(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man => generate::man(),
    }
}

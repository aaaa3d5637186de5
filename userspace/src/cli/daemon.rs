//! `egret daemon`: enforcement for what already exists.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{Style, fail};
use crate::control::DEFAULT_RUN;
use crate::daemon::{self, DaemonError, Options};

const EXAMPLES: &str = "\
Examples:
  sudo egret daemon                                     (as egret.service does)
  sudo egret daemon --config ./egret.toml --run /run/egret-test --state /tmp/state
  sudo systemctl reload egret                           (reads every policy again, all or nothing)

egret.toml:
  [daemon]
  user  = \"egret\"             # who the interceptor becomes
  group = \"egret\"             # who may use `egret run` without root
  lease = \"3s\"                # a daemon that is not heard from for so long: nothing gets out

  [[agent]]
  name   = \"agents\"
  slice  = \"agents.slice\"     # or unit = \"ci-*.service\", or cgroup = \"/ci/*\"
  policy = \"agents.toml\"      # relative to this file

Agents stay attached when the daemon ends, however it ends, and are refused everything until it is
back. `egret detach` is the way out.

Exit codes: 0 told to end, 78 the configuration has errors (starting again would not help), 125
anything else.";

/// Enforce policies on cgroups, slices, units and containers that exist or will
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to enforce where
    #[arg(long, value_name = "FILE", default_value = "/etc/egret/egret.toml")]
    config: PathBuf,
    /// The folder of pins and sockets
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN, env = crate::control::RUN_VARIABLE)]
    run: PathBuf,
    /// How many connections may wait for the interceptor
    #[arg(long, value_name = "N", hide = true)]
    max_flows: Option<u32>,
}

pub(super) fn run(args: Args, state: &Path) -> ExitCode {
    let options = Options {
        config: args.config,
        run: args.run,
        state: state.to_path_buf(),
        max_flows: args.max_flows,
    };
    match daemon::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(Style::stderr(), &error.to_string(), code(&error)),
    }
}

/// EX_CONFIG of sysexits.h for what only a person can mend.
fn code(error: &DaemonError) -> u8 {
    if matches!(error, DaemonError::Config(_) | DaemonError::Policy { .. }) { 78 } else { 125 }
}

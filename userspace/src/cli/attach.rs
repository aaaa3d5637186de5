//! `egret attach`, `egret detach`, `egret reload`: asked of the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::output::{Colour, Style, fail, json_line, say};
use crate::config::{PolicyArgs, TargetArgs};
use crate::control::client::{ClientError, ask};
use crate::control::wire::{Answer, Attach, Request};
use crate::control::{DEFAULT_RUN, RUN_VARIABLE};

const ATTACH_EXAMPLES: &str = "\
Examples:
  sudo egret attach agents --policy agents.toml --slice agents.slice
  sudo egret attach ci --policy ci.toml --unit ci-runner.service
  sudo egret attach box --policy box.toml --container 4f66ad9f6b1e
  sudo egret attach shell --policy dev.toml --pid 4711            (its whole cgroup)
  sudo egret attach jobs --policy jobs.toml --cgroup /jobs/7

The group stands still while it is attached; sockets that were open are destroyed, so that every
connection from then on is decided. The daemon reads the policy, now and at each reload; `env:` and
`file:` secrets are its own. It stays attached until `egret detach`, whatever happens to the daemon.";

/// Where the daemon is.
#[derive(Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// The daemon's folder
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN, env = RUN_VARIABLE)]
    pub(crate) run: PathBuf,
}

/// Govern a running cgroup, slice, unit, container or process's group
#[derive(Debug, clap::Args)]
#[command(after_help = ATTACH_EXAMPLES)]
pub(crate) struct AttachArgs {
    /// The agent's name
    name: String,
    #[command(flatten)]
    what: TargetArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const DETACH_EXAMPLES: &str = "\
Examples:
  sudo egret detach agents           (its group is not governed any more)
  sudo egret detach agents --deny    (it stays attached, everything is refused, connections end)
  sudo egret detach agents --undo    (takes a --deny back)";

/// Let an agent's cgroup go, or close it
#[derive(Debug, clap::Args)]
#[command(after_help = DETACH_EXAMPLES)]
pub(crate) struct DetachArgs {
    /// The agent's name
    name: String,
    /// Keep it attached and refuse it everything; its connections end
    #[arg(long)]
    deny: bool,
    /// Take a `--deny` back
    #[arg(long, conflicts_with = "deny")]
    undo: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Let the daemon read egret.toml and every policy again, all or nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sudo egret reload     (the same as `systemctl reload egret`)")]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn attach(args: AttachArgs) -> ExitCode {
    let style = Style::stderr();
    let Some(target) = args.what.target() else { return fail(style, "nothing to attach to", 125) };
    // Every error of a policy is said here, before anything is asked.
    let policy = match args.policy.absolute() {
        Ok(policy) => policy,
        Err(error) => return fail(style, &error.to_string(), 125),
    };
    match policy.load() {
        Ok(loaded) => loaded.lints.iter().for_each(|lint| {
            say(style, Colour::Yellow, "warning", &lint.to_string());
        }),
        Err(error) => return fail(style, &error.to_string(), 125),
    }
    let request = Request::Attach(Box::new(Attach { name: args.name, target, policy }));
    match ask(&args.daemon.run, &request, &[]) {
        Ok((Answer::Attached(attached), _)) if args.json => print(&attached),
        Ok((Answer::Attached(a), _)) => {
            let message = format!(
                "{} is attached to {}: {} network namespaces, {} open sockets destroyed",
                a.name, a.cgroup, a.namespaces, a.destroyed
            );
            say(style, Colour::Green, "attached", &message);
            if a.foreign > 0 {
                let message = format!(
                    "{} of these sockets were made outside of the group: their processes can use \
                     them again, ungoverned; end those processes rather than trust them",
                    a.foreign
                );
                say(style, Colour::Yellow, "warning", &message);
            }
            ExitCode::SUCCESS
        }
        other => failed(style, other),
    }
}

pub(super) fn detach(args: &DetachArgs) -> ExitCode {
    let name = args.name.clone();
    let request = if args.undo {
        Request::Reopen { name }
    } else {
        Request::Detach { name, deny: args.deny }
    };
    done(&args.daemon.run, &request, args.json)
}

pub(super) fn reload(args: &ReloadArgs) -> ExitCode {
    done(&args.daemon.run, &Request::Reload, args.json)
}

fn done(run: &Path, request: &Request, json: bool) -> ExitCode {
    let style = Style::stderr();
    match ask(run, request, &[]) {
        Ok((Answer::Done(said), _)) if json => print(&json!({ "done": said })),
        Ok((Answer::Done(said), _)) => {
            say(style, Colour::Green, "done", &said);
            ExitCode::SUCCESS
        }
        other => failed(style, other),
    }
}

fn print<T: serde::Serialize>(value: &T) -> ExitCode {
    match json_line(&mut io::stdout().lock(), value) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // stdout is closed: nobody to tell
    }
}

fn failed<T>(style: Style, result: Result<T, ClientError>) -> ExitCode {
    match result {
        Err(error) => fail(style, &error.to_string(), 125),
        Ok(_) => fail(style, "the daemon answered something else than was asked", 125),
    }
}

//! `egret explain`: what a policy decides for one request, and why.

use std::io::Write as _;
use std::process::ExitCode;

use super::check::json;
use crate::config::PolicyArgs;
use crate::outcome::Decision;
use crate::policy::{Explanation, explain};

const EXAMPLES: &str = "\
Examples:
  egret explain --policy agent.toml GET https://api.github.com/repos/acme/widgets
  egret explain --policy agent.toml tcp://db.example.com:5432
  egret explain --allow 'GET x.test/a/**' --json POST https://x.test/a/b

Exit status: 0 allowed (in audit mode: let pass), 1 refused, 2 someone would be asked, 3 error.";

/// Explain what a policy decides for a request: which rule decides, and why the others do not.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "egret explain [OPTIONS] [METHOD] URL")]
pub(crate) struct Args {
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// A method (GET if absent) and a URL: https://, http://, tls:// or tcp://.
    #[arg(required = true, num_args = 1..=2, value_name = "URL")]
    pub request: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Explains and prints.
pub(crate) fn run(args: &Args) -> ExitCode {
    match explanation(args) {
        Ok(found) => {
            let text = if args.json { json(&found) } else { found.to_string() };
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::from(code(found.decision))
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr().lock(), "egret explain: {why}");
            ExitCode::from(3)
        }
    }
}

fn explanation(args: &Args) -> Result<Explanation, String> {
    let (method, url) = match &args.request[..] {
        [url] => (None, url),
        [method, url] => (Some(method.as_str()), url),
        _ => return Err("write METHOD URL".into()),
    };
    let loaded = args.policy.load().map_err(|e| e.to_string())?;
    explain(&[&loaded.policy], method, url).map_err(|e| e.to_string())
}

fn code(decision: Decision) -> u8 {
    match decision {
        Decision::Allow | Decision::WouldDeny => 0,
        Decision::Deny => 1,
        Decision::Ask => 2,
        Decision::Note => 3,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn exit_codes() {
        let run = |line: &[&str]| {
            let all = ["explain"].iter().chain(line).copied();
            match explanation(&Cli::try_parse_from(all).unwrap().args) {
                Ok(found) => code(found.decision),
                Err(_) => 3,
            }
        };
        assert_eq!(run(&["--allow", "x.test", "GET", "https://x.test/"]), 0);
        assert_eq!(run(&["--allow", "x.test", "https://x.test/"]), 0);
        assert_eq!(run(&["--allow", "x.test", "GET", "https://y.test/"]), 1);
        assert_eq!(run(&["--allow", "x.test", "--audit-mode", "GET", "https://y.test/"]), 0);
        assert_eq!(run(&["--allow", "x.test", "GET", "y.test"]), 3);
        assert_eq!(run(&["--policy", "/nonexistent", "GET", "https://y.test/"]), 3);
    }
}

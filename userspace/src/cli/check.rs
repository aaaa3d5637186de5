//! `egret check`: is a policy file, or the daemon's `egret.toml`, right. Exits 0 if every file is, 1
//! otherwise.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{is_daemon_config, load_daemon_config, load_policy};
use crate::policy::CaseTable;
use crate::policy::parse::Diagnostic;

const EXAMPLES: &str = "\
Examples:
  egret check policies/coding-agent-github.toml
  egret check --json policies/*.toml
  egret check /etc/egret/egret.toml         (with every policy that it names)

Exit status: 0 every file is right, 1 one of them is not. Warnings do not change it.";

/// Check policy files (and case tables, by their name *.test.toml, and the daemon's egret.toml, by
/// its [daemon] and [[agent]]): every error at once, with its place and what to write instead.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Policy files, case tables, or the daemon's configuration.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    ok: bool,
    rules: usize,
    credentials: usize,
    /// Of an `egret.toml`; its rules and credentials are those of all its agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    agents: Option<usize>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

/// Checks the files and prints what is found.
pub(crate) fn run(args: &Args) -> ExitCode {
    let checked: Vec<Checked> = args.files.iter().map(|path| check(path)).collect();
    let text = if args.json { json(&checked) } else { checked.iter().map(describe).collect() };
    // A reader that has gone away does not change what was found.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if checked.iter().all(|c| c.ok) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn check(path: &Path) -> Checked {
    let mut out = Checked {
        file: path.display().to_string(),
        ok: false,
        rules: 0,
        credentials: 0,
        agents: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    if out.file.ends_with(".test.toml") {
        let text =
            std::fs::read_to_string(path).map_err(|e| Diagnostic::about(&out.file, e.to_string()));
        let found = text.and_then(|t| CaseTable::parse(&out.file, &t).map_err(|e| e.0));
        out.errors.extend(found.err());
        out.ok = out.errors.is_empty();
        return out;
    }
    if is_daemon_config(path) {
        return check_daemon(path, out);
    }
    match load_policy(path) {
        Ok(loaded) => {
            out.ok = true;
            out.rules = loaded.policy.rules.len();
            out.credentials = loaded.policy.credentials.len();
            out.warnings = loaded.lints;
        }
        Err(e) => out.errors = e.diagnostics(),
    }
    out
}

fn check_daemon(path: &Path, mut out: Checked) -> Checked {
    match load_daemon_config(path) {
        Ok(loaded) => {
            out.ok = true;
            out.agents = Some(loaded.config.agents.len());
            for policy in loaded.policies.iter().filter_map(|bundle| bundle.load().ok()) {
                out.rules += policy.policy.rules.len();
                out.credentials += policy.policy.credentials.len();
            }
            out.warnings = loaded.lints;
        }
        Err(e) => out.errors = e.diagnostics(),
    }
    out
}

fn describe(c: &Checked) -> String {
    let mut out = String::new();
    for d in &c.errors {
        out += &format!("error: {d}\n");
    }
    for d in &c.warnings {
        out += &format!("warning: {d}\n");
    }
    let (rules, credentials) = (count(c.rules, "rule"), count(c.credentials, "credential"));
    out += &if c.ok && c.file.ends_with(".test.toml") {
        format!("{}: ok, a case table\n", c.file)
    } else if c.ok {
        let agents = c.agents.map(|n| format!("{}, ", count(n, "agent"))).unwrap_or_default();
        format!("{}: ok, {agents}{rules}, {credentials}\n", c.file)
    } else {
        format!("{}: {}\n", c.file, count(c.errors.len(), "error"))
    };
    out
}

/// `1 rule`, `2 rules`.
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A line of JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string_pretty(value).map_or_else(|e| format!("{e}\n"), |s| s + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good.toml");
        let bad = dir.path().join("bad.toml");
        std::fs::write(&good, "version = 1\n").unwrap();
        std::fs::write(&bad, "version = 1\nrulez = 1\nmode = \"enforced\"\n").unwrap();
        let checked = check(&good);
        assert!(checked.ok && describe(&checked).contains("ok, 0 rules"));
        let checked = check(&bad);
        let text = describe(&checked);
        assert!(
            !checked.ok && text.contains("bad.toml:2:1: unknown key") && text.contains("2 errors"),
            "{text}"
        );
    }
    #[test]
    fn the_daemons_file_is_checked_with_its_policies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("egret.toml");
        let agent = "[[agent]]\nname = \"a\"\nslice = \"a.slice\"\npolicy = \"p.toml\"\n";
        std::fs::write(&path, agent).unwrap();
        std::fs::write(dir.path().join("p.toml"), "version = 1\n").unwrap();
        let checked = check(&path);
        let text = describe(&checked);
        assert!(checked.ok && text.contains("ok, 1 agent, 0 rules, 0 credentials"), "{text}");
        assert!(json(&checked).contains("\"agents\": 1"));
        std::fs::write(dir.path().join("p.toml"), "version = 2\n").unwrap();
        let text = describe(&check(&path));
        assert!(text.contains("p.toml:1:11: this egret") && text.contains("1 error"), "{text}");
    }
}

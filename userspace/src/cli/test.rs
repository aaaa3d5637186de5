//! `egret test`: does a policy allow and refuse what its case table says.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::check::{count, json};
use crate::config::load_policy;
use crate::policy::{CaseResult, CaseTable};

const EXAMPLES: &str = "\
A case table:
  policy = \"agent.toml\"                       # relative to the table

  [[case]]
  request     = \"GET https://api.example.com/items\"
  expect      = \"allow\"                       # allow, deny or ask
  rule        = \"read items\"                  # optional: the rule that decides
  credentials = [\"example\"]                   # optional: what is attached

  [[case]]
  request = \"DELETE https://api.example.com/items/1\"
  expect  = \"deny\"
  reason  = \"no_rule\"                         # optional

Example:
  egret test policies/*.test.toml

Exit status: 0 every case holds, 1 one does not, 3 a table or policy cannot be read.";

/// Run case tables against their policies.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Case tables.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// One table after it ran.
#[derive(Debug, Serialize)]
struct Ran {
    file: String,
    error: Option<String>,
    cases: Vec<CaseResult>,
}

impl Ran {
    fn failed(&self) -> usize {
        self.cases.iter().filter(|c| !c.differences.is_empty()).count()
    }
}

/// Runs the tables and prints what differs.
pub(crate) fn run(args: &Args) -> ExitCode {
    let ran: Vec<Ran> = args
        .files
        .iter()
        .map(|path| {
            let file = path.display().to_string();
            match run_table(path) {
                Ok(cases) => Ran { file, error: None, cases },
                Err(e) => Ran { file, error: Some(e), cases: Vec::new() },
            }
        })
        .collect();
    let text = if args.json { json(&ran) } else { ran.iter().map(describe).collect() };
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if ran.iter().any(|r| r.error.is_some()) {
        ExitCode::from(3)
    } else if ran.iter().any(|r| r.failed() > 0) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn run_table(path: &Path) -> Result<Vec<CaseResult>, String> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
    let table = CaseTable::parse(&file, &text).map_err(|e| e.to_string())?;
    let policy = path.parent().unwrap_or(Path::new("")).join(&table.policy);
    let loaded = load_policy(&policy).map_err(|e| e.to_string())?;
    table.run(&file, &text, &loaded.policy).map_err(|e| e.to_string())
}

fn describe(ran: &Ran) -> String {
    let mut out = String::new();
    if let Some(e) = &ran.error {
        return format!("error: {e}\n");
    }
    for case in ran.cases.iter().filter(|c| !c.differences.is_empty()) {
        out += &format!("{}:{}: {}\n", ran.file, case.line, case.request);
        for d in &case.differences {
            out += &format!("  {d}\n");
        }
    }
    let total = count(ran.cases.len(), "case");
    out + &match ran.failed() {
        0 => format!("{}: {total} hold\n", ran.file),
        n => format!("{}: {n} of {total} fail\n", ran.file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse::PRESETS;

    fn tables(folder: &Path) -> Vec<PathBuf> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                out.extend(tables(&path));
            } else if path.extension().is_some_and(|e| e == "toml") {
                out.push(path);
            }
        }
        out.sort();
        out
    }

    /// Every policy that is shipped has a case table with allowed and refused cases that hold.
    #[test]
    fn shipped_policies_do_what_their_tables_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let all = tables(&folder);
        let (cases, policies): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|p| p.to_string_lossy().ends_with(".test.toml"));
        assert!(policies.len() >= 7, "{policies:?}");
        for policy in &policies {
            let loaded = load_policy(policy).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(loaded.lints, [], "{policy:?}");
            assert!(cases.contains(&policy.with_extension("test.toml")), "{policy:?} has no table");
        }
        for table in &cases {
            let results = run_table(table).unwrap_or_else(|e| panic!("{e}"));
            let failed: Vec<_> = results.iter().filter(|c| !c.differences.is_empty()).collect();
            assert!(failed.is_empty(), "{table:?}: {failed:#?}");
            let text = std::fs::read_to_string(table).unwrap();
            assert!(text.contains("\"deny\""), "{table:?}");
            assert!(
                text.contains("\"allow\"") || table.ends_with("deny-all.test.toml"),
                "{table:?}"
            );
        }
        for (name, _) in PRESETS {
            assert!(policies.contains(&folder.join(format!("presets/{name}.toml"))), "{name}");
        }
    }

    #[test]
    fn a_case_that_does_not_hold_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "p.toml",
            "version = 1\n[[rule]]\nname = \"r\"\naction = \"allow\"\nhosts = [\"x.test\"]\n",
        );
        write(
            "good.toml",
            "policy = \"p.toml\"\n[[case]]\nrequest = \"https://x.test\"\nexpect = \"allow\"\nrule = \"r\"\n",
        );
        write(
            "bad.toml",
            "policy = \"p.toml\"\n[[case]]\nrequest = \"https://x.test\"\nexpect = \"deny\"\nreason = \"no_rule\"\nrule = \"q\"\ncredentials = [\"c\"]\n",
        );
        write("empty.toml", "policy = \"p.toml\"\n");
        write(
            "odd.toml",
            "policy = \"p.toml\"\n[[case]]\nrequest = \"https://x.test\"\nexpects = \"deny\"\n",
        );
        write(
            "url.toml",
            "policy = \"p.toml\"\n[[case]]\nrequest = \"x.test\"\nexpect = \"deny\"\n",
        );
        let run = |name: &str| run_table(&dir.path().join(name));
        assert_eq!(run("good.toml").unwrap()[0].differences, Vec::<String>::new());
        assert_eq!(run("bad.toml").unwrap()[0].differences.len(), 4);
        assert!(run("empty.toml").unwrap_err().contains("no [[case]]"));
        assert!(run("odd.toml").unwrap_err().contains("odd.toml:4:1"));
        assert!(run("url.toml").unwrap_err().contains("url.toml:3:11"));
    }
}

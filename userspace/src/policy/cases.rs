//! Pure: case tables, which say what a policy must allow and refuse.
//!
//! ```toml
//! policy = "agent.toml"          # relative to the table
//!
//! [[case]]
//! request = "GET https://api.example.test/items"
//! expect  = "allow"              # allow | deny | ask
//! rule    = "read items"         # optional, as are reason and credentials
//! ```

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::explain::explain_target;
use super::parse::Diagnostic;
use super::{Policy, Target};
use crate::outcome::{Decision, Reason};

/// A table as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseTable {
    /// The policy's file, relative to the table's.
    pub policy: String,
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    request: Spanned<String>,
    expect: Expected,
    reason: Option<Reason>,
    rule: Option<String>,
    credentials: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Deny,
    Ask,
}

/// Why a table cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CaseError(pub Diagnostic);

/// One case after it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    pub request: String,
    pub line: usize,
    /// What differed; empty if the case holds.
    pub differences: Vec<String>,
}

impl CaseTable {
    /// Reads a table; `file` names it in errors.
    ///
    /// # Errors
    /// When it is not a table of cases, or has no case.
    pub fn parse(file: &str, text: &str) -> Result<Self, CaseError> {
        let table: Self = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            CaseError(diagnostic(file, text, at, e.message()))
        })?;
        if table.cases.is_empty() {
            return Err(CaseError(diagnostic(file, text, 0, "the table has no [[case]]")));
        }
        Ok(table)
    }

    /// Runs every case against `policy`.
    ///
    /// # Errors
    /// When the request of a case cannot be read.
    pub fn run(
        &self,
        file: &str,
        text: &str,
        policy: &Policy,
    ) -> Result<Vec<CaseResult>, CaseError> {
        self.cases
            .iter()
            .map(|case| {
                let at = case.request.span().start;
                let target = Target::parse_line(case.request.get_ref())
                    .map_err(|e| CaseError(diagnostic(file, text, at, &e.to_string())))?;
                Ok(CaseResult {
                    request: case.request.get_ref().clone(),
                    line: diagnostic(file, text, at, "").line,
                    differences: case.differences(policy, &target),
                })
            })
            .collect()
    }
}

impl Case {
    fn differences(&self, policy: &Policy, target: &Target) -> Vec<String> {
        let got = explain_target(&[policy], target);
        let mut out = Vec::new();
        let mut compare = |what: &str, want: String, got: String| {
            if want != got {
                out.push(format!("{what} should be {want} and is {got}"));
            }
        };
        let want = match self.expect {
            Expected::Allow => Decision::Allow,
            Expected::Deny => Decision::Deny,
            Expected::Ask => Decision::Ask,
        };
        compare("decision", want.as_str().into(), got.decision.as_str().into());
        if let Some(reason) = self.reason {
            let got = got.reason.map_or("none", Reason::as_str);
            compare("reason", reason.as_str().into(), got.into());
        }
        if let Some(rule) = &self.rule {
            let got = got.rule.as_deref().unwrap_or("none");
            compare("rule", format!("`{rule}`"), format!("`{got}`"));
        }
        if let Some(credentials) = &self.credentials {
            let got: Vec<&str> = got.credentials.iter().map(|c| &**c).collect();
            compare("credentials", format!("{credentials:?}"), format!("{got:?}"));
        }
        out
    }
}

fn diagnostic(file: &str, text: &str, at: usize, message: &str) -> Diagnostic {
    super::parse::locate(file, text, at).say(message)
}

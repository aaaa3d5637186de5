//! Pure: what doctor says about one thing, and about the machine as a whole.

use serde::Serialize;

/// The promises of SECURITY.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Promise {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P7,
    P8,
    P9,
    P10,
}

/// How one thing stands, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// The promises hold; something is weaker, or does not work as one may expect.
    Warn,
    /// Could not be probed.
    Unknown,
    /// `egret run` does not start, or a promise does not hold.
    Fail,
}

/// What doctor says about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, for programs.
    pub id: &'static str,
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What it means for the promises.
    pub meaning: String,
    pub promises: &'static [Promise],
    /// `egret run` refuses to start without it.
    pub essential: bool,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Whether `egret run` can start here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    Possible,
    Impossible,
    /// Something that it needs could not be probed.
    Unknown,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub kernel: String,
    pub run: Run,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Draws the conclusion from the findings.
    pub fn new(kernel: String, findings: Vec<Finding>) -> Self {
        let essential = |status: Status| findings.iter().any(|f| f.essential && f.status == status);
        let run = if essential(Status::Fail) {
            Run::Impossible
        } else if essential(Status::Unknown) {
            Run::Unknown
        } else {
            Run::Possible
        };
        Self { version: env!("CARGO_PKG_VERSION"), kernel, run, findings }
    }

    /// How many findings stand like this.
    pub fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|f| f.status == status).count()
    }

    /// 1 if anything fails; 2 if nothing does but something that `egret run` needs could not be
    /// probed; else 0, whatever the warnings.
    pub fn exit_code(&self) -> u8 {
        if self.count(Status::Fail) > 0 {
            1
        } else if self.run == Run::Unknown {
            2
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(status: Status, essential: bool) -> Finding {
        Finding {
            id: "x",
            name: "x",
            status,
            found: String::new(),
            meaning: String::new(),
            promises: &[Promise::P1],
            essential,
            fix: None,
        }
    }

    #[test]
    fn the_worst_of_what_is_essential_decides() {
        use Status::{Fail, Ok, Unknown, Warn};
        type Case = (&'static [(Status, bool)], Run, u8);
        let cases: &[Case] = &[
            (&[(Ok, true), (Ok, false)], Run::Possible, 0),
            (&[(Warn, true), (Warn, false)], Run::Possible, 0),
            (&[(Ok, true), (Unknown, false)], Run::Possible, 0),
            (&[(Ok, true), (Unknown, true)], Run::Unknown, 2),
            (&[(Unknown, true), (Fail, true)], Run::Impossible, 1),
            // A broken promise that does not keep `run` from starting still fails.
            (&[(Ok, true), (Fail, false)], Run::Possible, 1),
            (&[(Unknown, true), (Fail, false)], Run::Unknown, 1),
        ];
        for (statuses, run, code) in cases {
            let findings = statuses.iter().map(|(s, e)| finding(*s, *e)).collect();
            let report = Report::new(String::new(), findings);
            assert_eq!((report.run, report.exit_code()), (*run, *code), "{statuses:?}");
        }
    }
}

//! Pure: from facts to findings. One function per thing; the order is that of the table.

mod cgroups;
mod host;
mod privileges;
mod programs;
mod settings;
mod state;
#[cfg(test)]
mod tests;

use super::facts::{Facts, NotSeen, Seen};
use super::finding::{Finding, Promise, Report, Status};

/// What to do about everything that only root may look at.
pub const AS_ROOT: &str = "run `sudo egret doctor`";

/// Judges everything.
pub fn judge(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    findings.extend(privileges::judge(&facts.privileges));
    findings.extend(cgroups::judge(&facts.cgroups));
    findings.extend(programs::judge(&facts.programs));
    findings.extend(settings::judge(&facts.settings));
    findings.extend(host::judge(&facts.host, &facts.cgroups));
    findings.extend(state::judge(&facts.state));
    Report::new(facts.kernel.clone(), findings)
}

/// One thing that is judged.
struct Topic {
    id: &'static str,
    name: &'static str,
    promises: &'static [Promise],
    /// `egret run` refuses to start without it.
    essential: bool,
    /// What egret needs it for: the meaning, unless a verdict has a better one.
    why: &'static str,
}

/// What was concluded about a topic.
struct Verdict {
    status: Status,
    found: String,
    meaning: Option<String>,
    fix: Option<String>,
}

fn ok(found: impl Into<String>) -> Verdict {
    Verdict { status: Status::Ok, found: found.into(), meaning: None, fix: None }
}

fn warn(found: impl Into<String>) -> Verdict {
    Verdict { status: Status::Warn, ..ok(found) }
}

fn unknown(found: impl Into<String>) -> Verdict {
    Verdict { status: Status::Unknown, ..ok(found) }
}

fn fail(found: impl Into<String>) -> Verdict {
    Verdict { status: Status::Fail, ..ok(found) }
}

impl Verdict {
    fn means(self, meaning: impl Into<String>) -> Self {
        Self { meaning: Some(meaning.into()), ..self }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

impl Topic {
    fn finding(&self, verdict: Verdict) -> Finding {
        Finding {
            id: self.id,
            name: self.name,
            status: verdict.status,
            found: verdict.found,
            meaning: verdict.meaning.unwrap_or_else(|| match verdict.status {
                Status::Unknown => format!("not known; what it is for: {}", self.why),
                Status::Ok | Status::Warn | Status::Fail => self.why.to_owned(),
            }),
            promises: self.promises,
            essential: self.essential,
            fix: verdict.fix,
        }
    }

    /// Judges what was seen; what was not is said to be unknown.
    fn judge<T>(&self, seen: &Seen<T>, judge: impl FnOnce(&T) -> Verdict) -> Finding {
        self.finding(match seen {
            Ok(fact) => judge(fact),
            Err(why) => not_probed(why),
        })
    }

    /// Like [`Self::judge`], for something that works or says why it does not.
    fn works(
        &self,
        seen: &Seen<Result<(), String>>,
        works: &str,
        otherwise: impl FnOnce(&str) -> Verdict,
    ) -> Finding {
        self.judge(seen, |fact| match fact {
            Ok(()) => ok(works),
            Err(why) => otherwise(why),
        })
    }
}

fn not_probed(why: &NotSeen) -> Verdict {
    let verdict = unknown(format!("not probed: {why}"));
    match why {
        NotSeen::NeedsRoot => verdict.fix(AS_ROOT),
        NotSeen::Without(what) => verdict.fix(format!("mend {what} first")),
        NotSeen::NotMounted(kind, at) => verdict.fix(format!("mount -t {kind} none {at}")),
        NotSeen::Error(_) => verdict,
    }
}

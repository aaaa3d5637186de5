//! Tests of the log as a whole: the chain, files under attack, and writers that are killed.

mod attacks;
mod chain;
mod crash;
mod store;
mod writing;

use std::path::Path;

use super::verify::{Condition, Report, verify};
use super::*;
use crate::outcome::{Decision, Reason};

fn options(dir: &Path, session: &str) -> AuditOptions {
    AuditOptions { checkpoint_every: 8, ..AuditOptions::new(dir, SessionId(session.into())) }
}

fn open(dir: &Path, session: &str) -> Audit {
    Audit::open(&options(dir, session)).unwrap()
}

fn layout(dir: &Path) -> Layout {
    Layout::new(dir, None)
}

fn draft(n: u64) -> Draft {
    Draft::new(Event::Request, Decision::Allow)
        .agent_names(vec!["a".into(), "b".into()])
        .host_text("api.test")
        .port(443)
        .request("GET", &format!("/item/{n}?token=x"), http::Version::HTTP_11)
}

/// A closed session of `n` records beside its first and last.
fn session(dir: &Path, name: &str, n: u64) {
    let audit = open(dir, name);
    for i in 0..n {
        audit.record(draft(i)).unwrap();
    }
    audit.close().unwrap();
}

fn check(dir: &Path) -> Report {
    verify(&layout(dir), None)
}

fn condition(dir: &Path) -> Condition {
    check(dir).condition()
}

//! The audit command on logs that the tests write.

use clap::Parser;

use super::*;
use crate::audit::{Audit, AuditOptions, Draft, Event};
use crate::identify::SessionId;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|c| c.args)
}

#[test]
fn the_command_line_is_what_the_manual_says() {
    let good = [
        "audit",
        "audit --agent a --session s --host h --decision deny --since 2h --last 5 --follow --json",
        "audit --decision would-deny",
        "audit verify --checkpoint f --json",
        "audit export --format csv --last 3",
        "audit report --since 2025-01-01 --json",
    ];
    for line in good {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in ["audit --decision maybe", "audit --since soon", "audit --last -1", "audit fix"] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn records_are_listed_and_verified() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&AuditOptions::new(dir.path(), SessionId("s1".into()))).unwrap();
    let deny = Draft::new(Event::Request, Decision::Deny)
        .host_text("evil\u{1b}[2J.test")
        .port(443)
        .request("POST", "/steal?secret=1", http::Version::HTTP_11)
        .reason(crate::outcome::Reason::NoRule);
    audit.record(deny).unwrap();
    let layout = Layout::new(dir.path(), None);
    let mut out = Vec::new();
    let filter = Filter { decision: Some(Decision::Deny), ..Filter::default() };
    // While the session runs.
    list(&layout, &filter, false, false, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("evil\\u{1b}[2J.test:443"), "{text}");
    assert!(text.contains("POST /steal") && !text.contains("secret"), "{text}");
    assert_eq!(text.lines().count(), 2, "a header and one record:\n{text}");
    audit.close().unwrap();
    let report = verify(&layout, None);
    assert_eq!(report.condition(), Condition::Intact, "{report:?}");
    let mut out = Vec::new();
    print_verdict(&report, true, &mut out).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&json["condition"], &json["records"]), (&"intact".into(), &3.into()));
}

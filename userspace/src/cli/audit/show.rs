//! Records as a person reads them.

use std::io::{self, Write};

use crate::audit::query::Line;
use crate::audit::{Record, Summary, SummaryRow};
use crate::cli::output::{Cell, Colour, Style, table};
use crate::outcome::Decision;

/// Widths that hold what is usual, so that `--follow` stays aligned.
const WIDTHS: [usize; 6] = [19, 8, 10, 8, 20, 6];

/// Prints lines as a table, or as they stand in the journal.
pub(super) fn lines(
    out: &mut dyn Write,
    style: Style,
    json: bool,
    lines: &[Line],
    header: bool,
) -> io::Result<()> {
    if json {
        return lines.iter().try_for_each(|l| writeln!(out, "{}", l.text));
    }
    let names = ["TIME (UTC)", "AGENT", "DECISION", "EVENT", "DESTINATION", "RESULT", "DETAIL"];
    let head = names.map(|n| (Colour::Dim, n.to_owned())).to_vec();
    let rows = header.then_some(head).into_iter().chain(lines.iter().map(|l| row(&l.record)));
    table(out, style, &WIDTHS, &rows.collect::<Vec<_>>())
}

fn row(r: &Record) -> Vec<Cell> {
    let time = r.time.to_string();
    let colour = match r.decision {
        Decision::Allow => Colour::Green,
        Decision::Deny => Colour::Red,
        Decision::Ask | Decision::WouldDeny => Colour::Yellow,
        Decision::Note => Colour::Plain,
    };
    let agent = if r.agent.is_empty() { r.session.to_string() } else { r.agent.join("/") };
    vec![
        (Colour::Dim, time[..19].replace('T', " ")),
        (Colour::Plain, agent),
        (colour, r.decision.as_str().to_owned()),
        (Colour::Plain, r.event.as_str().to_owned()),
        (Colour::Plain, destination(r)),
        (colour, result(r)),
        (Colour::Plain, detail(r)),
    ]
}

fn destination(r: &Record) -> String {
    let host = r.host().unwrap_or_default();
    match r.destination.as_ref().and_then(|d| d.port) {
        Some(port) if !host.is_empty() => format!("{host}:{port}"),
        _ => host.into_owned(),
    }
}

fn result(r: &Record) -> String {
    let status = r.request.as_ref().and_then(|q| q.status);
    match (r.reason, status) {
        (Some(reason), _) => reason.as_str().to_owned(),
        (None, Some(status)) => status.to_string(),
        (None, None) => String::new(),
    }
}

fn detail(r: &Record) -> String {
    let mut parts = Vec::new();
    if let Some(q) = &r.request {
        parts.extend(q.method.clone());
        parts.extend(q.path.clone());
    }
    parts.extend(r.rule.as_ref().map(|rule| format!("[{rule}]")));
    if !r.credentials.is_empty() {
        parts.push(format!("+{}", r.credentials.join(",")));
    }
    if let Some(b) = r.bytes {
        parts.push(format!("{}B up, {}B down", b.up, b.down));
    }
    parts.extend(r.duration_us.map(|us| format!("{}.{}ms", us / 1000, us % 1000 / 100)));
    parts.extend(r.message.clone());
    parts.extend(r.clock_back_us.map(|us| format!("(clock went back by {us} us)")));
    parts.join(" ")
}

/// Prints the counts of [`Summary`]; also used at the end of `egret run`.
pub(crate) fn summary(out: &mut dyn Write, style: Style, s: &Summary) -> io::Result<()> {
    let parts: [(&str, Colour, &[SummaryRow]); 4] = [
        ("allowed", Colour::Green, &s.allowed),
        ("refused", Colour::Red, &s.refused),
        ("would be refused", Colour::Yellow, &s.would_deny),
        ("failed", Colour::Yellow, &s.failed),
    ];
    let mut rows = Vec::new();
    for (name, colour, list) in parts {
        for row in list {
            let reason = row.reason.map_or("", |r| r.as_str());
            rows.push(vec![
                (colour, name.to_owned()),
                (Colour::Plain, format!("{:>6}", row.count)),
                (Colour::Plain, row.host.to_string()),
                (Colour::Dim, reason.to_owned()),
            ]);
        }
    }
    if rows.is_empty() {
        rows.push(vec![(Colour::Dim, "no decisions".to_owned())]);
    }
    table(out, style, &[], &rows)
}

/// time, session, seq, agent, event, decision, reason, rule, host, port, method, path, status,
/// up, down, `duration_us`, message.
pub(super) fn csv_row(out: &mut dyn Write, r: &Record) -> io::Result<()> {
    let q = r.request.as_ref();
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let cells = [
        r.time.to_string(),
        r.session.to_string(),
        r.seq.to_string(),
        r.agent.join("/"),
        r.event.as_str().to_owned(),
        r.decision.as_str().to_owned(),
        r.reason.map_or_else(String::new, |x| x.as_str().to_owned()),
        r.rule.as_deref().unwrap_or_default().to_owned(),
        r.host().unwrap_or_default().into_owned(),
        number(r.destination.as_ref().and_then(|d| d.port).map(u64::from)),
        q.and_then(|q| q.method.clone()).unwrap_or_default(),
        q.and_then(|q| q.path.clone()).unwrap_or_default(),
        number(q.and_then(|q| q.status).map(u64::from)),
        number(r.bytes.map(|b| b.up)),
        number(r.bytes.map(|b| b.down)),
        number(r.duration_us),
        r.message.clone().unwrap_or_default(),
    ];
    writeln!(out, "{}", cells.map(|c| csv_cell(&c)).join(","))
}

/// Quoted where needed; control characters escaped; a cell that a spreadsheet would run as a
/// formula gets an apostrophe in front.
fn csv_cell(text: &str) -> String {
    let text = crate::audit::line::printable(text);
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_are_quoted_and_never_formulas() {
        let cases = [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd()", "'=cmd()"),
            ("a\nb", "a\\u{a}b"),
        ];
        for (text, want) in cases {
            assert_eq!(csv_cell(text), want);
        }
    }
}

//! Pure: the table of attacks as text, as Markdown between two markers, and compared with the one
//! that was there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const BEGIN: &str = "<!-- attacks: begin -->\n";
const END: &str = "<!-- attacks: end -->\n";
const USERS: [&str; 2] = ["uid1000", "uid0"];

/// How many probes of one line, for one user, ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    leaked: u32,
    held: u32,
    stated: u32,
    skipped: u32,
}

impl Cell {
    fn text(self) -> String {
        let Self { leaked, held, stated, skipped } = self;
        let parts: Vec<String> =
            [("LEAKED", leaked), ("held", held), ("stated", stated), ("skipped", skipped)]
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(what, n)| format!("{what} {n}"))
                .collect();
        if parts.is_empty() { "not yet".to_owned() } else { parts.join(", ") }
    }

    fn read(text: &str) -> Option<Self> {
        let mut cell = Self::default();
        if text == "not yet" {
            return Some(cell);
        }
        for part in text.split(", ") {
            let (what, number) = part.split_once(' ')?;
            let field = match what {
                "LEAKED" => &mut cell.leaked,
                "held" => &mut cell.held,
                "stated" => &mut cell.stated,
                "skipped" => &mut cell.skipped,
                _ => return None,
            };
            *field = number.parse().ok()?;
        }
        Some(cell)
    }

    /// Controls that succeeded, of all.
    fn controls(self) -> String {
        let succeeded = self.leaked + self.held + self.stated;
        format!("{succeeded}/{}", succeeded + self.skipped)
    }
}

/// One line of the catalogue.
pub(super) struct Line {
    number: u64,
    title: String,
    cells: [Cell; 2],
    /// (`LEAKED` or `skipped`, probe and users, why)
    remarks: Vec<(&'static str, String, String)>,
    stated: bool,
    not_yet: Vec<String>,
}

impl Line {
    /// From what the end-to-end binary printed.
    pub(super) fn read(object: &Value) -> Result<Self> {
        let number = object["line"].as_u64().context("a line has a number")?;
        let mut line = Self {
            number,
            title: object["title"].as_str().unwrap_or_default().to_owned(),
            cells: Default::default(),
            remarks: Vec::new(),
            stated: object["stated"].as_array().is_some_and(|s| !s.is_empty()),
            not_yet: strings(&object["not_yet"]),
        };
        for (cell, user) in line.cells.iter_mut().zip(USERS) {
            let found = &object[user];
            let count = |key: &str| -> Result<u32> {
                let items = found[key].as_array();
                Ok(u32::try_from(items.with_context(|| format!("line {number}: {key}"))?.len())?)
            };
            *cell = Cell {
                leaked: count("leaked")?,
                held: count("held")?,
                stated: count("stated")?,
                skipped: count("skipped")?,
            };
            for (what, key) in [("LEAKED", "leaked"), ("skipped", "skipped")] {
                for item in found[key].as_array().into_iter().flatten() {
                    let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
                    let (probe, why) = (text("probe"), text("why"));
                    let user = user.replace("uid", "uid ");
                    let same = |r: &&mut (_, String, String)| {
                        r.0 == what && r.1.starts_with(&format!("{probe} (")) && r.2 == why
                    };
                    match line.remarks.iter_mut().find(same) {
                        Some(same) => same.1 = format!("{probe} (both users)"),
                        None => line.remarks.push((what, format!("{probe} ({user})"), why)),
                    }
                }
            }
        }
        Ok(line)
    }

    pub(super) fn has_leak(&self) -> bool {
        self.cells.iter().any(|c| c.leaked > 0)
    }

    fn controls(&self) -> String {
        let [user, root] = self.cells.map(Cell::controls);
        if user == root { user } else { format!("{user}, {root}") }
    }

    /// What this line does not show.
    fn missing(&self) -> String {
        let skipped = self.remarks.iter().filter(|r| r.0 == "skipped").map(|r| {
            let probe = r.1.strip_suffix(" (both users)").unwrap_or(&r.1);
            format!("skipped: {probe}")
        });
        let not_yet = self.not_yet.iter().map(|n| format!("not yet: {n}"));
        let stated = self.stated.then(|| "see \"Not promised\"".to_owned());
        skipped.chain(not_yet).chain(stated).collect::<Vec<_>>().join("; ")
    }
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|v| Some(v.as_str()?.to_owned())).collect()
}

/// Probes held and probes skipped, for both users.
pub(super) fn sums(lines: &[Line]) -> (u32, u32) {
    let cells = || lines.iter().flat_map(|l| l.cells);
    (cells().map(|c| c.held).sum(), cells().map(|c| c.skipped).sum())
}

/// For a terminal.
pub(super) fn text(lines: &[Line]) -> String {
    let wide = lines.iter().map(|l| l.title.chars().count()).max().unwrap_or(0);
    let mut text =
        format!("{:>2}  {:wide$}  {:7}  {:26}  uid 0\n", "", "attack", "control", "uid 1000");
    let mut notes = String::new();
    for line in lines {
        let [user, root] = line.cells.map(Cell::text);
        let (number, title, controls) = (line.number, &line.title, line.controls());
        text += &format!("{number:>2}  {title:wide$}  {controls:7}  {user:26}  {root}\n");
        for (what, probe, why) in &line.remarks {
            notes += &format!("{number:>2}  {what} {probe}: {why}\n");
        }
    }
    let (held, skipped) = sums(lines);
    format!("{text}\n{notes}\n{held} probes held, {skipped} skipped\n")
}

/// The document with a new table between its markers.
pub(super) fn replaced(document: &str, lines: &[Line], kernel: &str) -> Result<String> {
    let (before, rest) = document.split_once(BEGIN).context("the document has no begin marker")?;
    let (_, after) = rest.split_once(END).context("the document has no end marker")?;
    let mut table = format!(
        "On Linux {kernel}, by `egret run`:\n\n\
         | | attack | control | uid 1000 | uid 0 | not shown |\n|---|---|---|---|---|---|\n"
    );
    for line in lines {
        let [user, root] = line.cells.map(Cell::text);
        let (number, title) = (line.number, &line.title);
        let (controls, missing) = (line.controls(), line.missing());
        table += &format!("| {number} | {title} | {controls} | {user} | {root} | {missing} |\n");
    }
    let (held, skipped) = sums(lines);
    table += &format!("\n{held} probes held, {skipped} skipped.\n");
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// The cells of the table in the document, by the line's number.
pub(super) fn committed(document: &str) -> Result<BTreeMap<u64, [Cell; 2]>> {
    let table = document.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (table, _) = table.context("the document has no table of attacks between its markers")?;
    let mut found = BTreeMap::new();
    for row in table.lines().filter(|l| l.starts_with("| ")) {
        let fields: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(number) = fields.get(1).and_then(|n| n.parse().ok()) else { continue };
        let cell = |at: usize| {
            let text = fields.get(at).copied().unwrap_or_default();
            Cell::read(text).with_context(|| format!("line {number}: {text:?} is no result"))
        };
        found.insert(number, [cell(4)?, cell(5)?]);
    }
    ensure!(!found.is_empty(), "the table of attacks is empty; `--write` makes it");
    Ok(found)
}

/// What is worse than it was. Skips are compared only where the table was made.
pub(super) fn compare(
    lines: &[Line],
    before: &BTreeMap<u64, [Cell; 2]>,
    with_skips: bool,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for line in lines {
        let Some(known) = before.get(&line.number) else {
            complaints.push(format!("line {} is not in the committed table", line.number));
            continue;
        };
        for ((now, then), user) in line.cells.iter().zip(known).zip(USERS) {
            let mut say = |what: &str, then: u32, now: u32| {
                complaints.push(format!("line {} {user}: {what} {then} -> {now}", line.number));
            };
            if now.leaked > then.leaked {
                say("LEAKED", then.leaked, now.leaked);
            }
            if now.stated > then.stated {
                say("stated", then.stated, now.stated);
            }
            if with_skips && now.skipped > then.skipped {
                say("skipped", then.skipped, now.skipped);
            }
            if with_skips && now.held < then.held {
                say("held", then.held, now.held);
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(held: usize, leaked: usize, skipped: usize) -> Line {
        let pairs = |n| vec![json!({ "probe": "p", "why": "because" }); n];
        let cell = json!({
            "held": vec!["p"; held], "leaked": pairs(leaked), "stated": [], "skipped": pairs(skipped),
        });
        let object = json!({
            "line": 6, "title": "t", "stated": [], "not_yet": [], "uid1000": cell, "uid0": cell,
        });
        Line::read(&object).unwrap()
    }

    const DOCUMENT: &str = "# a\n<!-- attacks: begin -->\nold\n<!-- attacks: end -->\nb\n";

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_changes() {
        let written = replaced(DOCUMENT, &[line(3, 0, 2)], "6.1").unwrap();
        assert!(written.starts_with("# a\n") && written.ends_with("b\n"));
        assert!(!written.contains("old"));
        let cell = Cell { held: 3, skipped: 2, ..Cell::default() };
        assert_eq!(committed(&written).unwrap(), BTreeMap::from([(6, [cell, cell])]));
        for broken in [DOCUMENT, "nothing", "<!-- attacks: begin -->\n| 6 | t | 1/1 | ok | ok |"] {
            assert!(committed(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn only_what_is_worse_is_complained_about() {
        let before = committed(&replaced(DOCUMENT, &[line(3, 0, 2)], "6.1").unwrap()).unwrap();
        for (now, here, elsewhere) in [
            (line(3, 0, 2), 0, 0),
            (line(5, 0, 0), 0, 0),
            (line(2, 0, 2), 2, 0), // a probe is gone
            (line(2, 0, 3), 4, 0),
            (line(2, 1, 2), 4, 2),
        ] {
            assert_eq!(compare(std::slice::from_ref(&now), &before, true).len(), here);
            assert_eq!(compare(&[now], &before, false).len(), elsewhere);
        }
        assert_eq!(compare(&[line(1, 0, 0)], &BTreeMap::new(), true).len(), 1);
    }
}

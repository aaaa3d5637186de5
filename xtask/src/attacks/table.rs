//! Pure: the results of the attacks, as text for a terminal.

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) const USERS: [&str; 2] = ["uid1000", "uid0"];

/// How many probes of one line, for one user, ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) leaked: u32,
    pub(super) held: u32,
    pub(super) stated: u32,
    pub(super) skipped: u32,
}

impl Cell {
    pub(super) fn text(self) -> String {
        let Self { leaked, held, stated, skipped } = self;
        let parts: Vec<String> =
            [("LEAKED", leaked), ("held", held), ("stated", stated), ("skipped", skipped)]
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(what, n)| format!("{what} {n}"))
                .collect();
        if parts.is_empty() { "not yet".to_owned() } else { parts.join(", ") }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
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

/// One line of the catalogue in one mode.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) mode: String,
    pub(super) number: u64,
    pub(super) title: String,
    pub(super) cells: [Cell; 2],
    /// (`LEAKED` or `skipped`, probe and users, why)
    remarks: Vec<(&'static str, String, String)>,
    stated: bool,
    not_yet: Vec<String>,
    /// Probes that make no sense in this mode.
    absent: Vec<String>,
}

impl Line {
    /// From what the end-to-end binary printed.
    pub(super) fn read(object: &Value) -> Result<Self> {
        let number = object["line"].as_u64().context("a line has a number")?;
        let absent = object["absent"].as_array().into_iter().flatten();
        let mut line = Self {
            mode: object["mode"].as_str().context("a line has a mode")?.to_owned(),
            number,
            title: object["title"].as_str().unwrap_or_default().to_owned(),
            cells: Default::default(),
            remarks: Vec::new(),
            stated: object["stated"].as_array().is_some_and(|s| !s.is_empty()),
            not_yet: strings(&object["not_yet"]),
            absent: absent.filter_map(|a| Some(a["probe"].as_str()?.to_owned())).collect(),
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

    /// What leaked and what was skipped, with the reasons.
    pub(super) fn remarked(&self) -> Vec<String> {
        let remark = |(what, probe, why): &(&str, String, String)| {
            format!("{} {}: {what} {probe}: {why}", self.mode, self.number)
        };
        self.remarks.iter().map(remark).collect()
    }

    pub(super) fn controls(&self) -> String {
        let [user, root] = self.cells.map(Cell::controls);
        if user == root { user } else { format!("{user}, {root}") }
    }

    /// What this line does not show.
    pub(super) fn missing(&self) -> String {
        let skipped = self.remarks.iter().filter(|r| r.0 == "skipped").map(|r| {
            let probe = r.1.strip_suffix(" (both users)").unwrap_or(&r.1);
            format!("skipped: {probe}")
        });
        let not_yet = self.not_yet.iter().map(|n| format!("not yet: {n}"));
        let absent = (!self.absent.is_empty())
            .then(|| format!("not in this mode: {}", self.absent.join(", ")));
        let stated = self.stated.then(|| "see \"Not promised\"".to_owned());
        skipped.chain(not_yet).chain(absent).chain(stated).collect::<Vec<_>>().join("; ")
    }
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|v| Some(v.as_str()?.to_owned())).collect()
}

/// Probes held and probes skipped, for both users.
pub(super) fn sums<'a>(lines: impl Iterator<Item = &'a Line>) -> (u32, u32) {
    let cells = lines.flat_map(|l| l.cells);
    cells.fold((0, 0), |(held, skipped), cell| (held + cell.held, skipped + cell.skipped))
}

/// The modes that were played, in their order.
pub(super) fn modes(lines: &[Line]) -> Vec<&str> {
    let mut modes: Vec<&str> = Vec::new();
    for line in lines {
        if !modes.contains(&line.mode.as_str()) {
            modes.push(&line.mode);
        }
    }
    modes
}

/// The lines of one mode.
pub(super) fn of<'a>(lines: &'a [Line], mode: &str) -> Vec<&'a Line> {
    lines.iter().filter(|l| l.mode == mode).collect()
}

/// For a terminal: a table for each mode.
pub(super) fn text(lines: &[Line]) -> String {
    let tables = modes(lines).into_iter().map(|mode| {
        let table = table(&of(lines, mode));
        format!("egret {mode}\n{table}\n")
    });
    tables.collect()
}

fn table(lines: &[&Line]) -> String {
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
    let (held, skipped) = sums(lines.iter().copied());
    format!("{text}\n{notes}\n{held} probes held, {skipped} skipped\n")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::attacks) fn line(mode: &str, held: usize, leaked: usize, skipped: usize) -> Line {
        let pairs = |n| vec![json!({ "probe": "p", "why": "because" }); n];
        let cell = json!({
            "held": vec!["p"; held], "leaked": pairs(leaked), "stated": [], "skipped": pairs(skipped),
        });
        let object = json!({
            "line": 6, "title": "t", "mode": mode, "stated": [], "not_yet": [],
            "absent": [{ "probe": "q", "why": "because" }], "uid1000": cell, "uid0": cell,
        });
        Line::read(&object).unwrap()
    }

    #[test]
    fn a_cell_is_read_as_it_was_written() {
        for cell in [
            Cell::default(),
            Cell { held: 3, ..Cell::default() },
            Cell { leaked: 1, held: 2, stated: 3, skipped: 4 },
        ] {
            assert_eq!(Cell::read(&cell.text()), Some(cell));
        }
        assert_eq!(Cell::read("fine"), None);
    }

    #[test]
    fn each_mode_has_a_table() {
        let lines = [line("run", 3, 0, 0), line("attach", 2, 1, 0)];
        let text = text(&lines);
        let run = text.find("egret run").unwrap();
        let attach = text.find("egret attach").unwrap();
        assert!(
            run < attach && text[attach..].contains("LEAKED p (both users): because"),
            "{text}"
        );
        assert!(text[..attach].contains("6 probes held, 0 skipped"), "{text}");
        assert!(lines[0].missing().contains("not in this mode: q"));
        assert_eq!(lines[0].remarked(), [""; 0]);
        assert_eq!(lines[1].remarked(), ["attach 6: LEAKED p (both users): because"]);
    }
}

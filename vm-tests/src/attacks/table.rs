//! Pure: the lines of the table, for people and for programs.

use serde_json::{Value, json};

use super::judge::{Findings, Outcome};
use super::{Attack, Mode, Who};

/// What one line of the catalogue came to.
pub(super) struct Line {
    number: u8,
    title: &'static str,
    mode: Mode,
    cells: Vec<(Who, Cell)>,
    stated: Vec<&'static str>,
    not_yet: &'static [&'static str],
}

/// One line for one user.
#[derive(Default)]
struct Cell {
    held: Vec<&'static str>,
    leaked: Vec<(&'static str, String)>,
    stated: Vec<&'static str>,
    skipped: Vec<(&'static str, String)>,
}

impl Line {
    pub(super) fn of(attack: &Attack, mode: Mode, findings: &Findings) -> Self {
        let mut stated: Vec<&'static str> = attack.stated.to_vec();
        let cells = Who::ALL
            .iter()
            .map(|who| {
                let cell = Cell::of(attack, *who, findings, &mut stated);
                (*who, cell)
            })
            .collect();
        stated.dedup();
        let Attack { number, title, not_yet, .. } = attack;
        Self { number: *number, title, mode, cells, stated, not_yet }
    }

    pub(super) fn has_leak(&self) -> bool {
        self.cells.iter().any(|(_, cell)| !cell.leaked.is_empty())
    }

    /// What leaked and what was skipped: probe, users, which of the two, and why.
    fn remarks(&self) -> Vec<(&'static str, String, &'static str, &str)> {
        let mut remarks: Vec<(&'static str, String, &'static str, &str)> = Vec::new();
        for (who, cell) in &self.cells {
            let uid = format!("uid {}", who.uid());
            for (what, pairs) in [("LEAKED", &cell.leaked), ("skipped", &cell.skipped)] {
                for (id, why) in pairs {
                    match remarks.iter_mut().find(|r| (r.0, r.2, r.3) == (id, what, why)) {
                        Some(same) => same.1 += &format!(", {uid}"),
                        None => remarks.push((id, uid.clone(), what, why)),
                    }
                }
            }
        }
        remarks
    }

    /// One object on one line.
    pub(super) fn json(&self) -> Value {
        let mut line = json!({
            "line": self.number,
            "title": self.title,
            "mode": match self.mode { Mode::Run => "run" },
            "stated": self.stated,
            "not_yet": self.not_yet,
        });
        for (who, cell) in &self.cells {
            let pairs = |pairs: &[(&'static str, String)]| -> Value {
                pairs.iter().map(|(id, why)| json!({ "probe": id, "why": why })).collect()
            };
            line[format!("uid{}", who.uid())] = json!({
                "held": cell.held,
                "leaked": pairs(&cell.leaked),
                "stated": cell.stated,
                "skipped": pairs(&cell.skipped),
            });
        }
        line
    }
}

impl Cell {
    fn of(attack: &Attack, who: Who, findings: &Findings, stated: &mut Vec<&'static str>) -> Self {
        let mut cell = Self::default();
        let found = |id| findings.get(&(id, who));
        // A control inside that failed takes the line's other probes with it.
        let failed = attack.probes.iter().filter(|p| p.passes).find_map(|p| match found(p.id) {
            Some(Outcome::Passed) => None,
            Some(Outcome::Skipped(why)) => Some(format!("{}: {why}", p.id)),
            other => Some(format!("{}: {other:?}", p.id)),
        });
        let ids = attack.probes.iter().filter(|p| !p.passes).map(|p| p.id);
        for id in ids.chain(attack.specials.iter().map(|s| s.id)) {
            match found(id) {
                Some(Outcome::Leaked(what)) => cell.leaked.push((id, what.clone())),
                Some(Outcome::Stated(sentence)) => {
                    cell.stated.push(id);
                    stated.push(sentence);
                }
                Some(Outcome::Held) => match &failed {
                    None => cell.held.push(id),
                    Some(why) => cell.skipped.push((id, why.clone())),
                },
                Some(Outcome::Skipped(why)) => cell.skipped.push((id, why.clone())),
                Some(Outcome::Passed) => {}
                None => cell.skipped.push((id, "this machine has no IPv6".into())),
            }
        }
        cell
    }

    fn text(&self) -> String {
        let parts = [
            ("LEAKED", self.leaked.len()),
            ("held", self.held.len()),
            ("stated", self.stated.len()),
            ("skipped", self.skipped.len()),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {n}")).collect();
        if parts.is_empty() { "not yet".into() } else { parts.join(", ") }
    }
}

/// The table, and below it what leaked and what was skipped.
pub(super) fn text(lines: &[Line]) -> String {
    let mut text = format!("{:>2}  {:52}  {:20}  uid 0\n", "", "attack", "uid 1000");
    let mut notes = String::new();
    for line in lines {
        let title: String = line.title.chars().take(52).collect();
        let cells: Vec<String> =
            line.cells.iter().map(|(_, cell)| format!("{:20}", cell.text())).collect();
        text += format!("{:>2}  {title:52}  {}", line.number, cells.join("  ")).trim_end();
        text += "\n";
        for (id, uids, what, why) in line.remarks() {
            notes += &format!("{:>2}  {what} {id} ({uids}): {why}\n", line.number);
        }
    }
    format!("{text}\n{notes}")
}

//! Pure: the lines of the table, for people and for programs.

use serde_json::{Value, json};

use super::judge::{Findings, Outcome};
use super::kinds::{Attack, Known, Mode, Note, Who};

/// What one line of the catalogue came to.
pub(super) struct Line {
    number: u8,
    title: &'static str,
    mode: Mode,
    cells: Vec<(Who, Cell)>,
    stated: Vec<&'static str>,
    not_yet: Vec<&'static str>,
    /// Probes that make no sense in this mode, and why.
    absent: Vec<(&'static str, &'static str)>,
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
        let here = |notes: &'static [Note]| -> Vec<&'static str> {
            notes.iter().filter(|n| n.modes.contains(&mode)).map(|n| n.text).collect()
        };
        let mut stated = here(attack.stated);
        let cells = Who::ALL
            .iter()
            .map(|who| {
                let cell = Cell::of(attack, mode, *who, findings, &mut stated);
                (*who, cell)
            })
            .collect();
        stated.dedup();
        let absent = attack.probes.iter().filter_map(|p| match p.known(mode) {
            Known::Absent(why) => Some((p.id, why)),
            Known::Holds | Known::Through(..) => None,
        });
        let absent = absent.collect();
        let (number, title, not_yet) = (attack.number, attack.title, here(attack.not_yet));
        Self { number, title, mode, cells, stated, not_yet, absent }
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
        let absent = self.absent.iter();
        let absent: Value = absent.map(|(id, why)| json!({ "probe": id, "why": why })).collect();
        let mut line = json!({
            "line": self.number,
            "title": self.title,
            "mode": self.mode.name(),
            "stated": self.stated,
            "not_yet": self.not_yet,
            "absent": absent,
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
    fn of(
        attack: &Attack,
        mode: Mode,
        who: Who,
        findings: &Findings,
        stated: &mut Vec<&'static str>,
    ) -> Self {
        let mut cell = Self::default();
        let found = |id| findings.get(&(id, who));
        // A control inside that failed takes the line's other probes with it.
        let present = || attack.probes.iter().filter(|p| !p.is_absent(mode));
        let failed = present().filter(|p| p.passes).find_map(|p| match found(p.id) {
            Some(Outcome::Passed) => None,
            Some(Outcome::Skipped(why)) => Some(format!("{}: {why}", p.id)),
            other => Some(format!("{}: {other:?}", p.id)),
        });
        let ids = present().filter(|p| !p.passes).map(|p| p.id);
        let specials = attack.specials.iter().filter(|s| s.modes.contains(&mode)).map(|s| s.id);
        for id in ids.chain(specials) {
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

//! Pure: the tables in the document, one section for each kernel and mode between two markers:
//! read, replaced, and compared with what was played.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::table::{self, Cell, Line, USERS};

const BEGIN: &str = "<!-- attacks: begin -->\n";
const END: &str = "<!-- attacks: end -->\n";
const HEADING: &str = "### Linux ";

/// What a section is about: the kernel's series and the mode.
type About = (String, String);

/// The cells of a section, by the number of the line.
type Cells = BTreeMap<u64, [Cell; 2]>;

/// What the document says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Committed(BTreeMap<About, Cells>);

/// What is worse than the document says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The line, if it is about one.
    pub(super) line: Option<u64>,
    pub(super) text: String,
}

impl Committed {
    pub(super) fn read(document: &str) -> Result<Self> {
        let mut found = BTreeMap::new();
        for (about, text) in sections(parts(document)?.1) {
            let name = format!("{} {}", about.0, about.1);
            found.insert(about, cells(text).context(name)?);
        }
        Ok(Self(found))
    }

    /// Compare what was played on this kernel. A kernel or a mode that the document does not have is
    /// held to what it says of the same mode on another kernel: that lacks other things, so skips
    /// and the numbers that follow from them are left out.
    pub(super) fn compare(&self, kernel: &str, lines: &[Line]) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for line in lines {
            let section = self.0.get(&(kernel.to_owned(), line.mode.clone()));
            let like = || self.0.iter().find(|(about, _)| about.1 == line.mode).map(|(_, c)| c);
            let known = section.or_else(like).and_then(|cells| cells.get(&line.number));
            compare_line(line, known, section.is_some(), &mut complaints);
        }
        complaints
    }

    /// Modes that the document has for this kernel and that were not played.
    pub(super) fn not_played(
        &self,
        kernel: &str,
        wanted: &[&str],
        lines: &[Line],
    ) -> Vec<Complaint> {
        let played = table::modes(lines);
        self.0
            .keys()
            .filter(|(of, mode)| of == kernel && wanted.contains(&mode.as_str()))
            .filter(|(_, mode)| !played.contains(&mode.as_str()))
            .map(|(_, mode)| Complaint { line: None, text: format!("{mode} was not played") })
            .collect()
    }
}

fn compare_line(
    line: &Line,
    known: Option<&[Cell; 2]>,
    strict: bool,
    complaints: &mut Vec<Complaint>,
) {
    let mut complain = |text: String| {
        let text = format!("{} {}: {text}", line.mode, line.number);
        complaints.push(Complaint { line: Some(line.number), text });
    };
    if strict && known.is_none() {
        complain("the line is not in the committed table".to_owned());
    }
    let nothing = [Cell::default(); 2];
    for ((now, then), user) in line.cells.iter().zip(known.unwrap_or(&nothing)).zip(USERS) {
        let mut say = |what: &str, then: u32, now: u32, worse: bool| {
            if worse {
                complain(format!("{user}: {what} {then} -> {now}"));
            }
        };
        say("LEAKED", then.leaked, now.leaked, now.leaked > then.leaked);
        let (more, fewer) = (now.skipped > then.skipped, now.held < then.held);
        // Another kernel has families that this one lacks, so only its own table says what is known.
        say("stated", then.stated, now.stated, strict && now.stated > then.stated);
        say("skipped", then.skipped, now.skipped, strict && more);
        say("held", then.held, now.held, strict && fewer);
    }
}

/// The document with the sections of this kernel that were played; the others stay.
pub(super) fn replaced(document: &str, lines: &[Line], kernel: &str) -> Result<String> {
    let (before, tables, after) = parts(document)?;
    let mut all: BTreeMap<About, String> =
        sections(tables).map(|(about, text)| (about, text.trim().to_owned())).collect();
    for mode in table::modes(lines) {
        let about = (kernel.to_owned(), mode.to_owned());
        all.insert(about, section(&table::of(lines, mode)));
    }
    let mut ordered: Vec<(About, String)> = all.into_iter().collect();
    // The newest kernel first, and `run` before `attach`.
    ordered.sort_by_key(|((kernel, mode), _)| (std::cmp::Reverse(numbers(kernel)), mode != "run"));
    let text: Vec<String> = ordered
        .iter()
        .map(|((kernel, mode), text)| format!("{HEADING}{kernel}, `egret {mode}`\n\n{text}\n"))
        .collect();
    Ok(format!("{before}{BEGIN}{}{END}{after}", text.join("\n")))
}

fn section(lines: &[&Line]) -> String {
    let mut text = "| | attack | control | uid 1000 | uid 0 | not shown |\n\
                    |---|---|---|---|---|---|\n"
        .to_owned();
    for line in lines {
        let [user, root] = line.cells.map(Cell::text);
        let (number, title) = (line.number, &line.title);
        let (controls, missing) = (line.controls(), line.missing());
        text += &format!("| {number} | {title} | {controls} | {user} | {root} | {missing} |\n");
    }
    let (held, skipped) = table::sums(lines.iter().copied());
    text + &format!("\n{held} probes held, {skipped} skipped.")
}

/// Before the tables, the tables, and after them.
fn parts(document: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) = document.split_once(BEGIN).context("the document has no begin marker")?;
    let (tables, after) = rest.split_once(END).context("the document has no end marker")?;
    Ok((before, tables, after))
}

/// Each section with what it is about; what has no such heading is none.
fn sections(tables: &str) -> impl Iterator<Item = (About, &str)> {
    tables.split(HEADING).filter_map(|section| {
        let (heading, text) = section.split_once('\n')?;
        let (kernel, mode) = heading.split_once(", `egret ")?;
        Some(((kernel.to_owned(), mode.trim_end_matches('`').to_owned()), text))
    })
}

fn cells(section: &str) -> Result<Cells> {
    let mut found = BTreeMap::new();
    for row in section.lines().filter(|l| l.starts_with("| ")) {
        let fields: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(number) = fields.get(1).and_then(|n| n.parse().ok()) else { continue };
        let cell = |at: usize| {
            let text = fields.get(at).copied().unwrap_or_default();
            Cell::read(text).with_context(|| format!("line {number}: {text:?} is no result"))
        };
        found.insert(number, [cell(4)?, cell(5)?]);
    }
    ensure!(!found.is_empty(), "the table is empty; `--write` makes it");
    Ok(found)
}

/// A series such as 6.18, to be ordered.
fn numbers(kernel: &str) -> Vec<u32> {
    kernel.split('.').filter_map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::line;
    use super::*;

    const DOCUMENT: &str = "# a\n<!-- attacks: begin -->\nold\n<!-- attacks: end -->\nb\n";

    fn written(document: &str, kernel: &str, lines: &[Line]) -> String {
        replaced(document, lines, kernel).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_changes() {
        let document = written(DOCUMENT, "6.1", &[line("run", 3, 0, 2)]);
        assert!(document.starts_with("# a\n") && document.ends_with("b\n"));
        assert!(!document.contains("old"));
        let cell = Cell { held: 3, skipped: 2, ..Cell::default() };
        let about = ("6.1".to_owned(), "run".to_owned());
        let expected = Committed(BTreeMap::from([(about, BTreeMap::from([(6, [cell, cell])]))]));
        assert_eq!(Committed::read(&document).unwrap(), expected);
        assert_eq!(written(&document, "6.1", &[line("run", 3, 0, 2)]), document);
        let broken = document.replace("held 3", "fine");
        assert!(Committed::read(&broken).is_err());
        assert!(Committed::read("nothing").is_err());
        assert_eq!(Committed::read(DOCUMENT).unwrap(), Committed(BTreeMap::new()));
    }

    #[test]
    fn a_section_replaces_its_own_and_stands_in_its_place() {
        let mut document = DOCUMENT.to_owned();
        for (kernel, mode) in
            [("6.1", "attach"), ("6.12", "run"), ("6.18", "run"), ("6.1", "run"), ("6.18", "run")]
        {
            document = written(&document, kernel, &[line(mode, 1, 0, 0)]);
        }
        let headings: Vec<&str> = document.lines().filter(|l| l.starts_with("### ")).collect();
        assert_eq!(
            headings,
            [
                "### Linux 6.18, `egret run`",
                "### Linux 6.12, `egret run`",
                "### Linux 6.1, `egret run`",
                "### Linux 6.1, `egret attach`",
            ]
        );
    }

    #[test]
    fn only_what_is_worse_is_complained_about() {
        let document = written(DOCUMENT, "6.1", &[line("run", 3, 0, 2)]);
        let before = Committed::read(&document).unwrap();
        for (now, here, elsewhere) in [
            (line("run", 3, 0, 2), 0, 0),
            (line("run", 5, 0, 0), 0, 0),
            (line("run", 2, 0, 2), 2, 0), // a probe is gone
            (line("run", 2, 0, 3), 4, 0),
            (line("run", 2, 1, 2), 4, 2),
            (line("attach", 2, 0, 3), 0, 0), // the document says nothing of it yet
            (line("attach", 2, 1, 0), 2, 2),
        ] {
            let now = [now];
            assert_eq!(before.compare("6.1", &now).len(), here, "{:?}", now[0].cells);
            assert_eq!(before.compare("6.18", &now).len(), elsewhere, "{:?}", now[0].cells);
        }
        let other = Committed::read(&document.replace("| 6 |", "| 7 |")).unwrap();
        assert_eq!(other.compare("6.1", &[line("run", 1, 0, 0)])[0].line, Some(6));
    }

    #[test]
    fn a_mode_that_was_there_must_be_played() {
        let lines = [line("run", 3, 0, 2), line("attach", 1, 0, 0)];
        let before = Committed::read(&written(DOCUMENT, "6.1", &lines)).unwrap();
        let missing = |kernel: &str, wanted: &[&str], lines: &[Line]| {
            before.not_played(kernel, wanted, lines).len()
        };
        assert_eq!(missing("6.1", &["run", "attach"], &lines), 0);
        assert_eq!(missing("6.1", &["run", "attach"], &lines[..1]), 1);
        assert_eq!(missing("6.1", &["run"], &lines[..1]), 0);
        assert_eq!(missing("6.18", &["run", "attach"], &[]), 0);
    }
}

//! Counting test results and printing the one table at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::vm;

/// Tests passed, failed and skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl Counts {
    pub(crate) fn of(passed: usize, failed: usize, skipped: usize) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { passed: count(passed), failed: count(failed), skipped: count(skipped) }
    }

    pub(crate) const fn one(passed: bool) -> Self {
        Self { passed: passed as u32, failed: !passed as u32, skipped: 0 }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The sum of all `test result:` lines in the output of cargo test or of the end-to-end binary.
pub(crate) fn counts_in(text: &str) -> Counts {
    let mut counts = Counts::default();
    for line in text.lines().filter_map(|l| l.trim().strip_prefix("test result: ")) {
        let number = |what: &str| -> u32 {
            line.split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
                .unwrap_or(0)
        };
        counts.add(Counts {
            passed: number("passed"),
            failed: number("failed"),
            skipped: number("ignored"),
        });
    }
    counts
}

/// The tests that failed, by the lines that cargo test and the end-to-end binary print of them.
pub(crate) fn failures_in(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let (name, verdict) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
        verdict.starts_with("FAILED").then(|| name.trim().to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// How a rung ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    NotRun,
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) counts: Counts,
    pub(crate) time: Duration,
    /// The log, or the reason why there is none.
    pub(crate) note: String,
    /// What failed, a line each. A log may stay on the machine; what is printed last is seen.
    pub(crate) failures: Vec<String>,
}

impl Row {
    pub(crate) fn new(name: &str, counts: Counts, time: Duration, log: &Path) -> Self {
        let verdict = if counts.failed > 0 { Verdict::Failed } else { Verdict::Passed };
        let failures = Vec::new();
        Self { name: name.to_owned(), verdict, counts, time, note: shortened(log), failures }
    }

    pub(crate) fn naming(self, failures: Vec<String>) -> Self {
        Self { failures, ..self }
    }

    pub(crate) fn not_run(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::NotRun,
            counts: Counts { skipped: 1, ..Counts::default() },
            time: Duration::ZERO,
            note: first_line(why),
            failures: Vec::new(),
        }
    }

    pub(crate) fn failed(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::Failed,
            counts: Counts::one(false),
            time: Duration::ZERO,
            note: first_line(why),
            failures: Vec::new(),
        }
    }

    pub(crate) fn from_vm(name: &str, run: &vm::Run) -> Self {
        let mut counts = run.counts;
        // A crash before the closing line must not look like success.
        if run.exit != 0 && counts.failed == 0 {
            counts.failed = 1;
        }
        let boot = run.boot.as_secs();
        let mut row = Self::new(name, counts, run.total, &run.log).naming(run.failures.clone());
        row.note = format!("{} (Linux {}, boot {boot} s)", row.note, run.kernel);
        row
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn shortened(log: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    log.strip_prefix(here).unwrap_or(log).display().to_string()
}

/// The rungs that were climbed.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Print the table and the closing line. True if nothing failed and something passed.
    pub(crate) fn print(&self) -> bool {
        println!();
        print!("{}", self.text());
        let total = self.total();
        total.failed == 0 && total.passed > 0
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        for row in &self.rows {
            total.add(row.counts);
        }
        total
    }

    fn text(&self) -> String {
        let wide = self.rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(4);
        let mut text = format!(
            "{:wide$}  {:7}  {:>6}  {:>6}  {:>7}  {:>7}  log or reason\n",
            "rung", "result", "passed", "failed", "skipped", "seconds"
        );
        for row in &self.rows {
            let verdict = match row.verdict {
                Verdict::Passed => "ok",
                Verdict::Failed => "FAILED",
                Verdict::NotRun => "NOT RUN",
            };
            let Counts { passed, failed, skipped } = row.counts;
            let seconds = row.time.as_secs();
            text += &format!(
                "{:wide$}  {verdict:7}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:>7}  {}\n",
                row.name, row.note
            );
        }
        for row in &self.rows {
            for (at, failure) in row.failures.iter().enumerate() {
                let before = if at == 0 { "\n" } else { "" };
                text += &format!("{before}failed: {}: {failure}\n", row.name);
            }
        }
        let Counts { passed, failed, skipped } = self.total();
        text + &format!("\n{passed} passed, {failed} failed, {skipped} skipped\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_summed() {
        let cargo = "running 3 tests\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
             noise\n\
             test result: FAILED. 4 passed; 5 failed; 0 ignored; 0 measured; 9 filtered out\n";
        for (text, expected) in [
            (cargo, Counts { passed: 6, failed: 5, skipped: 1 }),
            ("", Counts::default()),
            ("the test result: was fine", Counts::default()),
        ] {
            assert_eq!(counts_in(text), expected, "{text}");
        }
    }

    #[test]
    fn the_last_line_is_plain_and_a_rung_not_run_is_loud() {
        let mut table = Table::default();
        let log = Path::new("/x/log");
        table.add(Row::new(
            "unit",
            Counts { passed: 7, failed: 0, skipped: 2 },
            Duration::ZERO,
            log,
        ));
        table.add(Row::not_run("vm 6.1", "no kernel"));
        let text = table.text();
        assert!(text.contains("NOT RUN") && text.contains("no kernel"), "{text}");
        assert_eq!(text.lines().last(), Some("7 passed, 0 failed, 3 skipped"));
        assert!(table.print());
        table.add(Row::failed("e2e", "why"));
        assert!(!table.print());
    }

    #[test]
    fn what_failed_is_named_where_it_is_seen() {
        let printed = "test policy::a ... ok\n   test http::b       ... FAILED (3.2 s)\n\
                       test c - should panic ... FAILED\ntest d ... ignored\nFAILED\n";
        assert_eq!(failures_in(printed), ["http::b", "c - should panic"]);
        let mut table = Table::default();
        let counts = Counts { passed: 1, failed: 2, skipped: 0 };
        let row = Row::new("e2e", counts, Duration::ZERO, Path::new("/x/log"));
        table.add(row.naming(failures_in(printed)));
        let text = table.text();
        assert!(text.ends_with(
            "\nfailed: e2e: http::b\nfailed: e2e: c - should panic\n\n1 passed, 2 failed, 0 skipped\n"
        ), "{text}");
    }

    #[test]
    fn nothing_run_is_not_success() {
        assert!(!Table::default().print());
    }
}

//! Searching the log: filters, and a reader that goes through the journals and can go on where it
//! stopped. It works while writers are writing; only whole lines are taken.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use super::chain;
use super::layout::Layout;
use super::record::Record;
use super::timestamp::Timestamp;
use crate::outcome::Decision;

/// What to look for. Every field that is present must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any name of the agent's chain.
    pub agent: Option<String>,
    pub session: Option<String>,
    /// A host name or address; `*.x` is any name below x.
    pub host: Option<String>,
    pub decision: Option<Decision>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Only so many, the latest.
    pub last: Option<usize>,
}

impl Filter {
    /// Whether `record` is wanted; [`Filter::last`] is the caller's business.
    pub fn matches(&self, record: &Record) -> bool {
        self.agent.as_ref().is_none_or(|a| record.agent.iter().any(|n| **n == **a))
            && self.session.as_ref().is_none_or(|s| *record.session == **s)
            && self.decision.is_none_or(|d| record.decision == d)
            && self.since.is_none_or(|t| record.time >= t)
            && self
                .host
                .as_ref()
                .is_none_or(|want| record.host().is_some_and(|have| host_matches(want, &have)))
    }
}

fn host_matches(want: &str, have: &str) -> bool {
    let (want, have) = (want.to_ascii_lowercase(), have.to_ascii_lowercase());
    match want.strip_prefix("*.") {
        Some(domain) => have.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => want == have,
    }
}

/// A record and its line, which is what its hash covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub journal: String,
    /// Without the newline; printable ASCII.
    pub text: String,
    pub record: Record,
    /// Where the record stands among those of other journals: its time, or that of the latest
    /// record before it in its journal when the clock went back.
    pub order: Timestamp,
}

/// Reads the journals, and later what was added to them.
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    at: HashMap<String, Position>,
    /// Lines that are not records or do not match their hash. `egret audit verify` says which.
    pub damaged: u64,
}

/// How far a journal was read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) offset: u64,
    pub(super) order: Timestamp,
}

impl Reader {
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), at: HashMap::new(), damaged: 0 }
    }

    /// The records past the last call that match, in the order of time.
    pub fn read(&mut self, filter: &Filter) -> io::Result<Vec<Line>> {
        let keep = filter.last.unwrap_or(usize::MAX);
        let mut all = Vec::new();
        for name in self.layout.journal_names()? {
            let mut latest = VecDeque::new();
            self.read_journal(&name, |line| {
                if filter.matches(&line.record) {
                    if latest.len() == keep {
                        latest.pop_front();
                    }
                    if keep > 0 {
                        latest.push_back(line);
                    }
                }
                Ok(())
            })?;
            all.extend(latest);
        }
        // Stable: within a journal the order never decreases, so its lines stay in sequence.
        all.sort_by_key(|l| l.order);
        Ok(all.split_off(all.len().saturating_sub(keep)))
    }

    /// Hands over every record past the last call, journal by journal.
    pub fn each(&mut self, mut f: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
        for name in self.layout.journal_names()? {
            self.read_journal(&name, &mut f)?;
        }
        Ok(())
    }

    /// Starts `name` at a position that another reader reached.
    pub(super) fn resume(&mut self, name: &str, at: Position) {
        self.at.insert(name.to_owned(), at);
    }

    pub(super) fn position(&self, name: &str) -> Position {
        self.at.get(name).copied().unwrap_or_default()
    }

    /// Hands over at most `max` records of one journal; true when there may be more.
    pub(super) fn read_some(
        &mut self,
        name: &str,
        max: usize,
        mut f: impl FnMut(Line),
    ) -> io::Result<bool> {
        self.read_lines(name, max, |line| {
            f(line);
            Ok(())
        })
    }

    fn read_journal(
        &mut self,
        name: &str,
        f: impl FnMut(Line) -> io::Result<()>,
    ) -> io::Result<()> {
        self.read_lines(name, usize::MAX, f).map(|_| ())
    }

    fn read_lines(
        &mut self,
        name: &str,
        max: usize,
        mut f: impl FnMut(Line) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut at = self.at.get(name).copied().unwrap_or_default();
        let mut file = match File::open(self.layout.journal(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        file.seek(SeekFrom::Start(at.offset))?;
        let mut file = BufReader::with_capacity(1 << 18, file);
        let mut raw = Vec::new();
        let mut left = max;
        while left > 0 && file.read_until(b'\n', &mut raw)? > 0 && raw.ends_with(b"\n") {
            at.offset += raw.len() as u64;
            match parse(&raw) {
                Some((text, record)) => {
                    at.order = at.order.max(record.time);
                    f(Line { journal: name.to_owned(), text, record, order: at.order })?;
                }
                None => self.damaged += 1,
            }
            raw.clear();
            left -= 1;
        }
        self.at.insert(name.to_owned(), at);
        Ok(left == 0)
    }
}

/// A line that matches its own hash.
pub(super) fn parse(raw: &[u8]) -> Option<(String, Record)> {
    chain::check_line(raw).ok()?;
    let text = std::str::from_utf8(raw.strip_suffix(b"\n")?).ok()?;
    Some((text.to_owned(), serde_json::from_str(text).ok()?))
}

/// Parses `--since`: RFC 3339, a date, or a duration before `now` such as `90s`, `10m`, `2h`, `1d`.
pub fn parse_since(text: &str, now: Timestamp) -> Option<Timestamp> {
    let date = |t: &str| Timestamp::parse(&format!("{t}T00:00:00Z"));
    if let Some(t) = Timestamp::parse(text).or_else(|| date(text)) {
        return Some(t);
    }
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let back = count.checked_mul(seconds)?.checked_mul(1_000_000)?;
    Some(Timestamp(now.0.saturating_sub(back)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_distance() {
        let now = Timestamp(100_000 * 1_000_000);
        let cases = [
            ("90s", Some(99_910)),
            ("10m", Some(99_400)),
            ("2h", Some(92_800)),
            ("1d", Some(13_600)),
            ("9999d", Some(0)),
            ("1970-01-02", Some(86_400)),
            ("1970-01-01T00:00:05Z", Some(5)),
            ("", None),
            ("m", None),
            ("-5m", None),
            ("5 minutes", None),
            ("99999999999999999999d", None),
        ];
        for (text, seconds) in cases {
            let want = seconds.map(|s: u64| Timestamp(s * 1_000_000));
            assert_eq!(parse_since(text, now), want, "{text}");
        }
    }

    #[test]
    fn hosts_match_exactly_or_below_a_domain() {
        let cases = [
            ("api.test", "api.test", true),
            ("API.test", "api.test", true),
            ("api.test", "xapi.test", false),
            ("*.test", "api.test", true),
            ("*.test", "a.b.test", true),
            ("*.test", "test", false),
            ("*.api.test", "xapi.test", false),
        ];
        for (want, have, yes) in cases {
            assert_eq!(host_matches(want, have), yes, "{want} {have}");
        }
    }
}

//! Checks the whole log offline, from its files alone; it needs no sled and changes nothing.
//!
//! What it cannot find: records cut from the end of a journal whose writer was killed, past its
//! last checkpoint; and a log that root rewrote together with its checkpoints. A checkpoint that
//! was copied elsewhere, given with `--checkpoint`, finds both.
//!
//! What it cannot tell apart: records that someone cut away, and records that a power failure took
//! from a log that was only promised to survive the death of egret ([`super::Durability`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::chain::{Flaw, Head, Seq};
use super::checkpoint::{self, Checkpoint, CheckpointFlaw, KeyChain, PublicKey};
use super::index::{Entry, Kind};
use super::layout::{INDEX, Layout};

/// What was found, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Intact,
    /// A killed writer left bytes of a record that was never acknowledged.
    TornTail,
    Unreadable,
    /// Records are missing at the end: a signed checkpoint or the index knows of more.
    Shorter,
    Tampered,
}

impl Condition {
    /// The exit code of `egret audit verify`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Intact => 0,
            Self::Tampered => 1,
            Self::TornTail => 2,
            Self::Unreadable => 3,
            Self::Shorter => 4,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub condition: Condition,
    /// A journal's name, or `index`.
    pub journal: String,
    /// The first record that is wrong or missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    pub what: String,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub journals: u64,
    pub records: u64,
    pub checkpoints: u64,
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of the findings.
    pub fn condition(&self) -> Condition {
        self.findings.iter().map(|f| f.condition).max().unwrap_or(Condition::Intact)
    }

    fn add(&mut self, condition: Condition, journal: &str, seq: Option<Seq>, what: String) {
        self.findings.push(Finding { condition, journal: journal.to_owned(), seq, what });
    }
}

/// What the index says of one journal.
#[derive(Debug, Default)]
struct Known {
    key: Option<PublicKey>,
    end: Option<Head>,
}

/// Verifies the log at `layout`, also against the checkpoints in the file `given`.
pub fn verify(layout: &Layout, given: Option<&Path>) -> Report {
    let mut report = Report::default();
    let mut outside = match given.map(read_given).transpose() {
        Ok(list) => list.unwrap_or_default(),
        Err(e) => {
            report.add(Condition::Unreadable, "checkpoint", None, e);
            return report;
        }
    };
    let found = match layout.journal_names() {
        Ok(names) => names,
        Err(e) => {
            report.add(Condition::Unreadable, INDEX, None, format!("the journals: {e}"));
            return report;
        }
    };
    let known = index(layout, outside.remove(INDEX).unwrap_or_default(), &mut report);
    for name in &found {
        let path = layout.journal(name);
        // A writer that is opening, or was killed while it did, has written nothing yet.
        let empty = fs::metadata(&path).is_ok_and(|m| m.len() == 0);
        if !known.contains_key(name) && !empty && !is_locked(&path) {
            let what = "the journal is not in the index".to_owned();
            report.add(Condition::Tampered, name, Some(Seq(1)), what);
        }
    }
    for (name, k) in &known {
        journal(layout, name, k, outside.remove(name).unwrap_or_default(), &mut report);
    }
    for name in outside.keys() {
        let what = "the journal of a given checkpoint does not exist".to_owned();
        report.add(Condition::Shorter, name, Some(Seq(1)), what);
    }
    report
}

/// Walks along the index, whose own checkpoints cover it, and collects what it says.
fn index(
    layout: &Layout,
    mut positions: Vec<Checkpoint>,
    report: &mut Report,
) -> BTreeMap<String, Known> {
    // Checkpoints first: what is appended meanwhile makes the file longer, never shorter.
    let mut lines = read_lines(&layout.checkpoints(INDEX)).unwrap_or_default();
    let first = lines.first().and_then(|l| checkpoint::check_line(l).ok()).map(|c| c.key);
    cut_unfinished(INDEX, &layout.index(), &mut lines, report);
    positions.extend(signed(INDEX, first, &lines, report));
    let mut known = BTreeMap::<String, Known>::new();
    let mut created = None;
    let walked = walk(INDEX, &layout.index(), &mut positions, report, |line| {
        let Ok(e) = serde_json::from_slice::<Entry>(line) else { return false };
        match e.kind {
            Kind::Created => created = e.key,
            Kind::Opened => known.entry(e.journal).or_default().key = e.key,
            Kind::Closed | Kind::Sealed | Kind::Damaged => {
                known.entry(e.journal).or_default().end = Some(Head {
                    seq: e.records.unwrap_or_default(),
                    hash: e.head.unwrap_or_default(),
                    size: e.size.unwrap_or_default(),
                });
            }
        }
        true
    });
    if walked.is_some_and(|h| h.seq > Seq(0)) && created != first {
        let what = "the index does not name the key that signed it first".to_owned();
        report.add(Condition::Tampered, INDEX, Some(Seq(1)), what);
    }
    known
}

fn journal(
    layout: &Layout,
    name: &str,
    known: &Known,
    mut positions: Vec<Checkpoint>,
    report: &mut Report,
) {
    let mut lines = match read_lines(&layout.checkpoints(name)) {
        Ok(lines) => lines,
        Err(e) => {
            report.add(Condition::Tampered, name, None, format!("its checkpoints: {e}"));
            Vec::new()
        }
    };
    let path = layout.journal(name);
    cut_unfinished(name, &path, &mut lines, report);
    positions.extend(signed(name, known.key, &lines, report));
    report.journals += 1;
    let mut records = 0;
    let Some(head) = walk(name, &path, &mut positions, report, |_| {
        records += 1;
        true
    }) else {
        return;
    };
    report.records += records;
    if let Some(end) = known.end
        && end != head
    {
        let shorter = head.seq < end.seq;
        let condition = if shorter { Condition::Shorter } else { Condition::Tampered };
        let (from, to) = (head.seq, end.seq);
        let at = if shorter { Seq(from.0 + 1) } else { Seq(to.0.min(from.0) + 1) };
        let what = format!("the index says that it ends with record {to}, not {from}");
        report.add(condition, name, Some(at), what);
    }
}

/// Drops half a checkpoint at the end. A living writer will finish it.
fn cut_unfinished(name: &str, journal: &Path, lines: &mut Vec<Vec<u8>>, report: &mut Report) {
    if lines.pop_if(|l| !l.ends_with(b"\n")).is_some() && !is_locked(journal) {
        let what = "its last checkpoint was never finished".to_owned();
        report.add(Condition::TornTail, name, None, what);
    }
}

/// The checkpoints of one journal whose signatures and keys are in order.
fn signed(
    name: &str,
    first: Option<PublicKey>,
    lines: &[Vec<u8>],
    report: &mut Report,
) -> Vec<Checkpoint> {
    let Some(first) = first else { return Vec::new() };
    let mut chain = KeyChain::new(name, first);
    let mut good = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        match chain.advance(line) {
            Ok(c) => good.push(c),
            Err(flaw) => {
                let seq = good.last().map_or(Seq(1), |c: &Checkpoint| Seq(c.seq.0 + 1));
                let what = format!("checkpoint {i}: {flaw}");
                report.add(Condition::Tampered, name, Some(seq), what);
                break;
            }
        }
    }
    report.checkpoints += good.len() as u64;
    good
}

/// Walks along one file, comparing with `positions` on the way. `None` when it is not whole; the
/// report says why.
fn walk(
    name: &str,
    path: &Path,
    positions: &mut [Checkpoint],
    report: &mut Report,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Option<Head> {
    positions.sort_by_key(|c| c.seq);
    let mut pending = positions.iter().peekable();
    let mut head = Head::start(name);
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::with_capacity(1 << 18, file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            report.add(Condition::Tampered, name, Some(Seq(1)), "the file is gone".to_owned());
            return None;
        }
        Err(e) => {
            report.add(Condition::Unreadable, name, None, e.to_string());
            return None;
        }
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if !line.ends_with(b"\n") => {
                if !is_locked(path) {
                    let what = format!("{} bytes of an unfinished record", line.len());
                    report.add(Condition::TornTail, name, Some(Seq(head.seq.0 + 1)), what);
                }
                break;
            }
            Ok(_) => {}
            Err(e) => {
                report.add(Condition::Unreadable, name, Some(Seq(head.seq.0 + 1)), e.to_string());
                return None;
            }
        }
        let result = head.advance(&line).and_then(|_| each(&line).then_some(()).ok_or(Flaw::Shape));
        if let Err(flaw) = result {
            report.add(Condition::Tampered, name, Some(Seq(head.seq.0 + 1)), flaw.to_string());
            return None;
        }
        while let Some(c) = pending.next_if(|c| c.seq == head.seq) {
            if c.head != head.hash || c.size != head.size {
                let what =
                    format!("record {} is not the one that checkpoint {} signed", c.seq, c.n);
                report.add(Condition::Tampered, name, Some(c.seq), what);
                return None;
            }
        }
    }
    if let Some(c) = pending.next_back() {
        let what =
            format!("it ends with record {}, checkpoint {} has seen {}", head.seq, c.n, c.seq);
        report.add(Condition::Shorter, name, Some(Seq(head.seq.0 + 1)), what);
    }
    Some(head)
}

fn read_lines(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    Ok(fs::read(path)?.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect())
}

/// Checkpoints from a file that was kept elsewhere, by journal. They are believed for where they
/// come from; their signature only proves that they are what egret wrote.
fn read_given(path: &Path) -> Result<HashMap<String, Vec<Checkpoint>>, String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut by_journal = HashMap::<String, Vec<Checkpoint>>::new();
    let mut seen = BTreeSet::new();
    for mut line in read_lines(path).map_err(|e| at(&e))? {
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        let c = checkpoint::check_line(&line).map_err(|e| at(&e))?;
        if seen.insert((c.journal.clone(), c.seq)) {
            by_journal.entry(c.journal.clone()).or_default().push(c);
        }
    }
    if by_journal.is_empty() {
        return Err(at(&CheckpointFlaw::Shape));
    }
    Ok(by_journal)
}

/// Whether a living writer has the file open.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_unlocked_again) => false,
        Err((_, e)) => e == nix::errno::Errno::EWOULDBLOCK,
    }
}

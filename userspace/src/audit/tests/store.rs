//! The searchable copy must say what the journals say, whatever happens to it.

use std::fs;

use super::*;
use crate::audit::query::{Filter, Line, Reader};
use crate::audit::store::Store;

/// Two sessions with different agents, hosts and decisions.
fn log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for s in ["one", "two"] {
        let audit = open(dir.path(), s);
        for i in 0..30 {
            let host = ["api.test", "www.api.test", "192.0.2.1", "other.test"][i % 4];
            let agent = ["a", "b", s][i % 3];
            let decision = [Decision::Allow, Decision::Deny][i % 2];
            let d = Draft::new(Event::Request, decision).host_text(host);
            audit.record(d.agent_names(vec!["root".into(), agent.into()])).unwrap();
        }
        audit.close().unwrap();
    }
    dir
}

fn filters() -> Vec<Filter> {
    let any = Filter::default();
    let some = |s: &str| Some(s.to_owned());
    vec![
        any.clone(),
        Filter { agent: some("root"), ..any.clone() },
        Filter { agent: some("a"), decision: Some(Decision::Deny), ..any.clone() },
        Filter { agent: some("nobody"), ..any.clone() },
        Filter { host: some("API.test"), ..any.clone() },
        Filter { host: some("*.test"), last: Some(7), ..any.clone() },
        Filter { host: some("192.0.2.1"), session: some("two"), ..any.clone() },
        Filter { decision: Some(Decision::Allow), last: Some(5), ..any.clone() },
        Filter { last: Some(0), ..any.clone() },
        Filter { since: Some(Timestamp(u64::MAX)), ..any },
    ]
}

fn from_journals(dir: &Path, filter: &Filter) -> Vec<Line> {
    Reader::new(&layout(dir)).read(filter).unwrap()
}

/// Fails unless the store itself, not the journals, gave the same answers.
fn assert_store_agrees(dir: &Path) {
    let store = Store::open(&layout(dir)).unwrap().expect("nobody else has it");
    store.catch_up(|| false).unwrap();
    for filter in filters() {
        let (lines, damaged) = store.select(&filter).unwrap();
        assert_eq!(damaged, 0);
        assert_eq!(lines, from_journals(dir, &filter), "{filter:?}");
    }
}

#[test]
fn the_store_answers_like_the_journals_and_catches_up() {
    let dir = log();
    assert_eq!(from_journals(dir.path(), &Filter::default()).len(), 64, "control");
    assert_store_agrees(dir.path());
    session(dir.path(), "three", 10);
    assert_store_agrees(dir.path());
}

#[test]
fn a_damaged_missing_or_foreign_store_is_rebuilt() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 5] = [
        ("removed", |store| fs::remove_dir_all(store).unwrap()),
        ("its data cut", |store| {
            let db = fs::OpenOptions::new().write(true).open(store.join("db")).unwrap();
            db.set_len(db.metadata().unwrap().len() / 2).unwrap();
        }),
        ("zeroes inside", |store| {
            let mut text = fs::read(store.join("db")).unwrap();
            let (from, to) = (text.len() / 8, text.len() / 2);
            text[from..to].fill(0);
            fs::write(store.join("db"), text).unwrap();
        }),
        ("bits flipped", |store| {
            let mut text = fs::read(store.join("db")).unwrap();
            text.iter_mut().step_by(997).for_each(|b| *b ^= 0x10);
            fs::write(store.join("db"), text).unwrap();
        }),
        ("a file in its place", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, b"not a store").unwrap();
        }),
    ];
    for (name, damage) in cases {
        let dir = log();
        assert_store_agrees(dir.path());
        damage(&layout(dir.path()).store());
        for filter in filters() {
            let found = search(&layout(dir.path()), &filter).unwrap();
            assert_eq!(found.lines, from_journals(dir.path(), &filter), "{name}: {filter:?}");
        }
    }
}

#[test]
fn a_store_in_use_and_a_log_being_written_can_be_searched() {
    let dir = log();
    let used = Store::open(&layout(dir.path())).unwrap().unwrap();
    assert!(Store::open(&layout(dir.path())).unwrap().is_none(), "control: it is locked");
    let audit = open(dir.path(), "live");
    audit.record(draft(1)).unwrap();
    let filter = Filter { session: Some("live".into()), ..Filter::default() };
    let found = |want| {
        let lines = search(&layout(dir.path()), &filter).unwrap().lines;
        assert_eq!(lines.len(), want);
    };
    found(2);
    drop(used);
    audit.record(draft(2)).unwrap();
    found(3);
    assert!(search(&layout(&dir.path().join("nothing")), &filter).is_err());
}

#[test]
fn a_follower_sees_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), "s");
    let mut reader = Reader::new(&layout(dir.path()));
    let mut seqs = |want: &[u64]| {
        let lines = reader.read(&Filter::default()).unwrap();
        let got: Vec<_> = lines.iter().map(|l| l.record.seq.0).collect();
        assert_eq!(got, want);
    };
    seqs(&[1]);
    audit.record(draft(1)).unwrap();
    audit.record(draft(2)).unwrap();
    seqs(&[2, 3]);
    seqs(&[]);
    audit.close().unwrap();
    seqs(&[4]);
}

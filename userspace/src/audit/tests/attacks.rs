//! Each attack on the files, beside the control that the untouched log is intact.

use std::fs;

use super::*;
use crate::audit::chain::{Hash, seal};
use crate::audit::line::to_ascii_json;

/// Two sessions of 20 records; returns the folder.
fn two() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    session(dir.path(), "one", 20);
    session(dir.path(), "two", 20);
    let report = check(dir.path());
    assert_eq!(report.condition(), Condition::Intact, "{report:?}");
    dir
}

fn lines(path: &Path) -> Vec<Vec<u8>> {
    fs::read(path).unwrap().split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

/// Rewrites the journal from record `from` on, with a perfect chain.
fn rechain(dir: &Path, name: &str, from: usize) {
    let path = layout(dir).journal(name);
    let mut prev = Hash::genesis(name);
    let mut out = Vec::new();
    for (i, line) in lines(&path).iter().enumerate() {
        let mut r: Record = serde_json::from_slice(line).unwrap();
        if i + 1 >= from {
            r.message = Some("rewritten".into());
        }
        (r.prev, r.hash) = (prev, None);
        let start = out.len();
        to_ascii_json(&r, &mut out).unwrap();
        prev = seal(&mut out, start, prev);
    }
    fs::write(path, out).unwrap();
}

fn seq(report: &Report) -> Option<u64> {
    report.findings.first().and_then(|f| f.seq).map(|s| s.0)
}

#[test]
fn changes_to_a_journal_are_named() {
    type Attack = fn(&Path);
    let cases: [(&str, Attack, Condition, Option<u64>); 9] = [
        (
            "a changed byte in record 5",
            |dir| {
                let path = layout(dir).journal("one");
                let mut all = lines(&path);
                all[4][30] ^= 1;
                fs::write(path, all.concat()).unwrap();
            },
            Condition::Tampered,
            Some(5),
        ),
        (
            "the last records cut away",
            |dir| {
                let path = layout(dir).journal("one");
                let all = lines(&path);
                fs::write(path, all[..10].concat()).unwrap();
            },
            Condition::Shorter,
            Some(11),
        ),
        (
            "cut inside a record",
            |dir| {
                let path = layout(dir).journal("one");
                let text = fs::read(&path).unwrap();
                fs::write(path, &text[..text.len() - 5]).unwrap();
            },
            Condition::Shorter,
            Some(22),
        ),
        (
            "rewritten with a perfect chain",
            |dir| rechain(dir, "one", 3),
            Condition::Tampered,
            Some(8),
        ),
        (
            "rewritten after the last checkpoint but one",
            |dir| rechain(dir, "one", 22),
            Condition::Tampered,
            Some(22),
        ),
        (
            "a journal removed",
            |dir| fs::remove_file(layout(dir).journal("two")).unwrap(),
            Condition::Tampered,
            Some(1),
        ),
        (
            "a journal and its checkpoints removed",
            |dir| {
                fs::remove_file(layout(dir).journal("two")).unwrap();
                fs::remove_file(layout(dir).checkpoints("two")).unwrap();
            },
            Condition::Tampered,
            None,
        ),
        (
            "one journal in the place of another",
            |dir| {
                let l = layout(dir);
                fs::copy(l.journal("one"), l.journal("two")).unwrap();
            },
            Condition::Tampered,
            Some(1),
        ),
        (
            "a journal that no writer opened",
            |dir| {
                let l = layout(dir);
                fs::copy(l.journal("one"), l.journal("three")).unwrap();
            },
            Condition::Tampered,
            Some(1),
        ),
    ];
    for (name, attack, want, at) in cases {
        let dir = two();
        attack(dir.path());
        let report = check(dir.path());
        assert_eq!((report.condition(), seq(&report)), (want, at), "{name}: {report:?}");
    }
}

#[test]
fn the_index_cannot_forget_a_journal() {
    let dir = two();
    let l = layout(dir.path());
    let all = lines(&l.index());
    assert_eq!(all.len(), 5, "created, and two journals opened and closed");
    fs::remove_file(l.journal("two")).unwrap();
    fs::remove_file(l.checkpoints("two")).unwrap();
    fs::write(l.index(), all[..3].concat()).unwrap();
    assert_eq!(condition(dir.path()), Condition::Shorter);
    assert!(Audit::open(&options(dir.path(), "next")).is_err(), "and egret does not go on");
    // With the index's checkpoints cut as well, only a copy kept elsewhere knows.
    let kept = dir.path().join("kept");
    fs::copy(l.checkpoints("index"), &kept).unwrap();
    let signed = lines(&l.checkpoints("index"));
    fs::write(l.checkpoints("index"), signed[..3].concat()).unwrap();
    assert_eq!(condition(dir.path()), Condition::Intact, "stated limit");
    assert_eq!(verify(&l, Some(&kept)).condition(), Condition::Shorter);
    assert!(Audit::open(&options(dir.path(), "next")).is_err(), "the key file knows");
}

#[test]
fn a_copy_of_a_checkpoint_finds_a_shorter_or_other_log() {
    let dir = two();
    let l = layout(dir.path());
    let kept = dir.path().join("kept");
    fs::copy(l.checkpoints("one"), &kept).unwrap();
    assert_eq!(verify(&l, Some(&kept)).condition(), Condition::Intact);
    let other = two();
    let condition = |k: &Path| verify(&layout(other.path()), Some(k)).condition();
    assert_eq!(condition(&kept), Condition::Tampered, "the same names, another log");
    fs::write(&kept, b"not a checkpoint\n").unwrap();
    assert_eq!(condition(&kept), Condition::Unreadable);
    assert_eq!(condition(Path::new("/nonexistent")), Condition::Unreadable);
}

#[test]
fn no_log_is_unreadable_and_not_intact() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(condition(dir.path()), Condition::Unreadable);
}

#[test]
fn without_its_key_the_log_is_not_continued() {
    let dir = two();
    fs::remove_file(layout(dir.path()).index_key()).unwrap();
    let error = Audit::open(&options(dir.path(), "next")).unwrap_err();
    assert!(matches!(error, AuditError::KeyLost { .. }), "{error}");
}

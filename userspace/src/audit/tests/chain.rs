//! The chain on records that someone changed, removed or moved.

use proptest::prelude::*;

use crate::audit::chain::{Chain, Hash, Head, seal, verify};
use crate::audit::line::to_ascii_json;
use crate::audit::{Audit, Draft, Event, Record};
use crate::outcome::Decision;

/// The text of a journal with `n` records.
fn journal(n: u64) -> Vec<u8> {
    let audit = Audit::in_memory();
    for i in 0..n {
        audit.record(super::draft(i)).unwrap();
    }
    audit.lock().unwrap().journal.memory().to_vec()
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

fn walk(lines: &[Vec<u8>]) -> (Chain, Head) {
    verify("memory", lines.iter().map(Vec::as_slice))
}

fn first_bad(lines: &[Vec<u8>]) -> Option<u64> {
    match walk(lines).0 {
        Chain::Tampered { seq, .. } => Some(seq.0),
        Chain::Intact | Chain::TornTail { .. } => None,
    }
}

#[test]
fn an_untouched_journal_is_intact_and_knows_its_name() {
    let all = lines(&journal(5));
    let (found, head) = walk(&all);
    assert_eq!((found, head.seq.0), (Chain::Intact, 5));
    let other = verify("other", all.iter().map(Vec::as_slice)).0;
    assert!(matches!(other, Chain::Tampered { seq, .. } if seq.0 == 1), "{other:?}");
}

#[test]
fn a_cut_inside_a_record_is_a_torn_tail() {
    let text = journal(3);
    let whole = lines(&text)[..2].concat().len();
    for end in whole + 1..text.len() {
        let (found, head) = walk(&lines(&text[..end]));
        assert_eq!((found, head.seq.0), (Chain::TornTail { bytes: (end - whole) as u64 }, 2));
    }
}

#[test]
fn a_rewritten_record_with_a_fresh_hash_breaks_the_next_link() {
    let mut all = lines(&journal(4));
    let mut record: Record = serde_json::from_slice(&all[1]).unwrap();
    record.decision = Decision::Deny;
    let prev = record.prev;
    record.hash = None;
    let mut line = Vec::new();
    to_ascii_json(&record, &mut line).unwrap();
    seal(&mut line, 0, prev);
    all[1] = line;
    let found = walk(&all).0;
    assert!(matches!(found, Chain::Tampered { seq, .. } if seq.0 == 3), "{found:?}");
}

#[test]
fn what_is_written_reads_back_the_same() {
    let audit = Audit::in_memory();
    let text = "\r\n\u{1b}]0;x\u{7}\u{2028}\u{202e}\u{9b}\u{feff}caf\u{e9} \u{1f600} \" \\";
    audit.record(Draft::note(Event::Admin).message(text).host_text(text)).unwrap();
    let record = audit.records().remove(0);
    assert_eq!(record.message.as_deref(), Some(text));
    assert_ne!(record.hash, Some(Hash::default()));
    let raw = audit.lock().unwrap().journal.memory().to_vec();
    assert_eq!(lines(&raw).len(), 1);
    assert!(raw[..raw.len() - 1].iter().all(|b| (0x20..0x7f).contains(b)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_bit_flip_is_found(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut text = journal(6);
        let at = at.index(text.len());
        let which = text[..at].iter().filter(|b| **b == b'\n').count() as u64 + 1;
        text[at] ^= 1 << bit;
        let (found, head) = walk(&lines(&text));
        prop_assert_ne!(found, Chain::Intact);
        prop_assert_eq!(head.seq.0 + 1, which, "the record is named");
    }

    #[test]
    fn any_deletion_swap_or_copy_is_found(a in 0..7_usize, b in 0..7_usize) {
        let all = lines(&journal(8));
        let (a, b) = (a.min(b), a.max(b));
        let mut removed = all.clone();
        removed.drain(a..=b);
        prop_assert_eq!(first_bad(&removed), Some(a as u64 + 1));
        let mut copied = all.clone();
        copied.insert(b + 1, all[a].clone());
        prop_assert_eq!(first_bad(&copied), Some(b as u64 + 2));
        if a != b {
            let mut swapped = all;
            swapped.swap(a, b);
            prop_assert_eq!(first_bad(&swapped), Some(a as u64 + 1));
        }
    }
}

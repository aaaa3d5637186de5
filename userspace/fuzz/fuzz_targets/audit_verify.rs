//! A closed audit log in which one file was changed: verifying it never panics, and never says
//! that the log is intact when a record or the index is not what was written.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use egret::audit::verify::{Condition, verify};
use egret::audit::{Audit, AuditOptions, Draft, Event, Layout, Record, chain, checkpoint};
use egret::identify::SessionId;
use egret::outcome::Decision;
use libfuzzer_sys::fuzz_target;

struct Log {
    dir: tempfile::TempDir,
    /// Journals and the index first, then their checkpoints.
    files: Vec<(PathBuf, Vec<u8>)>,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let dir = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" });
    let dir = dir.expect("a folder");
    for session in ["one", "two"] {
        let options = AuditOptions {
            checkpoint_every: 4,
            store: false,
            ..AuditOptions::new(dir.path(), SessionId(session.into()))
        };
        let audit = Audit::open(&options).expect("a log");
        for n in 0..6 {
            let draft = Draft::new(Event::Request, Decision::Allow).host_text("api.test").port(443);
            let draft = draft.request("GET", &format!("/item/{n}"), http::Version::HTTP_11);
            audit.record(draft).expect("a record");
        }
        audit.close().expect("closed");
    }
    let places = [
        "audit/journals/one.jsonl",
        "audit/journals/two.jsonl",
        "audit/index.jsonl",
        "checkpoints/one.jsonl",
        "checkpoints/two.jsonl",
        "checkpoints/index.jsonl",
    ];
    let files = places.map(|p| {
        let path = dir.path().join(p);
        let bytes = fs::read(&path).expect("a file of the log");
        (path, bytes)
    });
    assert_eq!(verify(&Layout::new(dir.path(), None), None).condition(), Condition::Intact);
    Log { dir, files: files.into() }
});

fuzz_target!(|data: &[u8]| {
    for line in data.split_inclusive(|b| *b == b'\n') {
        let _ = (chain::check_line(line), checkpoint::check_line(line));
        let _ = serde_json::from_slice::<Record>(line);
    }
    let [which, edits @ ..] = data else { return };
    let which = usize::from(*which) % LOG.files.len();
    let (path, original) = &LOG.files[which];
    let changed = edited(original, edits);
    if changed == *original {
        return;
    }
    fs::write(path, &changed).expect("written");
    let report = verify(&Layout::new(LOG.dir.path(), None), None);
    fs::write(path, original).expect("written");

    assert_eq!(report.condition() == Condition::Intact, report.findings.is_empty());
    // The end of the checkpoints may be missing; what they cover is still proven by the index.
    let covered = which >= 3 && original.starts_with(&changed);
    assert!(
        covered || report.condition() != Condition::Intact,
        "{} was changed to {:?}",
        path.display(),
        changed.escape_ascii().to_string()
    );
});

/// `edits` done to `text`: overwrite, insert, remove, cut, repeat a line, swap two lines.
fn edited(text: &[u8], mut edits: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    while let [kind, high, low, value, rest @ ..] = edits {
        edits = rest;
        // Without an end of line, repeating a line doubles the whole.
        if out.len() > 4 * text.len() + 4096 {
            break;
        }
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (out.len() + 1);
        match kind % 7 {
            0 if at < out.len() => out[at] = *value,
            1 => out.insert(at, *value),
            2 if at < out.len() => drop(out.remove(at)),
            3 => out.truncate(at),
            4 => drop(out.drain(at..(at + usize::from(*value)).min(out.len()))),
            kind => {
                let mut lines: Vec<Vec<u8>> =
                    out.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                if lines.is_empty() {
                    return out;
                }
                let (one, two) = (at % lines.len(), usize::from(*value) % lines.len());
                match kind {
                    5 => lines.insert(two, lines[one].clone()),
                    _ => lines.swap(one, two),
                }
                out = lines.concat();
            }
        }
    }
    out
}

//! Writers that are killed or run out of space, as real processes: the test binary runs itself.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;

const DIR: &str = "EGRET_TEST_AUDIT_DIR";
const SESSION: &str = "EGRET_TEST_AUDIT_SESSION";

/// Records that a child writes at most.
const ENOUGH: u64 = 200;

/// The session name that makes a child open and close one session after the other.
const OPENER: &str = "opener";

/// Not a test of its own: what the child processes run. Acknowledges each record on stdout, and
/// says when one was refused.
#[test]
#[ignore = "run by the other tests of this file as a child process"]
fn child() {
    let (Ok(dir), Ok(session)) = (std::env::var(DIR), std::env::var(SESSION)) else { return };
    let mut out = std::io::stdout().lock();
    if session == OPENER {
        for i in 0.. {
            open(Path::new(&dir), &format!("{session}{i}")).close().unwrap();
            writeln!(out, "\nack {i}").unwrap();
        }
    }
    let audit = open(Path::new(&dir), &session);
    for i in 0..ENOUGH {
        match audit.record(draft(i)) {
            Ok(seq) => writeln!(out, "\nack {seq}").unwrap(),
            Err(e) => {
                writeln!(out, "\nrefused {e}").unwrap();
                assert!(audit.record(draft(i)).is_err(), "still no space");
                return;
            }
        }
    }
    // Wait to be killed.
    std::thread::sleep(std::time::Duration::from_secs(60));
}

fn spawn(dir: &Path, session: &str, shell: &str) -> std::process::Child {
    let exe = std::env::current_exe().unwrap();
    let test = "audit::tests::crash::child";
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(exe)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(SESSION, session)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn records(dir: &Path, session: &str) -> Vec<Record> {
    let filter = query::Filter { session: Some(session.to_owned()), ..query::Filter::default() };
    let lines = query::Reader::new(&layout(dir)).read(&filter).unwrap();
    lines.into_iter().map(|l| l.record).collect()
}

fn recorded(dir: &Path, session: &str) -> Vec<u64> {
    records(dir, session).iter().map(|r| r.seq.0).collect()
}

#[test]
fn a_sigkill_loses_no_acknowledged_record() {
    for round in 0..20_u64 {
        let dir = tempfile::tempdir().unwrap();
        let session = format!("round{round}");
        let mut child = spawn(dir.path(), &session, "");
        let mut last = 0;
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acks = lines.by_ref().filter_map(|l| l.strip_prefix("ack ")?.parse::<u64>().ok());
        // A different number each round, so that checkpoints are hit as well.
        for _ in 0..round * 7 + 1 {
            last = acks.next().expect("the child lives");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What is left in the pipe was acknowledged too.
        last = acks.last().unwrap_or(last);
        let report = check(dir.path());
        let found = report.condition();
        assert!(matches!(found, Condition::Intact | Condition::TornTail), "{report:?}");
        let seqs = recorded(dir.path(), &session);
        assert!(seqs.len() as u64 >= last, "acknowledged {last}, recorded {}", seqs.len());
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64));
        // Another writer seals it.
        open(dir.path(), "sealer").close().unwrap();
        let report = check(dir.path());
        assert_eq!(report.condition(), Condition::Intact, "{report:?}");
    }
}

#[test]
fn a_sigkill_while_sessions_open_and_close_raises_no_alarm() {
    for round in 0..20_u32 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(dir.path(), OPENER, "");
        // Kept until the end: a child whose pipe is gone would end by itself.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.by_ref().filter(|l| l.starts_with("ack ")).take(2).count(), 2);
        // A different moment each time, across the steps of opening and closing.
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 331));
        child.kill().unwrap();
        child.wait().unwrap();
        let report = check(dir.path());
        let found = report.condition();
        assert!(matches!(found, Condition::Intact | Condition::TornTail), "{report:?}");
        open(dir.path(), "sealer").close().unwrap();
        let report = check(dir.path());
        assert_eq!(report.condition(), Condition::Intact, "{report:?}");
        assert_eq!(std::fs::read_dir(layout(dir.path()).live_dir()).unwrap().count(), 0);
    }
}

#[test]
fn a_torn_tail_is_reported_moved_aside_and_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let l = layout(dir.path());
    let mut child = spawn(dir.path(), "torn", "");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let acks = lines.by_ref().filter(|l| l.starts_with("ack ")).take(10).count();
    assert_eq!(acks, 10);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = recorded(dir.path(), "torn");
    let mut file = std::fs::OpenOptions::new().append(true).open(l.journal("torn")).unwrap();
    file.write_all(b"{\"schema\":1,\"seq\":").unwrap();
    drop(file);
    assert_eq!(condition(dir.path()), Condition::TornTail);
    open(dir.path(), "next").close().unwrap();
    assert_eq!(condition(dir.path()), Condition::Intact);
    assert_eq!(recorded(dir.path(), "torn"), before);
    assert_eq!(std::fs::read(l.torn("torn")).unwrap(), b"{\"schema\":1,\"seq\":");
    let index = std::fs::read_to_string(l.index()).unwrap();
    assert!(index.contains("\"kind\":\"sealed\",\"journal\":\"torn\""), "{index}");
    // Sealed means that it can no longer be cut.
    let text = std::fs::read_to_string(l.journal("torn")).unwrap();
    let cut = text.lines().take(before.len() - 1).map(|l| format!("{l}\n")).collect::<String>();
    std::fs::write(l.journal("torn"), cut).unwrap();
    assert_eq!(condition(dir.path()), Condition::Shorter);
}

#[test]
fn a_full_disk_refuses_and_leaves_whole_records() {
    let dir = tempfile::tempdir().unwrap();
    // A limit on the size of files stands in for a full disk: the write is cut short first.
    let mut child = spawn(dir.path(), "full", "trap '' XFSZ; ulimit -f 40;");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<_> = lines.collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let acked = lines.iter().filter(|l| l.starts_with("ack ")).count();
    assert!(lines.iter().any(|l| l.starts_with("refused ")), "{lines:?}");
    assert!(acked > 10, "control: records were written before");
    let text = std::fs::read(layout(dir.path()).journal("full")).unwrap();
    assert!(text.ends_with(b"\n"), "what was cut short is gone");
    let written = records(dir.path(), "full");
    assert_eq!(written.iter().filter(|r| r.event == Event::Request).count(), acked);
    assert_eq!(condition(dir.path()), Condition::Intact);
}

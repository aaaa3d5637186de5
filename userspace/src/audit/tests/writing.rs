//! What a writer promises: one decision, one outcome, and no record lost.

use super::*;

#[test]
fn one_decision_and_one_outcome_per_request() {
    let audit = Audit::in_memory();
    audit.begin(draft(1)).unwrap().finish(Outcome::status(200).bytes(3, 9)).unwrap();
    drop(audit.begin(draft(2)).unwrap());
    let failed = Outcome::failed(Reason::UpstreamTimeout);
    audit.begin(Draft::new(Event::Connect, Decision::Allow)).unwrap().finish(failed).unwrap();
    let all = audit.records();
    let got: Vec<_> = all
        .iter()
        .map(|r| {
            let q = r.request.as_ref().unwrap();
            (r.event.as_str(), r.decision.as_str(), q.id.0, q.status, r.reason)
        })
        .collect();
    let want = [
        ("request", "allow", 1, None, None),
        ("response", "note", 1, Some(200), None),
        ("request", "allow", 3, None, None),
        ("response", "note", 3, None, Some(Reason::Aborted)),
        ("connect", "allow", 5, None, None),
        ("response", "note", 5, Some(504), Some(Reason::UpstreamTimeout)),
    ];
    assert_eq!(got, want);
    assert_eq!(all[1].bytes, Some(Bytes { up: 3, down: 9 }));
    assert!(all[1].duration_us.is_some() && all[0].duration_us.is_none());
}

#[test]
fn the_query_of_a_path_is_never_written() {
    let audit = Audit::in_memory();
    for target in ["/a?k=SECRET", "/a#SECRET", "/a?x#SECRET"] {
        audit
            .record(Draft::note(Event::Request).request("GET", target, http::Version::HTTP_2))
            .unwrap();
    }
    for record in audit.records() {
        assert_eq!(record.request.unwrap().path.as_deref(), Some("/a"));
    }
}

#[test]
fn a_record_that_cannot_be_written_is_an_error_and_is_told_later() {
    let audit = Audit::in_memory_failing_after(2);
    audit.record(draft(1)).unwrap();
    let guard = audit.begin(draft(2)).unwrap();
    assert!(audit.begin(draft(3)).is_err(), "no space, no permission");
    assert!(guard.finish(Outcome::status(200)).is_err());
    assert_eq!(audit.records().len(), 2);
    assert_eq!(Summary::total(&audit.summary().allowed), 2, "what was not written did not happen");
}

#[test]
fn a_device_without_space_refuses_every_record() {
    let mut file = append::AppendFile::open(Path::new("/dev/full")).unwrap();
    for _ in 0..2 {
        assert!(file.append(b"x\n").is_err());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut control = append::AppendFile::open(&dir.path().join("f")).unwrap();
    control.append(b"x\n").unwrap();
}

#[test]
fn the_summary_counts_by_host_and_reason() {
    let audit = Audit::in_memory();
    for i in 0..3 {
        audit.record(draft(i)).unwrap();
    }
    let deny = Draft::new(Event::Connect, Decision::Deny).reason(Reason::NoRule);
    audit.record(deny.clone().host_text("evil.test")).unwrap();
    audit.record(deny.dialled("192.0.2.1".parse().unwrap(), 80)).unwrap();
    let s = audit.summary();
    assert_eq!((s.allowed.len(), s.allowed[0].count, &*s.allowed[0].host), (1, 3, "api.test"));
    let refused: Vec<_> = s.refused.iter().map(|r| (&*r.host, r.reason, r.count)).collect();
    let no_rule = Some(Reason::NoRule);
    assert_eq!(refused, [("192.0.2.1", no_rule, 1), ("evil.test", no_rule, 1)]);
}

#[test]
fn nothing_is_written_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), "s");
    let guard = audit.begin(draft(1)).unwrap();
    audit.close().unwrap();
    audit.close().unwrap();
    assert!(matches!(audit.record(draft(2)), Err(AuditError::Closed)));
    assert!(matches!(guard.finish(Outcome::status(200)), Err(AuditError::Closed)));
    assert_eq!(condition(dir.path()), Condition::Intact);
}

#[test]
fn writers_share_a_state_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = dir.path();
            scope.spawn(move || {
                let audit = open(path, &format!("w{writer}"));
                std::thread::scope(|inner| {
                    for _ in 0..2 {
                        inner.spawn(|| (0..50).all(|i| audit.record(draft(i)).is_ok()));
                    }
                });
            });
        }
    });
    let report = check(dir.path());
    assert_eq!(report.condition(), Condition::Intact, "{report:?}");
    // 4 writers: first record, 2 threads of 50, last record.
    assert_eq!((report.journals, report.records), (4, 4 * 102));
    assert_eq!(std::fs::read_dir(layout(dir.path()).live_dir()).unwrap().count(), 0);
}

#[test]
fn a_session_opened_twice_has_two_journals() {
    let dir = tempfile::tempdir().unwrap();
    session(dir.path(), "s", 1);
    session(dir.path(), "s", 1);
    assert_eq!(layout(dir.path()).journal_names().unwrap(), ["s", "s-2"]);
    assert_eq!(condition(dir.path()), Condition::Intact);
    for bad in ["", "../x", "index", "a b"] {
        assert!(Audit::open(&options(dir.path(), bad)).is_err(), "{bad}");
    }
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    session(dir.path(), "s", 20);
    let l = layout(dir.path());
    for file in [l.journal("s"), l.index(), l.index_key(), l.checkpoints("s")] {
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(l.journals().metadata().unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn with_power_durability_every_waiter_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let o = AuditOptions { durability: Durability::Power, ..options(dir.path(), "s") };
    let audit = Audit::open(&o).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..20 {
        let audit = audit.clone();
        tasks.spawn(async move {
            let guard = audit.begin(draft(i)).unwrap();
            guard.durable().await.unwrap();
            guard.finish(Outcome::closed()).unwrap();
        });
    }
    assert_eq!(tasks.join_all().await.len(), 20);
    audit.close().unwrap();
    assert_eq!(condition(dir.path()), Condition::Intact);
}

#[test]
fn a_clock_that_goes_back_is_flagged_and_order_is_by_number() {
    let sink = journal::Sink::Memory { lines: Vec::new(), left: 9 };
    let mut j = Journal::new("memory", "s".into(), sink);
    for (us, back) in [(5_000, None), (3_000, Some(2_000)), (3_500, None)] {
        let mut d = draft(0);
        j.append_at(&mut d.0, Timestamp(us)).unwrap();
        assert_eq!(d.0.clock_back_us, back);
    }
}

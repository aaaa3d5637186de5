//! Agents below agents: every level has its say, and the programs are on the outermost group.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::probe::{CLOSED, REFUSED, SERVED, ask, line, start, stream};
use crate::world::{World, with_daemon};

/// Port 80 for both, 81 for the outer one, 82 for the inner one, 83 for nobody.
fn policies(w: &World) -> (std::path::PathBuf, std::path::PathBuf) {
    (w.policy("outer", &[80, 81], ""), w.policy("inner", &[80, 82], ""))
}

#[track_caller]
fn assert_nested(w: &World, outer: &str, inner: &str) {
    let ports = [80, 81, 82, 83];
    let of = |group: &str| ports.map(|port| w.tries_on(group, port));
    assert_eq!(of(outer), [SERVED, SERVED, REFUSED, REFUSED], "the outer one");
    assert_eq!(of(inner), [SERVED, REFUSED, REFUSED, REFUSED], "both have their say");
    assert_eq!(w.agent("inner")["chain"], serde_json::json!(["outer", "inner"]));
    let linked = ["outer", "inner"].map(|name| w.agent(name)["linked"] == true);
    assert_eq!(linked, [true, false], "the programs are on the outermost group alone");
    assert_eq!(w.pins(), ["outer"]);
    w.nothing_left();
}

#[test]
fn an_agent_below_another_has_both_policies() {
    with_daemon(|w| {
        let outer = w.group("outer");
        let inner = w.group("outer/inner");
        let (outer_policy, inner_policy) = policies(w);
        w.attach("outer", &outer, &outer_policy);
        // What was open under the outer policy alone goes.
        let mut running = start(Some(&w.at(&inner)), &stream(81));
        assert_eq!(line(&mut running), "runs");
        let attached = w.attach("inner", &inner, &inner_policy);
        assert!(attached["destroyed"].as_u64() >= Some(1), "{attached}");
        assert_ne!(line(&mut running), "left alone");
        running.wait().unwrap();
        assert_nested(w, &outer, &inner);

        // The inner one goes: the outer policy alone is left.
        w.detach("inner");
        let ports = [80, 81, 82, 83];
        let all = ports.map(|port| w.tries_on(&inner, port));
        assert_eq!(all, [SERVED, SERVED, REFUSED, REFUSED]);
        w.attach("inner", &inner, &inner_policy);
        assert_nested(w, &outer, &inner);

        // The outer one goes while the inner one has a stream: it stays, and stays governed.
        let mut running = start(Some(&w.at(&inner)), &stream(80));
        assert_eq!(line(&mut running), "runs");
        w.detach("outer");
        assert_eq!(ask(&mut running, ""), "still", "nothing of the inner one was touched");
        assert_eq!(ports.map(|p| w.tries_on(&inner, p)), [SERVED, REFUSED, SERVED, REFUSED]);
        assert_eq!(w.pins(), ["inner"]);
        w.nothing_left();
        w.leaves(&outer);
        drop(running.stdin.take());
        assert_eq!(line(&mut running), "left alone");
        running.wait().unwrap();
        w.detach("inner");
        w.leaves(&inner);
        assert!(w.pins().is_empty() && w.records().is_empty());
    });
}

#[test]
fn an_agent_above_takes_the_programs_over() {
    with_daemon(|w| {
        let outer = w.group("outer");
        let inner = w.group("outer/inner");
        let beside = w.group("outer/beside");
        let deeper = w.group("outer/inner/deeper");
        let (outer_policy, inner_policy) = policies(w);
        w.attach("inner", &inner, &inner_policy);
        w.leaves(&beside);
        w.attach("outer", &outer, &outer_policy);
        assert_nested(w, &outer, &inner);
        assert_eq!(w.tries(&beside), SERVED);
        assert_eq!(w.tries_on(&deeper, 82), REFUSED);

        // What closes the outer one closes all below.
        w.egret(&["detach", "outer", "--deny"]).done();
        for group in [&outer, &inner, &deeper, &beside] {
            assert_eq!(w.tries(group), CLOSED);
        }
        w.egret(&["detach", "outer", "--undo"]).done();
        assert_nested(w, &outer, &inner);

        // The same after a restart.
        w.kill();
        w.start();
        assert_nested(w, &outer, &inner);
        w.detach("outer");
        assert_eq!(w.tries_on(&inner, 82), SERVED);
        assert_eq!(w.tries_on(&deeper, 82), SERVED);
        w.nothing_left();
        w.leaves(&beside);
    });
}

#[test]
fn an_attach_above_that_fails_leaves_the_inner_one_governed() {
    with_daemon(|w| {
        let outer = w.group("outer");
        let inner = w.group("outer/inner");
        let (outer_policy, inner_policy) = policies(w);
        w.attach("inner", &inner, &inner_policy);
        // Its second record cannot be put in its place: a folder is there once the first one was.
        let at = w.run_dir().join("attached/outer.json");
        let refused = (0..50).any(|_| {
            let ends = AtomicBool::new(false);
            let said = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !ends.load(Ordering::Relaxed) {
                        if fs::remove_file(&at).is_ok() {
                            return fs::create_dir_all(at.join("x")).unwrap();
                        }
                    }
                });
                let said = w.try_attach("outer", &outer, &outer_policy);
                ends.store(true, Ordering::Relaxed);
                said
            });
            let _ = fs::remove_dir_all(&at);
            if said.code == 0 {
                w.detach("outer");
                return false;
            }
            said.refused("attached");
            true
        });
        assert!(refused, "the record was written each time");
        assert_eq!([w.tries_on(&inner, 82), w.tries_on(&inner, 81)], [SERVED, REFUSED]);
        assert_eq!((w.pins(), w.agent("outer")), (vec!["inner".into()], serde_json::Value::Null));
        w.nothing_left();
        w.leaves(&outer);
        w.attach("outer", &outer, &outer_policy);
        assert_nested(w, &outer, &inner);
    });
}

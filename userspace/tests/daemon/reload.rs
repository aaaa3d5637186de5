//! Taking permissions back from what runs: `detach`, `detach --deny`, `reload`.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use crate::probe::{CLOSED, REFUSED, SERVED, ask, line, start, stream};
use crate::wire::accept;
use crate::world::{eventually, with_daemon};

#[test]
fn deny_ends_what_is_open_and_undo_serves_again() {
    with_daemon(|w| {
        let (inside, other) = (w.group("inside"), w.group("other"));
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let local = format!("[local]\nconnect = [{port}]\n");
        w.attach("a", &inside, &w.policy("p", &[80], &local));
        w.attach("b", &other, &w.policy("q", &[80], ""));
        let mut running = start(Some(&w.at(&inside)), &stream(80));
        let mut neighbour = start(Some(&w.at(&other)), &stream(80));
        assert_eq!((line(&mut running), line(&mut neighbour)), ("runs".into(), "runs".into()));
        assert_eq!(ask(&mut running, ""), "still", "the control");
        // A connection that the policy lets past the interceptor ends as well.
        let mut direct = start(
            Some(&w.at(&inside)),
            &format!(
                "
s = socket.create_connection(('127.0.0.1', {port})); say('ready')
s.settimeout(None)
attempt(lambda: 'left alone' if s.recv(9) else 'closed')
"
            ),
        );
        assert_eq!(line(&mut direct), "ready");
        let theirs = accept(&service);

        w.egret(&["detach", "a", "--deny"]).done();
        assert_ne!(line(&mut running), "left alone");
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ended = std::io::Read::read(&mut &theirs, &mut [0; 9]);
        assert!(!ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "it lives on");
        assert_ne!(line(&mut direct), "left alone");
        assert_eq!(w.tries(&inside), CLOSED);
        assert_eq!(ask(&mut neighbour, ""), "still");
        let status = w.egret(&["status"]);
        assert!(status.code == 1 && status.out.contains("detach --deny"), "{status:?}");
        w.recorded("", "close a");
        // It stays so over a restart.
        w.kill();
        w.start();
        assert_eq!(w.tries(&inside), CLOSED);

        w.egret(&["detach", "a", "--undo"]).done();
        assert_eq!(w.tries(&inside), SERVED);
        w.egret(&["detach", "a", "--undo"]).refused("not closed");
        w.nothing_left();
        w.detach("a");
        w.leaves(&inside);
        w.egret(&["detach", "a"]).refused("no agent named `a`");
        for mut child in [running, neighbour, direct] {
            let _ = child.kill();
            child.wait().unwrap();
        }
    });
}

#[test]
fn a_narrower_policy_ends_what_it_no_longer_allows_and_nothing_else() {
    with_daemon(|w| {
        let inside = w.group("inside");
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let local = format!("[local]\nconnect = [{port}]\n");
        let policy = w.policy("p", &[80, 81], &local);
        w.attach("a", &inside, &policy);
        let place = w.at(&inside);
        let mut narrowed = start(Some(&place), &stream(81));
        let mut kept = start(Some(&place), &stream(80));
        assert_eq!((line(&mut narrowed), line(&mut kept)), ("runs".into(), "runs".into()));
        let mut direct = start(
            Some(&place),
            &format!(
                "
s = socket.create_connection(('127.0.0.1', {port})); say('ready')
s.settimeout(None)
attempt(lambda: 'left alone' if s.recv(9) else 'closed')
"
            ),
        );
        assert_eq!(line(&mut direct), "ready");
        let theirs = accept(&service);
        // The control: reading the same again touches nobody.
        w.egret(&["reload"]).done();
        assert_eq!((ask(&mut narrowed, ""), ask(&mut kept, "")), ("still".into(), "still".into()));

        w.policy("p", &[80], "");
        w.egret(&["reload"]).done();
        assert_ne!(line(&mut narrowed), "left alone");
        assert_ne!(line(&mut direct), "left alone");
        assert_eq!(ask(&mut kept, ""), "still");
        assert_eq!([w.tries_on(&inside, 80), w.tries_on(&inside, 81)], [SERVED, REFUSED]);

        // A policy with an error: nothing changes, and the place of the error is said.
        let text = fs::read_to_string(&policy).unwrap();
        fs::write(&policy, text.replace("action = \"allow\"", "action = \"allov\"")).unwrap();
        let place = format!("{}:7:", policy.display());
        w.egret(&["reload"]).refused(&place);
        w.recorded("reload_refused", &place);
        assert_eq!(ask(&mut kept, ""), "still");
        assert_eq!(w.tries(&inside), SERVED);
        // SIGHUP is the same.
        let refusals = || w.audit().iter().filter(|r| r["reason"] == "reload_refused").count();
        let before = refusals();
        nix::sys::signal::kill(w.warden(), nix::sys::signal::Signal::SIGHUP).unwrap();
        eventually("the reload by SIGHUP is refused", || refusals() > before);
        assert_eq!(w.tries(&inside), SERVED);
        fs::write(&policy, text).unwrap();
        w.egret(&["reload"]).done();
        drop(kept.stdin.take());
        assert_eq!(line(&mut kept), "left alone");
        drop(theirs);
        w.nothing_left();
        for mut child in [narrowed, kept, direct] {
            child.wait().unwrap();
        }
    });
}

#[test]
fn what_egret_toml_names_is_attached_and_closed_when_it_is_named_no_more() {
    with_daemon(|w| {
        w.policy("p", &[80], "");
        let agent = |name: &str| {
            format!(
                "[[agent]]\nname = \"{name}\"\ncgroup = \"/{}/{name}\"\npolicy = \"p.toml\"\n",
                w.parent
            )
        };
        let one = w.group("one");
        w.leaves(&one);
        w.config(&(agent("one") + &agent("two")));
        w.egret(&["reload"]).done();
        assert_eq!(w.tries(&one), SERVED);
        // One that comes later is found.
        let two = w.group("two");
        w.tries_become(&two, SERVED);
        w.wire.packets(); // it may have been free for a moment

        let mut running = start(Some(&w.at(&one)), &stream(80));
        assert_eq!(line(&mut running), "runs");
        w.egret(&["detach", "two", "--deny"]).done();
        w.config(&agent("two"));
        w.egret(&["reload"]).done();
        assert_ne!(line(&mut running), "left alone");
        running.wait().unwrap();
        assert_eq!(w.tries(&one), CLOSED);
        assert!(w.agent("one")["closed"].as_str().unwrap().contains("no longer in egret.toml"));
        w.recorded("agent_closed", "no longer in egret.toml");

        // What an operator has closed stays closed, however often it leaves and comes back.
        w.config(&agent("one"));
        w.egret(&["reload"]).done();
        assert_eq!([w.tries(&one), w.tries(&two)], [SERVED, CLOSED]);
        w.config(&(agent("one") + &agent("two")));
        w.egret(&["reload"]).done();
        assert_eq!([w.tries(&one), w.tries(&two)], [SERVED, CLOSED]);
        w.egret(&["detach", "two", "--undo"]).done();
        assert_eq!(w.tries(&two), SERVED);

        // Detached by hand it is free, until the next reload.
        w.detach("one");
        w.nothing_left();
        w.leaves(&one);
        w.egret(&["reload"]).done();
        assert_eq!(w.tries(&one), SERVED);
        // Its group goes, and comes again as another one.
        fs::remove_dir(w.at(&two)).unwrap();
        eventually("two is forgotten", || w.agent("two").is_null());
        let two = w.group("two");
        w.tries_become(&two, SERVED);
    });
}

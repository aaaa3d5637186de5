//! `egret run` by way of the daemon: its walls are the daemon's too, whatever becomes of it.

use std::process::{Child, Stdio};

use crate::probe::{ask, line};
use crate::world::{World, eventually, with_daemon};

/// A command inside that tries when it is asked to, and says how it ended.
fn run(w: &World) -> Child {
    let script = "
import errno, socket, sys
def syn():
    try: socket.create_connection(('203.0.113.5', 443), 1).close(); return 'taken'
    except OSError as e: return errno.errorcode.get(e.errno, type(e).__name__) if e.errno else type(e).__name__
def echo():
    try:
        s = socket.create_connection(('served.test', 80), 3); s.sendall(b'hi')
        return 'served' if s.recv(9) == b'hi' else 'closed'
    except socket.gaierror: return 'no name'
    except OSError as e: return errno.errorcode.get(e.errno, 'error')
print('runs', flush=True)
for _ in sys.stdin: print(syn(), echo(), flush=True)
";
    let policy = w.policy("run", &[80], "");
    let mut child = w
        .command(&["run", "--quiet", "--policy", policy.to_str().unwrap()])
        .args(["--", "python3", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(line(&mut child), "runs");
    child
}

/// Nothing of it is left with the daemon.
#[track_caller]
fn forgotten(w: &World) {
    eventually("the run is forgotten", || {
        w.status()["agents"] == serde_json::json!([]) && w.pins().is_empty()
    });
    assert!(w.records().is_empty());
    eventually("its names are forgotten", || w.kept_names().is_empty());
}

#[test]
fn a_run_is_served_and_outlives_its_daemon_closed() {
    with_daemon(|w| {
        let mut child = run(w);
        assert_eq!(ask(&mut child, ""), "taken served");
        let agents = w.status()["agents"].clone();
        assert_eq!((&agents[0]["source"], &agents[1]), (&"run".into(), &().into()));
        // Another interceptor serves it as well.
        nix::sys::signal::kill(w.interceptor(), nix::sys::signal::Signal::SIGKILL).unwrap();
        eventually("it is served again", || ask(&mut child, "") == "taken served");

        w.kill();
        eventually("it is closed", || ask(&mut child, "") == "EPERM no name");
        // The next daemon starts beside it, and has neither its secrets nor a place for it.
        w.start();
        assert_eq!(ask(&mut child, ""), "EPERM no name");
        let agents = w.status()["agents"].clone();
        assert!(agents[0]["closed"].as_str().unwrap().contains("secrets"), "{agents}");
        let mut second = run(w);
        assert_eq!(ask(&mut second, ""), "taken served", "the control");
        w.egret(&["reload"]).done();
        assert_eq!(ask(&mut child, ""), "EPERM no name");
        assert_eq!(ask(&mut second, ""), "taken served");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        drop(second.stdin.take());
        assert!(second.wait().unwrap().success());
        forgotten(w);
        w.nothing_left();
    });
}

#[test]
fn a_run_that_is_detached_or_denied_is_never_free() {
    with_daemon(|w| {
        let mut child = run(w);
        let name = w.status()["agents"][0]["name"].as_str().unwrap().to_owned();
        w.egret(&["detach", &name, "--deny"]).done();
        assert_eq!(ask(&mut child, ""), "EPERM no name");
        w.egret(&["detach", &name, "--undo"]).done();
        assert_eq!(ask(&mut child, ""), "taken served");
        // Without the programs its namespace still leads nowhere.
        w.egret(&["detach", &name]).done();
        let said = ask(&mut child, "");
        assert!(!said.contains("taken") && !said.contains("served"), "{said}");
        w.nothing_left();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        forgotten(w);
    });
}

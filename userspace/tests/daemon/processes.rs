//! Processes of egret that are killed or stand still: closed within the lease, and served again by
//! whoever comes next.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::probe::{CLOSED, SERVED, ask, line, start, stream};
use crate::world::{World, eventually, report, stand_still, with_daemon};

fn is_there(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

#[test]
fn a_killed_interceptor_is_closed_at_once_and_another_one_serves() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let mut running = start(Some(&w.at(&group)), &stream(80));
        assert_eq!(line(&mut running), "runs");
        let first = w.interceptor();
        kill(first, Signal::SIGKILL).unwrap();
        assert_ne!(line(&mut running), "left alone", "its bytes went through the dead one");
        running.wait().unwrap();
        w.tries_become(&group, SERVED);
        assert_ne!(w.interceptor(), first);
        assert_eq!(w.status()["interceptor"]["restarts"], 1);
        w.nothing_left();
    });
}

#[test]
fn connections_that_wait_are_served_by_the_next_interceptor() {
    with_daemon(|w| {
        let group = w.group("a");
        let other = "[[rule]]\nname = \"other\"\naction = \"allow\"\nhosts = [\"other.test\"]\n\
                     protocol = \"tcp\"\nports = [80]\n";
        w.attach("a", &group, &w.policy("p", &[80], other));
        let script = "
to = where('served.test', 80)
say('ready'); sys.stdin.readline()
waiting = []
for _ in range(5):
    s = socket.create_connection(to[:2], 2); s.sendall(b'hi'); s.settimeout(30); waiting.append(s)
say('connected')
say(sum(s.recv(9) == b'hi' for s in waiting))
# A name keeps its address, also where another one is asked for first. (The connections above are
# served a moment before new ones are let in.)
def soon(name):
    for _ in range(100):
        found = where(name, 80)
        if found: return found
        time.sleep(0.1)
other = soon('other.test')
say(other is not None and other != to and soon('served.test') == to)
";
        let mut child = start(Some(&w.at(&group)), script);
        assert_eq!(line(&mut child), "ready");
        let first = w.interceptor();
        stand_still(first);
        assert_eq!(ask(&mut child, "go"), "connected");
        kill(first, Signal::SIGKILL).unwrap();
        assert_eq!(line(&mut child), "5");
        assert_eq!(line(&mut child), "True");
        child.wait().unwrap();
        w.nothing_left();
    });
}

/// Stops a process from inside the group, and answers after how many milliseconds a connection was
/// refused for the first time.
fn stopped_until_closed(w: &World, group: &str, pid: Pid) -> u64 {
    let script = format!(
        "
def syn():
    s = socket.socket(); s.settimeout(5); s.connect(('203.0.113.5', 443)); s.close()
syn()
os.kill({pid}, 19)
begun = time.monotonic(); passed = 0
while time.monotonic() - begun < 30:
    try: syn(); passed += 1
    except PermissionError: break
    time.sleep(0.01)
say('%d' % ((time.monotonic() - begun) * 1000)); say(passed)
"
    );
    let mut child = start(Some(&w.at(group)), &script);
    let waited = line(&mut child).parse().unwrap();
    let passed = line(&mut child);
    child.wait().unwrap();
    assert!(waited < 20_000, "not closed");
    assert_ne!(passed, "0", "the control: it was not closed before");
    waited
}

#[test]
fn an_interceptor_that_stands_still_is_closed_within_the_lease() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let interceptor = w.interceptor();
        let waited = stopped_until_closed(w, &group, interceptor);
        report(&format!("SIGSTOP of the interceptor: refused after {waited} ms"));
        assert_eq!(w.tries(&group), CLOSED);
        kill(interceptor, Signal::SIGCONT).unwrap();
        w.tries_become(&group, SERVED);
        assert_eq!(w.interceptor(), interceptor, "it was not given up yet");
        // One that does not go on is replaced.
        stand_still(interceptor);
        w.tries_become(&group, CLOSED);
        eventually("it is ended", || !is_there(interceptor));
        w.tries_become(&group, SERVED);
        w.nothing_left();
    });
}

#[test]
fn a_warden_that_stands_still_is_closed_within_the_lease() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let (warden, interceptor) = (w.warden(), w.interceptor());
        let waited = stopped_until_closed(w, &group, warden);
        report(&format!("SIGSTOP of the warden: refused after {waited} ms"));
        assert_eq!(w.tries(&group), CLOSED);
        kill(warden, Signal::SIGCONT).unwrap();
        w.tries_become(&group, SERVED);
        assert_eq!(w.interceptor(), interceptor);

        // An interceptor that stands still when its warden dies does not outlive it.
        stand_still(interceptor);
        w.tries_become(&group, CLOSED);
        w.kill();
        eventually("it ends", || !is_there(interceptor));
        w.start();
        w.tries_become(&group, SERVED);
        w.nothing_left();
    });
}

#[test]
fn a_killed_warden_takes_its_interceptor_along_and_all_is_closed() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let mut running = start(Some(&w.at(&group)), &stream(80));
        assert_eq!(line(&mut running), "runs");
        let interceptor = w.interceptor();
        w.kill();
        assert_ne!(line(&mut running), "left alone");
        running.wait().unwrap();
        eventually("the interceptor ends", || !is_there(interceptor));
        w.tries_become(&group, CLOSED);
        for _ in 0..10 {
            assert_eq!(w.tries(&group), CLOSED);
        }
        w.nothing_left();
        let other = w.group("other");
        w.leaves(&other);
        w.start();
        w.tries_become(&group, SERVED);
        w.nothing_left();
    });
}

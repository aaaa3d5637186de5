//! `egret attach` on what runs: what it had open, who else is there, and what may be done inside.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::probe::{CLOSED, SERVED, ask, line, run, start};
use crate::wire::{NOBODY, accept};
use crate::world::{report, with_daemon};

/// Connects to a port of loopback, says so, waits for a line, and uses the connection.
fn holder(port: u16) -> String {
    format!(
        "
t = socket.create_connection(('127.0.0.1', {port}))
say('ready'); sys.stdin.readline()
attempt(lambda: t.send(b'late') and None)
sys.stdin.readline()
attempt(echo)
"
    )
}

#[test]
fn what_runs_loses_its_connections_and_is_served_and_neighbours_keep_theirs() {
    with_daemon(|w| {
        let (inside, outside) = (w.group("inside"), w.group("outside"));
        w.leaves(&inside);
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut governed = start(Some(&w.at(&inside)), &holder(port));
        let mut theirs = accept(&server);
        let mut stranger = start(Some(&w.at(&outside)), &holder(port));
        let mut strangers = accept(&server);
        assert_eq!((line(&mut governed), line(&mut stranger)), ("ready".into(), "ready".into()));

        let attached = w.attach("a", &inside, &w.policy("p", &[80], ""));
        assert_eq!(attached["destroyed"], 1, "{attached}");
        assert_eq!(attached["foreign"], 0, "{attached}");
        assert!(theirs.read(&mut [0; 9]).is_err(), "it was reset");
        assert_ne!(ask(&mut governed, "go"), "ok");
        assert_eq!(ask(&mut stranger, "go"), "ok");
        strangers.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(ask(&mut governed, "go"), "ok", "the same process is served now");

        assert_eq!(w.tries(&inside), SERVED);
        w.nothing_left();
        w.leaves(&outside);
        let agent = w.agent("a");
        assert_eq!(agent["closed"], serde_json::Value::Null, "{agent}");
        assert_eq!(agent["cgroup"], format!("/{inside}"));
        w.recorded("", "attach a to");
    });
}

#[test]
fn a_group_below_another_namespace_and_root_inside_are_governed() {
    with_daemon(|w| {
        let inside = w.group("inside");
        w.attach("a", &inside, &w.policy("p", &[80], ""));
        let below = w.group("inside/below");
        assert_eq!(w.tries(&below), SERVED);

        // Every capability, and another user by set-user-id: the group decides.
        let as_user = |id: u32| {
            format!(
                "
where('served.test', 80) # Python reads its own files for this
os.setresgid({id}, {id}, {id}); os.setresuid({id}, {id}, {id})
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{NOBODY}', 9)) and None)
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255) and None)
attempt(echo)
"
            )
        };
        assert_eq!(run(Some(&w.at(&inside)), &as_user(0)), "EPERM\nEPERM\nok");
        assert_eq!(run(Some(&w.at(&inside)), &as_user(1)), "EPERM\nEPERM\nok");
        w.nothing_left();
        assert!(run(None, &as_user(0)).starts_with("ok\nok"), "the control");
        assert!(w.wire.packets() >= 1, "the control");

        // A namespace that the daemon has not seen is refused, and served soon.
        let script = "
import ctypes, subprocess
ctypes.CDLL(None).unshare(0x40000000)
subprocess.check_call(['ip', 'link', 'set', 'lo', 'up'])
attempt(lambda: socket.create_connection(('203.0.113.5', 443), 1) and None)
say('looked')
begun = time.monotonic()
while echo() is not None and time.monotonic() - begun < 15: time.sleep(0.05)
say('%d' % ((time.monotonic() - begun) * 1000))
sys.stdin.readline()
";
        let mut child = start(Some(&w.at(&inside)), script);
        assert_eq!(line(&mut child), "EPERM");
        assert_eq!(line(&mut child), "looked");
        let waited: u64 = line(&mut child).parse().unwrap();
        assert!(waited < 15_000, "never served in its own namespace");
        report(&format!("a new namespace was served after {waited} ms"));
        assert_eq!(w.agent("a")["namespaces"], 2);
        drop(child.stdin.take());
        child.wait().unwrap();
        // Left, it is let go of.
        crate::world::eventually("the namespace is left", || w.agent("a")["namespaces"] == 1);
        w.nothing_left();
    });
}

#[test]
fn two_agents_in_one_namespace_share_nothing() {
    with_daemon(|w| {
        let (one, two) = (w.group("one"), w.group("two"));
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = service.local_addr().unwrap().port();
        let local = format!("[local]\nconnect = [{port}]\nlisten = [8091]\n");
        w.attach("one", &one, &w.policy("p1", &[80], &local));
        w.attach("two", &two, &w.policy("p2", &[81], ""));
        // Each its own policy.
        assert_eq!([w.tries_on(&one, 80), w.tries_on(&two, 81)], [SERVED, SERVED]);
        let refused = crate::probe::REFUSED;
        assert_eq!([w.tries_on(&one, 81), w.tries_on(&two, 80)], [refused, refused]);

        // What `[local]` opens, for whom it does.
        let connect =
            format!("attempt(lambda: socket.create_connection(('127.0.0.1', {port})).close())\n");
        let listen = "
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
attempt(lambda: s.bind(('0.0.0.0', 8091)))
s = socket.socket()
attempt(lambda: s.bind(('0.0.0.0', 8092)))
";
        let script = format!("{connect}{listen}");
        assert_eq!(run(Some(&w.at(&one)), &script), "ok\nok\nEPERM");
        assert_eq!(run(Some(&w.at(&two)), &script), "EPERM\nEPERM\nEPERM");
        assert_eq!(run(None, &script), "ok\nok\nok", "the control");

        // An agent's own listener is its own; another agent's is not.
        let mut own = start(
            Some(&w.at(&one)),
            "
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
say(s.getsockname()[1])
attempt(lambda: socket.create_connection(s.getsockname()).close())
sys.stdin.readline()
",
        );
        let own_port = line(&mut own);
        assert_eq!(line(&mut own), "ok");
        let dial =
            format!("attempt(lambda: socket.create_connection(('127.0.0.1', {own_port})).close())");
        assert_eq!(run(Some(&w.at(&one)), &dial), "ok");
        assert_eq!(run(Some(&w.at(&two)), &dial), "EPERM");
        assert_eq!(run(None, &dial), "ok", "the control");

        // Nobody reaches an interceptor's listener, one's own or another's.
        let ports = listening(w.interceptor().as_raw());
        assert!(ports.len() >= 4, "{ports:?}");
        for port in ports {
            let dial = format!(
                "attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 2).close())
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
attempt(lambda: s.bind(('127.0.0.1', {port})))"
            );
            for group in [&one, &two] {
                assert_eq!(run(Some(&w.at(group)), &dial), "EPERM\nEPERM", "{port}");
            }
        }
        w.nothing_left();
        let _ = own.kill();
        own.wait().unwrap();
    });
}

/// The TCP ports of IPv4 on which a process listens.
pub(crate) fn listening(pid: i32) -> Vec<u16> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let mine = own.contains(&format!("socket:[{}]", fields.get(9)?));
        let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
        (mine && *fields.get(3)? == "0A").then_some(port)
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[test]
fn an_ungoverned_connection_through_the_interceptors_port_is_nobodys() {
    with_daemon(|w| {
        let inside = w.group("inside");
        w.attach("a", &inside, &w.policy("p", &[80], ""));
        // Whoever is no agent can dial it, and is told nothing: there is no flow.
        for port in listening(w.interceptor().as_raw()) {
            let script = format!(
                "
s = socket.create_connection(('127.0.0.1', {port}), 2)
s.settimeout(1)
def read():
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: served.test\\r\\n\\r\\n')
    return 'nothing' if s.recv(99) == b'' else 'answered'
attempt(read)
"
            );
            let said = run(None, &script);
            assert_ne!(said, "answered");
        }
        w.recorded("flow_unknown", "");
        assert_eq!(w.tries(&inside), SERVED, "the control");
        let begun = Instant::now();
        w.kill();
        w.tries_become(&inside, CLOSED);
        assert!(begun.elapsed() < Duration::from_secs(20));
        w.nothing_left();
    });
}

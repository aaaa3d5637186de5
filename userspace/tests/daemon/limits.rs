//! Nothing left: no space, no descriptors, no place for flows. What is new is refused, what is
//! there goes on or is closed, and all is well again when there is enough.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::probe::{CLOSED, REFUSED, SERVED, ask, line, start};
use crate::world::{World, eventually, in_world, stand_still, with_daemon};

/// A file system of this many KiB.
fn small(path: &Path, kib: u32) {
    fs::create_dir_all(path).unwrap();
    let options = format!("size={kib}k,mode=0711");
    mount(Some("small"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
}

/// Fills it to the last byte.
fn fill(folder: &Path) {
    let mut file = File::create(folder.join("fill")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}

fn remount(path: &Path, flags: MsFlags) {
    let none = None::<&str>;
    mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none).unwrap();
}

#[test]
fn a_full_disk_allows_nothing_and_is_got_over() {
    in_world(|w| {
        small(&w.state_dir(), 8 << 10);
        w.start();
        let (one, two) = (w.group("one"), w.group("two"));
        let policy = w.policy("p", &[80], "");
        w.attach("a", &one, &policy);
        assert_eq!(w.tries(&one), SERVED, "the control");

        fill(&w.state_dir());
        // The rest of the journal's last page is still free.
        w.tries_become(&one, REFUSED);
        eventually("an attach is refused", || {
            let said = w.try_attach("b", &two, &policy);
            if said.code == 0 {
                w.egret(&["detach", "b"]);
                return false;
            }
            said.refused("cannot be recorded");
            true
        });
        w.egret(&["detach", "a"]).refused("cannot be recorded");
        w.egret(&["reload"]).refused("cannot be recorded");
        assert_eq!(w.tries(&one), REFUSED);
        w.nothing_left();
        w.leaves(&two);
        // What closes is done although nobody can write it down.
        w.egret(&["detach", "a", "--deny"]).refused("cannot be recorded");
        assert_eq!(w.tries(&one), CLOSED);
        w.egret(&["detach", "a", "--undo"]).refused("cannot be recorded");
        assert_eq!(w.tries(&one), CLOSED);

        fs::remove_file(w.state_dir().join("fill")).unwrap();
        w.egret(&["detach", "a", "--undo"]).done();
        w.tries_become(&one, SERVED);
        w.attach("b", &two, &policy);
        assert_eq!(w.tries(&two), SERVED);
        // What was refused meanwhile is told now, and the log is whole.
        w.recorded("attach_refused", "attach b");
        w.recorded("", "could not be written");
        w.stop();
        let verdict = w.egret(&["audit", "verify"]);
        assert_eq!(verdict.code, 0, "{verdict:?}");
        w.nothing_left();
    });
}

#[test]
fn a_run_folder_that_is_full_or_read_only_changes_nothing() {
    in_world(|w| {
        small(&w.run_dir(), 1 << 10);
        w.start();
        let (one, two) = (w.group("one"), w.group("two"));
        let policy = w.policy("p", &[80], "");
        w.attach("a", &one, &policy);
        let trouble = |w: &World| {
            w.try_attach("b", &two, &policy).refused("attached");
            w.recorded("attach_refused", "attach b");
            w.egret(&["detach", "a"]).refused("attached");
            assert_eq!(w.tries(&one), SERVED, "as before");
            w.nothing_left();
            w.leaves(&two);
            assert_eq!((w.pins(), w.records()), (vec!["a".into()], vec!["a.json".into()]));
            // What closes is done all the same.
            w.egret(&["detach", "a", "--deny"]).refused("attached");
            assert_eq!(w.tries(&one), CLOSED);
            w.egret(&["detach", "a", "--undo"]).refused("attached");
            assert_eq!(w.tries(&one), CLOSED);
        };
        // Nobody starts on a folder that is read-only, and what is attached is closed.
        w.kill();
        remount(&w.run_dir(), MsFlags::MS_RDONLY);
        w.start_fails(125, "Read-only file system");
        w.tries_become(&one, CLOSED);
        remount(&w.run_dir(), MsFlags::empty());
        w.start();
        assert_eq!(w.tries(&one), SERVED);
        fill(&w.run_dir());
        trouble(w);
        fs::remove_file(w.run_dir().join("fill")).unwrap();
        w.egret(&["detach", "a", "--undo"]).done();
        w.attach("b", &two, &policy);
        assert_eq!([w.tries(&one), w.tries(&two)], [SERVED, SERVED]);
        w.nothing_left();
    });
}

/// Takes every descriptor that is free: only numbers that are in use are left. Answers the limit
/// from before.
fn exhaust(pid: Pid) -> u64 {
    let folder = format!("/proc/{pid}/fd");
    let used = |n: &u64| Path::new(&format!("{folder}/{n}")).symlink_metadata().is_ok();
    let dense = || (0..).take_while(used).count();
    // A number that is free for a moment would take those above it away for good.
    let until = Instant::now() + Duration::from_secs(5);
    while dense() < fs::read_dir(&folder).unwrap().count() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    limit(pid, dense() as u64)
}

/// Sets how many descriptors a process may have; answers how many it could have before.
fn limit(pid: Pid, most: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let row = text.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let before = row.split_whitespace().nth(3).unwrap().parse().unwrap();
    // As its own user: root may be without the right to do it to others.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let id = |name: &str| -> u32 {
        let row = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        row.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (pid, soft) = (pid.to_string(), format!("--nofile={most}:"));
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid, &soft]).uid(id("Uid:")).gid(id("Gid:"));
    assert!(command.status().unwrap().success());
    before
}

#[test]
fn a_warden_without_descriptors_refuses_and_forgets_nobody() {
    with_daemon(|w| {
        let (one, two) = (w.group("one"), w.group("two"));
        let policy = w.policy("p", &[80], "");
        w.attach("a", &one, &policy);
        let before = exhaust(w.warden());
        for _ in 0..10 {
            let said = w.try_attach("b", &two, &policy);
            assert!(said.code == 125 && !said.err.is_empty(), "{said:?}");
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        assert_eq!(w.tries(&one), SERVED, "as before");
        // It cannot start another interceptor now: closed, and no longer.
        kill(w_interceptor(w), Signal::SIGKILL).unwrap();
        w.tries_become(&one, CLOSED);
        limit(w.warden(), before);
        w.tries_become(&one, SERVED);
        w.nothing_left();
        w.leaves(&two);
        assert_eq!(w.agent("a")["closed"], serde_json::Value::Null);
        w.attach("b", &two, &policy);
        assert_eq!(w.tries(&two), SERVED);
        w.nothing_left();
    });
}

/// Without asking the daemon, which cannot answer.
fn w_interceptor(w: &World) -> Pid {
    crate::world::children(w.warden().as_raw().unsigned_abs()).pop().unwrap()
}

#[test]
fn an_interceptor_without_descriptors_refuses_and_recovers() {
    with_daemon(|w| {
        let (one, two) = (w.group("one"), w.group("two"));
        let policy = w.policy("p", &[80], "");
        w.attach("a", &one, &policy);
        assert_eq!(w.tries(&one), SERVED);
        let before = exhaust(w.interceptor());
        let said = w.tries(&one);
        assert!(said.starts_with("EPERM ok") && !said.ends_with(" ok"), "{said}");
        limit(w.interceptor(), before);
        w.tries_become(&one, SERVED);
        // It cannot take another agent either.
        exhaust(w.interceptor());
        w.try_attach("b", &two, &policy).refused("interceptor");
        w.nothing_left();
        w.leaves(&two);
        limit(w.interceptor(), before);
        w.tries_become(&one, SERVED);
        w.attach("b", &two, &policy);
        assert_eq!(w.tries(&two), SERVED);
        w.nothing_left();
    });
}

#[test]
fn a_full_table_of_flows_refuses_what_finds_no_place() {
    in_world(|w| {
        w.flags = vec!["--max-flows".into(), "16".into()];
        w.start();
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let script = "
to = socket.getaddrinfo('served.test', 80, socket.AF_INET)[0][4]
say('ready')
for ask in sys.stdin:
    passed = []; refused = 0
    for _ in range(40):
        s = socket.socket(); s.setblocking(False)
        e = s.connect_ex(to)
        if e in (0, errno.EINPROGRESS): passed.append(s)
        elif e == errno.EPERM: refused += 1
        else: say(errno.errorcode[e])
    say(len(passed), refused)
    sys.stdin.readline()
    served = 0
    for s in passed:
        s.settimeout(10)
        try:
            s.sendall(b'hi'); served += s.recv(9) == b'hi'
        except OSError: pass
        s.close()
    say(served)
";
        let mut child = start(Some(&w.at(&group)), script);
        assert_eq!(line(&mut child), "ready");
        let numbers = |text: String| -> Vec<u32> {
            text.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("{text}"))).collect()
        };
        let interceptor = w.interceptor();
        stand_still(interceptor);
        let held = numbers(ask(&mut child, "go"));
        kill(interceptor, Signal::SIGCONT).unwrap();
        assert!(held[0] >= 1 && held[0] <= 16 && held[1] == 40 - held[0], "{held:?}");
        assert_eq!(numbers(ask(&mut child, "go"))[0], held[0], "those that had a place are served");
        w.recorded("flow_map_full", "");
        // Accepted as they come, more find a place: the control.
        w.tries_become(&group, SERVED);
        let next = numbers(ask(&mut child, "go"));
        assert_eq!(next[0] + next[1], 40);
        assert_eq!(numbers(ask(&mut child, "go"))[0], next[0]);
        w.nothing_left();
        drop(child.stdin.take());
        child.wait().unwrap();
    });
}

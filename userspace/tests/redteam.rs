//! Attacks from inside `egret run`, by the built binary, as root. Each probe that is refused
//! stands beside the same probe where it succeeds: outside egret, or for what is the agent's own.
//!
//! This test's own program is the agent: `egret run … -- redteam agent --exact --ignored`, told
//! by a variable what to try. It prints one line for each attempt.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "the agent reports by printing")]

#[path = "redteam/inside.rs"]
mod inside;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// What the agent is to try, and on what: `VERB ARGUMENT…`, separated by newlines.
const ORDER: &str = "REDTEAM_ORDER";

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every egret that starts ends what a killed one left behind, so nobody else may start one while
/// a test watches a survivor.
static SURVIVOR: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    SURVIVOR.read().unwrap_or_else(PoisonError::into_inner)
}

/// The users that an agent is tried as.
const USERS: [&str; 2] = ["0:0", "65534:65534"];

fn is_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        println!("SKIPPED {test}: needs root. Nothing was shown.");
    }
    root
}

/// A folder that is not in /tmp, which egret searches more thoroughly.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("egret-redteam-").tempdir_in("/srv").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    dir
}

/// This program, where every user may execute it.
fn program(dir: &Path) -> PathBuf {
    let copy = dir.join("redteam");
    if copy.exists() {
        return copy; // and maybe running, so that it cannot be written
    }
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    copy
}

/// The agent, contained.
fn contained(dir: &Path, user: &str, extra: &[&str], order: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
    command
        .args(["--state", &dir.join("state").to_string_lossy()])
        .args(["run", "--quiet", "--user", user, "--allow", "GET https://api.test/**"])
        .args(extra)
        .arg("--")
        .arg(program(dir));
    as_agent(&mut command, dir, order);
    command
}

/// The agent, free: the control.
fn free(dir: &Path, order: &str) -> Command {
    let mut command = Command::new(program(dir));
    as_agent(&mut command, dir, order);
    command
}

fn as_agent(command: &mut Command, dir: &Path, order: &str) {
    command
        .args(["inside::agent", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ORDER, order)
        .current_dir(dir)
        .stdin(Stdio::null());
}

/// What the agent printed of its attempts.
fn attempts(mut command: Command) -> Vec<String> {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} {text}", output.status);
    lines(&text)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().filter_map(|l| l.split_once("=> ").map(|(_, r)| r.to_owned())).collect()
}

/// Sockets of the machine, with a process that serves them until it is dropped.
struct Machine {
    child: Child,
    second: PathBuf,
}

impl Machine {
    fn start(dir: &Path) -> Self {
        for sub in ["abs", "lone", "renamed", "linked", "fd", "mounted", "second", "ns"] {
            fs::create_dir(dir.join(sub)).unwrap();
            fs::set_permissions(dir.join(sub), Permissions::from_mode(0o777)).unwrap();
        }
        let second = dir.join("second");
        let none: Option<&str> = None;
        mount(Some(&dir.join("mounted")), &second, none, MsFlags::MS_BIND, none).unwrap();
        let mut child = Command::new(program(dir))
            .args(["inside::machine", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(ORDER, dir)
            .current_dir(dir.join("lone"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        assert!(out.lines().map_while(Result::ok).any(|l| l.contains("ready")));
        Self { child, second }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = umount2(&self.second, MntFlags::MNT_DETACH);
    }
}

#[test]
fn no_unix_socket_of_the_machine_is_reachable_under_any_name() {
    if !is_root("unix sockets") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    let at = |p: &str| dir.path().join(p).to_string_lossy().into_owned();
    let _machine = Machine::start(dir.path());
    let names = [
        "abs/s",
        "lone/rel",
        "renamed/s",
        "linked/s",
        "linked/s2",
        "fd/s",
        "mounted/s",
        "second/s",
        "ns/s",
    ];
    let order: Vec<String> = names.iter().map(|n| format!("unix {}", at(n))).collect();
    let order = order.join("\n");
    let control = attempts(free(dir.path(), &order));
    assert_eq!(control.len(), names.len());
    assert!(control.iter().all(|l| l.ends_with(": done")), "control {control:?}");
    for user in USERS {
        let own = format!("\nown {}", at(&format!("own-{}", &user[..1])));
        let inside = attempts(contained(dir.path(), user, &[], &(order.clone() + &own)));
        let (own, others) = inside.split_last().unwrap();
        assert!(own.ends_with(": done"), "{own}");
        assert_eq!(others.len(), names.len());
        assert!(others.iter().all(|l| l.ends_with(": EACCES")), "{user} {others:?}");
    }
}

#[test]
fn an_allowed_socket_is_reachable() {
    if !is_root("allowed sockets") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    let _machine = Machine::start(dir.path());
    let socket = dir.path().join("abs/s");
    let policy = dir.path().join("p.toml");
    let text = format!("version = 1\nname = \"t\"\n[local]\nunix = [\"{}\"]\n", socket.display());
    fs::write(&policy, text).unwrap();
    let order = format!("unix {}", socket.display());
    let extra = ["--policy", policy.to_str().unwrap()];
    let inside = attempts(contained(dir.path(), USERS[1], &extra, &order));
    assert!(inside[0].ends_with(": done"), "{inside:?}");
}

#[test]
fn secrets_and_state_are_out_of_sight_under_every_mount() {
    if !is_root("secrets") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    let at = |p: &str| dir.path().join(p).to_string_lossy().into_owned();
    for sub in ["real", "second", "state"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let none: Option<&str> = None;
    mount(Some(&dir.path().join("real")), &dir.path().join("second"), none, MsFlags::MS_BIND, none)
        .unwrap();
    fs::write(at("real/token"), "correct-horse-battery").unwrap();
    fs::set_permissions(at("real/token"), Permissions::from_mode(0o600)).unwrap();
    fs::write(at("real/other"), "x").unwrap();
    let order = format!(
        "read {}\nread {}\nlist {}\nread {}",
        at("real/token"),
        at("second/token"),
        at("state"),
        at("second/other")
    );
    let control = attempts(free(dir.path(), &order));
    assert!(control.iter().all(|l| l.ends_with(": done")), "{control:?}");
    let bearer = format!("api.test=file:{}", at("real/token"));
    let inside = attempts(contained(dir.path(), USERS[0], &["--bearer", &bearer], &order));
    let ends: Vec<_> = inside.iter().filter_map(|l| l.rsplit(": ").next()).collect();
    assert_eq!(ends, ["EACCES", "EACCES", "EACCES", "done"], "{inside:?}");

    // A second name could not be covered, so it is refused.
    fs::hard_link(at("real/token"), at("real/token2")).unwrap();
    let refused = contained(dir.path(), USERS[0], &["--bearer", &bearer], "").output().unwrap();
    umount2(&dir.path().join("second"), MntFlags::MNT_DETACH).unwrap();
    assert_eq!(refused.status.code(), Some(125));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("2 names") && !said.contains("correct-horse"), "{said}");
}

#[test]
fn only_an_agent_that_is_not_root_has_user_namespaces() {
    if !is_root("user namespaces") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    for (command, want) in [
        (free(dir.path(), "userns"), "userns: done"),
        (contained(dir.path(), USERS[0], &[], "userns"), "userns: EPERM"),
        // Where a process may leave no_new_privs it may become root.
        (contained(dir.path(), USERS[1], &["--allow-new-privileges"], "userns"), "userns: EPERM"),
        (contained(dir.path(), USERS[1], &[], "userns"), "userns: done"),
    ] {
        // unshare(CLONE_NEWUSER) needs a process of one thread; the test harness has two.
        let got = attempts(command);
        let got = got[0].replace("EINVAL", "done");
        assert_eq!(got, want);
    }
}

#[test]
fn init_keeps_its_own_counsel() {
    if !is_root("init") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    let files = ["mem", "environ", "maps"].map(|f| format!("read /proc/PID/{f}\n")).concat();
    let order = format!("{files}link /proc/PID/root\nlink /proc/PID/ns/net\nlink /proc/PID/exe");
    let control = attempts(contained(dir.path(), USERS[0], &[], &order.replace("PID", "self")));
    // Address 0 of one's own memory cannot be read, which is no refusal.
    assert!(control.iter().all(|l| l.ends_with(": done") || l.contains("mem: EIO")), "{control:?}");
    for user in USERS {
        // After the kill init still serves: its exit code arrives.
        let order = order.replace("PID", "1") + "\nkill 1";
        let inside = attempts(contained(dir.path(), user, &[], &order));
        let (kill, files) = inside.split_last().unwrap();
        assert!(files.iter().all(|l| l.ends_with(": EACCES")), "{user} {files:?}");
        assert_eq!(kill == "kill 1: done", user == USERS[0], "{kill}");
    }
}

#[test]
fn nobody_dials_the_interceptor_itself() {
    if !is_root("the interceptor's ports") {
        return;
    }
    let _guard = shared();
    let dir = folder();
    for user in USERS {
        let inside = attempts(contained(dir.path(), user, &[], "ports"));
        let all: Vec<_> = inside[0].trim_start_matches("ports: ").split("; ").collect();
        let (own, other): (Vec<&str>, Vec<&str>) = all.iter().partition(|l| l.starts_with("own"));
        assert!(own.len() == 3 && own.iter().all(|l| l.ends_with("done")), "{own:?}");
        assert!(other.len() >= 6 && other.iter().all(|l| l.ends_with("EPERM")), "{other:?}");
    }
}

#[test]
fn a_stopped_egret_closes_and_a_killed_one_leaves_nothing() {
    if !is_root("SIGSTOP and SIGKILL") {
        return;
    }
    let _guard = SURVIVOR.write().unwrap_or_else(PoisonError::into_inner);
    let dir = folder();
    let mut egret = contained(dir.path(), USERS[1], &["--outlive"], "every 12 192.0.2.1:80")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let out = BufReader::new(egret.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            if let Some((_, result)) = line.split_once("=> ") {
                let _ = tell.send(result.to_owned());
            }
        }
    });
    // 192.0.2.1 exists nowhere: what answers is the interceptor.
    let wait_for = |want: &str| {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match told.recv_timeout(PATIENCE) {
                Ok(got) if got == want => return,
                Ok(_) => {}
                Err(e) => panic!("the agent is gone before {want}: {e}"),
            }
        }
        panic!("never {want}");
    };
    let pid = Pid::from_raw(egret.id().cast_signed());
    wait_for("done");
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_for("EPERM"); // the lease has ended
    kill(pid, Signal::SIGCONT).unwrap();
    wait_for("done");
    kill(pid, Signal::SIGKILL).unwrap();
    egret.wait().unwrap();
    wait_for("ENETUNREACH");

    // The next one ends the survivor: its output closes, long before its time is over.
    let _ = attempts(contained(dir.path(), USERS[1], &[], ""));
    let end = Instant::now() + PATIENCE;
    while let Ok(last) = told.recv_timeout(PATIENCE) {
        assert_ne!(last, "every 12 192.0.2.1:80: done", "it lived to the end");
        assert!(Instant::now() < end, "the survivor lives on");
    }
    let verified = Command::new(env!("CARGO_BIN_EXE_egret"))
        .args(["--state", &dir.path().join("state").to_string_lossy(), "audit", "verify"])
        .status()
        .unwrap();
    assert!(verified.success(), "a kill is no tampering");
}

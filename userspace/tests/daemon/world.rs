//! One daemon for one test: its folders, its groups, an upstream, and the command line that talks
//! to it. Everything goes with the value, also after a failure.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use egret::redirect::cgroup::Hierarchy;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wire::{Wire, as_root, wire};

/// How long something may take that takes a moment. Two busy cores are slow at times.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The name that the policies of these tests serve.
pub(crate) const SERVED_NAME: &str = "served.test";

/// What came of a command line.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let code = output.status.code().unwrap_or(-1);
        Self { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// It was refused, with these words on stderr.
    #[track_caller]
    pub(crate) fn refused(&self, words: &str) {
        self.failed(125, words);
    }

    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(words), "`{words}` is not said: {self:?}");
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

pub(crate) struct World {
    pub(crate) folder: PathBuf,
    pub(crate) wire: Wire,
    pub(crate) upstream: SocketAddr,
    root: PathBuf,
    /// The parent of this test's groups, from the root of the hierarchy.
    pub(crate) parent: String,
    daemon: Option<Child>,
    /// Given to the daemon beside its folders.
    pub(crate) flags: Vec<String>,
}

/// Runs a test beside a daemon that is not started yet.
pub(crate) fn in_world(test: impl FnOnce(&mut World) + Send + 'static) {
    as_root(move |folder| test(&mut World::new(folder)));
}

/// The same, with the daemon running.
pub(crate) fn with_daemon(test: impl FnOnce(&mut World) + Send + 'static) {
    in_world(move |world| {
        world.start();
        test(world);
    });
}

impl World {
    fn new(folder: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // The interceptor's user must be able to pass.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).unwrap();
        let wire = wire();
        let resolv = folder.join("resolv.conf");
        fs::write(&resolv, "nameserver 10.9.0.2\noptions timeout:1 attempts:1\n").unwrap();
        let none = None::<&str>;
        mount(Some(&resolv), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).unwrap();
        let root = Hierarchy::find().unwrap().root().to_owned();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = format!("egret-test-{}-{count}", std::process::id());
        fs::create_dir(root.join(&parent)).unwrap();
        let world = Self {
            folder: folder.to_owned(),
            wire,
            upstream: upstream(),
            root,
            parent,
            daemon: None,
            flags: Vec::new(),
        };
        world.config("");
        world
    }

    /// Writes egret.toml; `agents` are its `[[agent]]` tables.
    pub(crate) fn config(&self, agents: &str) {
        let daemon = "[daemon]\nuser = \"nobody\"\ngroup = \"daemon\"\n";
        fs::write(self.folder.join("egret.toml"), format!("{daemon}{agents}")).unwrap();
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A policy that lets these ports of [`SERVED_NAME`] through to the upstream, and what else is
    /// said.
    pub(crate) fn policy(&self, name: &str, ports: &[u16], more: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.toml"));
        let text = format!(
            "version = 1\nname = \"{name}\"\n[upstream.resolve]\n\"{SERVED_NAME}\" = \"{}\"\n\
             [[rule]]\nname = \"served\"\naction = \"allow\"\nhosts = [\"{SERVED_NAME}\"]\n\
             protocol = \"tcp\"\nports = {ports:?}\n{more}",
            self.upstream
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// A new group; answers its path from the root of the hierarchy.
    pub(crate) fn group(&self, name: &str) -> String {
        let path = format!("{}/{name}", self.parent);
        fs::create_dir(self.root.join(&path)).unwrap();
        path
    }

    /// Where a group is mounted.
    pub(crate) fn at(&self, group: &str) -> PathBuf {
        self.root.join(group)
    }

    pub(crate) fn daemon_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command
            .arg("--state")
            .arg(self.state_dir())
            .arg("daemon")
            .arg("--config")
            .arg(self.folder.join("egret.toml"))
            .arg("--run")
            .arg(self.run_dir())
            .args(&self.flags)
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        self.launch();
        let deadline = Instant::now() + SOON;
        while self.egret(&["status"]).code == 125 {
            let ended = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap());
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts the daemon and waits for nothing.
    pub(crate) fn launch(&mut self) {
        assert!(self.daemon.is_none());
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        self.daemon = Some(self.daemon_command().stderr(log).spawn().unwrap());
    }

    /// Starts the daemon, which must end by itself with an error.
    #[track_caller]
    pub(crate) fn start_fails(&self, code: i32, words: &str) {
        let mut command = Command::new("timeout");
        command.arg("20").arg(self.daemon_command().get_program());
        let output = command.args(self.daemon_command().get_args()).output().unwrap();
        Said::of(&output).failed(code, words);
    }

    /// What the daemons of this test have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn warden(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.daemon.as_ref().unwrap().id()).unwrap())
    }

    /// The interceptor that is there now.
    #[track_caller]
    pub(crate) fn interceptor(&self) -> Pid {
        let mut found = None;
        eventually("an interceptor", || {
            found = self.status()["interceptor"]["pid"].as_i64();
            found.is_some()
        });
        Pid::from_raw(i32::try_from(found.unwrap()).unwrap())
    }

    /// SIGKILL to the warden.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            daemon.wait().unwrap();
        }
    }

    /// Ends the daemon in good order.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        kill(Pid::from_raw(i32::try_from(daemon.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", self.log());
    }

    /// The command line, with this daemon's folders.
    pub(crate) fn egret(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egret"));
        command.arg("--state").arg(self.state_dir()).args(args);
        command.env("EGRET_RUN", self.run_dir()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn attach(&self, name: &str, group: &str, policy: &Path) -> Value {
        self.try_attach(name, group, policy).done().json()
    }

    pub(crate) fn try_attach(&self, name: &str, group: &str, policy: &Path) -> Said {
        let policy = policy.to_str().unwrap();
        self.egret(&["attach", name, "--json", "--cgroup", group, "--policy", policy])
    }

    #[track_caller]
    pub(crate) fn detach(&self, name: &str) {
        self.egret(&["detach", name]).done();
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.egret(&["status", "--json"]).json()
    }

    /// What the status says of one agent; null if it is not attached.
    #[track_caller]
    pub(crate) fn agent(&self, name: &str) -> Value {
        let status = self.status();
        let agents = status["agents"].as_array().unwrap();
        agents.iter().find(|a| a["name"] == name).cloned().unwrap_or_default()
    }

    /// Every record so far.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let said = self.egret(&["audit", "export"]).done();
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A record with this reason, whose message has these words, comes into the log.
    #[track_caller]
    pub(crate) fn recorded(&self, reason: &str, words: &str) {
        let there = |r: &Value| {
            let message = r["message"].as_str().unwrap_or_default();
            (reason.is_empty() || r["reason"] == reason) && message.contains(words)
        };
        eventually(&format!("a record of `{reason}` with `{words}`"), || {
            self.audit().iter().any(there)
        });
    }

    /// What is pinned of agents.
    pub(crate) fn pins(&self) -> Vec<String> {
        names(&self.run_dir().join("bpf/agents"))
    }

    /// The sessions whose names are kept.
    pub(crate) fn kept_names(&self) -> Vec<String> {
        let folder = self.state_dir().join("names");
        names(&folder).iter().flat_map(|daemon| names(&folder.join(daemon))).collect()
    }

    /// The files of records.
    pub(crate) fn records(&self) -> Vec<String> {
        names(&self.run_dir().join("attached"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let interceptors = self.daemon.as_ref().map(|d| children(d.id())).unwrap_or_default();
        self.kill();
        for pid in interceptors {
            let _ = kill(pid, Signal::SIGKILL); // one that stands still does not end by itself
        }
        if std::thread::panicking() {
            report(&format!("the daemon's log:\n{}", self.log()));
        }
        let parent = self.root.join(&self.parent);
        let _ = fs::write(parent.join("cgroup.kill"), "1");
        let deadline = Instant::now() + SOON;
        while remove_groups(&parent).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Not by a macro, whose output the test harness keeps to itself.
pub(crate) fn report(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// The processes that a process has started and that are there.
pub(crate) fn children(pid: u32) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let all = texts.collect::<Vec<_>>().join(" ");
    all.split_whitespace().filter_map(|n| n.parse().ok()).map(Pid::from_raw).collect()
}

/// Stops a process; when this returns, each of its threads stands still.
pub(crate) fn stand_still(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    eventually("it stands still", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut stats = tasks.filter_map(|t| fs::read_to_string(t.path().join("stat")).ok());
        stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    });
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends back what it gets, to as many as connect. It ends with the test's process.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

//! A cgroup, a network namespace and a folder for one contained command. Needs root.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use egret::contain::{Child, ContainError, ExitStatus, Plan, Spec, spawn, user};
use egret::redirect::netns::Netns;

/// True, with a loud line, when the test cannot run here.
pub(crate) fn skipped(name: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED {name}: needs root");
    }
    !root
}

/// The cgroup v2 mount of this machine, wherever it is.
pub(crate) fn cgroup_root() -> PathBuf {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|l| l.contains(" - cgroup2 ")).expect("cgroup v2");
    line.split(' ').nth(4).unwrap().into()
}

pub(crate) struct Box {
    pub(crate) cgroup: PathBuf,
    pub(crate) netns: Netns,
    pub(crate) dir: tempfile::TempDir,
}

impl Box {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup_root().join(format!("egret-test-{}-{n}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(dir.path(), open).unwrap();
        Self { cgroup, netns: Netns::private().unwrap(), dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A plan for a command, as root, without a terminal.
    pub(crate) fn plan(&self, argv: &[&str]) -> Plan {
        let argv = argv.iter().map(OsString::from).collect();
        let mut plan = Plan::new(argv, user::resolve(Some("root"), |_| None).unwrap());
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        plan.env = vec![("PATH".into(), path.into())];
        plan.terminal = false;
        plan
    }

    /// A plan for a shell script whose output [`Box::output`] returns.
    pub(crate) fn script(&self, script: &str) -> Plan {
        let out = self.path("out");
        self.plan(&["sh", "-c", &format!("exec >{} 2>&1\n{script}", out.display())])
    }

    pub(crate) fn spawn(&self, plan: Plan) -> Result<Child, ContainError> {
        let cgroup = fs::File::open(&self.cgroup).unwrap();
        spawn(Spec {
            plan,
            cgroup: cgroup.as_fd(),
            netns: self.netns.as_fd(),
            launcher: Some(env!("CARGO_BIN_EXE_egret").into()),
        })
    }

    pub(crate) fn run(&self, plan: Plan) -> ExitStatus {
        self.spawn(plan).unwrap().wait(|_| ()).unwrap()
    }

    /// Runs a script and returns what it printed.
    pub(crate) fn output(&self, plan: Plan) -> String {
        let out = self.path("out");
        let _ = fs::remove_file(&out); // of another user, it could not be written
        self.run(plan);
        fs::read_to_string(out).expect("the script wrote something")
    }

    pub(crate) fn as_user(&self, mut plan: Plan, uid: &str) -> Plan {
        plan.user = user::resolve(Some(uid), |_| None).unwrap();
        plan
    }
}

impl Drop for Box {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// What the same script prints without egret: the positive control.
pub(crate) fn outside(script: &str) -> String {
    let out = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// Waits for something to become true.
pub(crate) fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if test() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("never happened: {what}");
}

pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

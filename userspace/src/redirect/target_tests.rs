//! Targets and patterns on this machine's hierarchy, as root, in groups that the tests make.

use std::io::Write as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A group of the test, with everything below it; gone when it is dropped.
struct Tree {
    machine: Hierarchy,
    name: String,
}

impl Tree {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            let _ = writeln!(io::stderr(), "SKIPPED: needs root");
            return None;
        }
        let machine = Hierarchy::find().unwrap();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("egret-test-target-{}-{n}", std::process::id());
        fs::create_dir(machine.root().join(&name)).unwrap();
        Some(Self { machine, name })
    }

    fn path(&self) -> PathBuf {
        self.machine.root().join(&self.name)
    }

    /// The hierarchy as if this tree were all of it.
    fn alone(&self) -> Hierarchy {
        Hierarchy::at(self.path())
    }

    fn add(&self, groups: &[&str]) {
        for group in groups {
            fs::create_dir_all(self.path().join(group)).unwrap();
        }
    }

    fn find(&self, pattern: &Pattern) -> Vec<String> {
        find(pattern, &self.alone()).iter().map(|p| p.display().to_string()).collect()
    }

    fn resolve(&self, target: &Target) -> Result<String, String> {
        let found = resolve(target, &self.alone());
        found.map(|p| p.display().to_string()).map_err(|e| e.to_string())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fn remove(group: &Path) {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove(&entry.path());
                }
            }
            let _ = fs::remove_dir(group);
        }
        remove(&self.path());
        assert!(std::thread::panicking() || !self.path().exists());
    }
}

/// A process that sleeps in a group, or nowhere special; killed when it is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().unwrap())
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.end();
    }
}

fn cgroup(path: impl Into<PathBuf>) -> Target {
    Target::Cgroup(path.into())
}

#[test]
fn patterns_find_what_is_there() {
    let Some(tree) = Tree::new() else { return };
    tree.add(&[
        "agents.slice/agents-a.slice/one.service",
        "agents.slice/agents-b.slice/agents-b-c.slice",
        "agents.slice/two.service/two.service",
        "agents.slice/two.service/payload",
        "system.slice/one.service",
        "user.slice/user@7.service/one.service",
        "egret/1.2.3.s/one.service",
    ]);
    let unit = |t| tree.find(&Pattern::unit(t).unwrap());
    let slice = |t| tree.find(&Pattern::slice(t).unwrap());
    let group = |t| tree.find(&Pattern::cgroup(t).unwrap());
    let one = ["/agents.slice/agents-a.slice/one.service", "/system.slice/one.service"];
    assert_eq!(unit("one.service"), one);
    assert_eq!(unit("two.service"), ["/agents.slice/two.service"]);
    assert_eq!(unit("three.service"), [""; 0]);
    let slices = ["/agents.slice/agents-a.slice", "/agents.slice/agents-b.slice"];
    assert_eq!(slice("agents-*.slice"), slices);
    assert_eq!(slice("agents-b-c.slice"), ["/agents.slice/agents-b.slice/agents-b-c.slice"]);
    assert_eq!(group("/agents.slice/*"), [slices[0], slices[1], "/agents.slice/two.service"]);
    assert_eq!(group("/agents.slice/*/p*d"), ["/agents.slice/two.service/payload"]);
}

#[test]
fn a_unit_is_not_believed_where_others_make_groups() {
    let Some(tree) = Tree::new() else { return };
    tree.add(&["a.slice/runner.service/coder.service", "a.slice/coder.service"]);
    let coder = Pattern::unit("coder.service").unwrap();
    let given = Path::new("/a.slice/runner.service/coder.service");
    let own = Path::new("/a.slice/coder.service");
    let both = ["/a.slice/coder.service", "/a.slice/runner.service/coder.service"];
    assert_eq!(tree.find(&coder), both, "control");
    assert!(admits(&coder, given, &tree.alone()) && admits(&coder, own, &tree.alone()), "control");
    std::os::unix::fs::chown(tree.path().join("a.slice/runner.service"), Some(1000), None).unwrap();
    assert_eq!(tree.find(&coder), both[..1]);
    assert!(!admits(&coder, given, &tree.alone()) && admits(&coder, own, &tree.alone()));
    // Who writes the path writes whose it is.
    let path = Pattern::cgroup(&given.display().to_string()).unwrap();
    assert_eq!(tree.find(&path), both[1..]);
}

#[test]
fn a_path_is_inside_the_mount_or_from_the_root() {
    let Some(tree) = Tree::new() else { return };
    tree.add(&["a/b"]);
    let root = tree.path();
    for given in ["a/b", "./a//b/.", "a/b/", "/a/b"] {
        assert_eq!(tree.resolve(&cgroup(given)).as_deref(), Ok("/a/b"), "{given}");
    }
    assert_eq!(tree.resolve(&cgroup(root.join("a/b"))).as_deref(), Ok("/a/b"));
    for (given, want) in [
        (PathBuf::new(), "the path is empty"),
        ("a/c".into(), "is not there"),
        ("a/b/cgroup.procs".into(), "is not a folder"),
        ("a/b/cgroup.procs/x".into(), "is not a folder"),
        ("a/../a/b".into(), "has a `..`"),
        (root.join("../x"), "has a `..`"),
        (".".into(), "the root of all groups"),
        (root.clone(), "the root of all groups"),
        ("/a/c".into(), "outside the cgroup v2 hierarchy"),
        ("/".into(), "the root of all groups"),
        ("/tmp".into(), "outside the cgroup v2 hierarchy"),
        (root.with_file_name("egret-test-target"), "outside the cgroup v2 hierarchy"),
    ] {
        let e = tree.resolve(&cgroup(&given)).unwrap_err();
        assert!(e.contains(want), "{}: {e}", given.display());
    }
    // A link that leads in is outside all the same.
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root.join("a"), dir.path().join("a")).unwrap();
    assert!(tree.resolve(&cgroup(dir.path().join("a/b"))).unwrap_err().contains("outside"));
}

#[test]
fn other_file_systems_are_told_apart() {
    let Some(tree) = Tree::new() else { return };
    let v1 = Path::new("/sys/fs/cgroup/cpu");
    if statfs(v1).is_ok_and(|s| s.filesystem_type() == CGROUP_SUPER_MAGIC) {
        assert!(tree.resolve(&cgroup(v1)).unwrap_err().contains("cannot attach to cgroup v1"));
    }
    // A hierarchy that is none.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let e = resolve(&cgroup("a"), &Hierarchy::at(dir.path().into())).unwrap_err();
    assert!(matches!(e, TargetError::NotV2(_)), "{e}");
}

#[test]
fn slices_and_units_are_found_by_name() {
    let Some(tree) = Tree::new() else { return };
    tree.add(&["a.slice/a-b.slice/x.service", "a.slice/y.service", "b.slice/y.service"]);
    let slice = |t: &str| tree.resolve(&Target::Slice(t.into()));
    let unit = |t: &str| tree.resolve(&Target::Unit(t.into()));
    assert_eq!(slice("a-b.slice").as_deref(), Ok("/a.slice/a-b.slice"));
    assert_eq!(unit("x.service").as_deref(), Ok("/a.slice/a-b.slice/x.service"));
    assert!(slice("c.slice").unwrap_err().contains("slice c.slice is not running"));
    assert!(unit("z.service").unwrap_err().contains("unit z.service is not running"));
    let both = unit("y.service").unwrap_err();
    assert!(both.ends_with("\n  /a.slice/y.service\n  /b.slice/y.service"), "{both}");
    // A target from a socket has not been checked.
    for bad in ["../a.slice", "a*.slice", "-.slice", ""] {
        assert!(matches!(
            resolve(&Target::Slice(bad.into()), &tree.alone()),
            Err(TargetError::Name { .. })
        ));
    }
}

#[test]
fn a_process_is_held_while_it_is_asked() {
    let Some(tree) = Tree::new() else { return };
    tree.add(&["a/b c"]);
    let mut sleeper = Sleeper::start();
    let pid = sleeper.0.id();
    fs::write(tree.path().join("a/b c/cgroup.procs"), pid.to_string()).unwrap();
    let found = resolve(&Target::Pid(pid), &tree.machine).unwrap();
    assert_eq!(found, Path::new("/").join(&tree.name).join("a/b c"));
    let outside = tree.resolve(&Target::Pid(pid)).unwrap_err();
    assert!(outside.contains("is not there"), "{outside}");

    fs::write(tree.machine.root().join("cgroup.procs"), pid.to_string()).unwrap();
    let root = resolve(&Target::Pid(pid), &tree.machine).unwrap_err();
    assert!(matches!(root, TargetError::Root(_)), "{root}");

    fs::write(tree.path().join("a/b c/cgroup.procs"), pid.to_string()).unwrap();
    // Dead and not yet reaped: the id is still taken, the process is gone.
    sleeper.0.kill().unwrap();
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let dead = resolve(&Target::Pid(pid), &tree.machine).unwrap_err();
    assert!(matches!(dead, TargetError::NoProcess(_)), "{dead}");
    sleeper.end();
    let gone = resolve(&Target::Pid(pid), &tree.machine).unwrap_err();
    assert!(matches!(gone, TargetError::NoProcess(_)), "{gone}");
}

#[test]
fn containers_are_found_by_the_beginning_of_their_id() {
    let Some(tree) = Tree::new() else { return };
    let empty = tree.resolve(&Target::Container("0123456789ab".into())).unwrap_err();
    assert!(empty.contains("no container there at all"), "{empty}");
    let id = |n: u8| format!("{n:02x}").repeat(32);
    let (docker, podman, cri, bare) = (id(1), id(2), id(3), id(4));
    let paths = [
        format!("system.slice/docker-{docker}.scope"),
        format!("machine.slice/libpod-{podman}.scope"),
        format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{cri}.scope"),
        format!("docker/{bare}"),
    ];
    for path in &paths {
        tree.add(&[path.as_str(), &format!("{path}/inside/docker/{docker}")]);
    }
    let find = |id: &str| tree.resolve(&Target::Container(id.into()));
    for (id, path) in [&podman, &cri, &bare].into_iter().zip(&paths[1..]) {
        assert_eq!(find(id), Ok(format!("/{path}")));
        assert_eq!(find(&id[..12]), Ok(format!("/{path}")));
    }
    let two = find(&docker).unwrap_err();
    assert!(two.contains(&format!("\n  /{}", paths[0])) && two.lines().count() > 2, "{two}");
    let none = find("ffffffffffff").unwrap_err();
    let seen = format!("there are {}, {}, ", &docker[..12], &docker[..12]);
    assert!(none.contains(&seen), "{none}");
    assert!(find("0202").unwrap_err().contains("12 to 64"));
}

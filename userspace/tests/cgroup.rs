//! Session cgroups on this machine's hierarchy, as root.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

use std::io::{self, Write as _};
use std::process::{Child, Command};
use std::time::Duration;

use egret::identify::SessionId;
use egret::redirect::cgroup::{Cgroup, Hierarchy};
use nix::unistd::Pid;

fn as_root() -> Option<Hierarchy> {
    if !nix::unistd::geteuid().is_root() {
        let _ = writeln!(io::stderr(), "SKIPPED: needs root");
        return None;
    }
    Some(Hierarchy::find().unwrap())
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// Reaps a child, or ends it if the test went wrong. Answers whether SIGKILL had ended it.
fn was_killed(mut child: Child) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    for _ in 0..100 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.signal() == Some(9);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

#[test]
fn dropping_a_group_kills_and_removes_all_below_it() {
    let Some(hierarchy) = as_root() else { return };
    let cgroup = hierarchy.create(&SessionId::random()).unwrap();
    let path = cgroup.path().to_owned();
    assert!(!cgroup.populated().unwrap());
    let (outer, inner, stranger) = (sleeper(), sleeper(), sleeper());
    cgroup.add(pid(&outer)).unwrap();
    std::fs::create_dir_all(path.join("made/by/the-agent")).unwrap();
    std::fs::write(path.join("made/by/the-agent/cgroup.procs"), inner.id().to_string()).unwrap();
    assert!(cgroup.populated().unwrap());
    assert!(!cgroup.wait_empty(Duration::from_millis(10)).unwrap());

    // Frozen processes die too.
    cgroup.freeze().unwrap();
    drop(cgroup);
    assert!(!path.exists());
    assert!(was_killed(outer) && was_killed(inner));
    // The control: who was not in the group lives on.
    let mut stranger = stranger;
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn an_empty_group_is_noticed() {
    let Some(hierarchy) = as_root() else { return };
    let cgroup = hierarchy.create(&SessionId::random()).unwrap();
    let child = sleeper();
    cgroup.add(pid(&child)).unwrap();
    cgroup.kill_all().unwrap();
    assert!(was_killed(child));
    assert!(cgroup.wait_empty(Duration::from_secs(5)).unwrap());
    cgroup.destroy().unwrap();
}

#[test]
fn only_what_a_dead_egret_left_is_swept() {
    let Some(hierarchy) = as_root() else { return };
    let alive: Cgroup = hierarchy.create(&SessionId::random()).unwrap();
    // The same name with another start time: this process id, used before.
    let name = alive.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut parts: Vec<&str> = name.split('.').collect();
    parts[2] = "1";
    let parent = alive.path().parent().unwrap();
    let dead = parent.join(parts.join("."));
    let foreign = parent.join(format!("not-egrets-{}", std::process::id()));
    std::fs::create_dir(&dead).unwrap();
    std::fs::create_dir(dead.join("below")).unwrap();
    std::fs::create_dir(&foreign).unwrap();
    let child = sleeper();
    std::fs::write(dead.join("below/cgroup.procs"), child.id().to_string()).unwrap();

    let swept = hierarchy.sweep().unwrap();
    assert!(swept.contains(&dead), "{swept:?}");
    assert!(was_killed(child));
    assert!(!dead.exists() && alive.path().exists() && foreign.exists());
    std::fs::remove_dir(&foreign).unwrap();
}

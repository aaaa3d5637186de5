//! `egret doctor` as its users start it: as root, and as somebody who may not look at everything.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const NOBODY: u32 = 65534;

/// The program in a folder that everybody may enter.
fn egret() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_egret"), dir.path().join("egret")).unwrap();
    dir
}

fn doctor(dir: &Path, user: Option<u32>, args: &[&str]) -> Output {
    let mut command = Command::new(dir.join("egret"));
    command.arg("doctor").args(args).env("EGRET_STATE", dir.join("state"));
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    // A copy that another thread's fork still holds open for writing is busy for a moment.
    loop {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => return done.unwrap(),
        }
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    report["findings"].as_array().unwrap().iter().find(|f| f["id"] == id).unwrap()
}

#[test]
fn without_root_it_says_what_it_could_not_look_at() {
    let dir = egret();
    let root = nix::unistd::geteuid().is_root();
    let output = doctor(dir.path(), root.then_some(NOBODY), &["--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(report["run"], "impossible");
    assert_eq!(finding(&report, "root")["status"], "fail");
    for id in ["capabilities", "network_namespace", "cgroup_create", "self_test"] {
        let f = finding(&report, id);
        assert_eq!(f["status"], "unknown", "{f}");
        assert_eq!(f["found"], "not probed: it needs root");
        assert_eq!(f["fix"], "run `sudo egret doctor`");
    }
    // The control: what everybody may see was looked at.
    for id in ["seccomp", "cgroup2", "netns_cookie", "swap", "disk"] {
        let f = finding(&report, id);
        assert_ne!(f["status"], "unknown", "{f}");
    }
    assert!(!dir.path().join("state").exists(), "the state was only looked at");
}

#[test]
fn as_root_everything_that_run_needs_is_probed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let dir = egret();
    let output = doctor(dir.path(), None, &["--json"]);
    let report = json(&output);
    for f in report["findings"].as_array().unwrap() {
        assert!(f["essential"] == false || f["status"] != "unknown", "{f}");
    }
    assert_eq!(finding(&report, "self_test")["status"], "ok", "{report}");
    assert_eq!(finding(&report, "programs")["found"], "all 14");

    let table = doctor(dir.path(), None, &[]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.status.code(), output.status.code(), "{text}");
    assert!(text.contains("each hook fires") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_state_folder_that_others_may_write_fails() {
    let dir = egret();
    let root = nix::unistd::geteuid().is_root();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    for (mode, status) in [(0o700, "ok"), (0o777, "fail")] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let output = doctor(dir.path(), None, &["--json"]);
        assert_eq!(finding(&json(&output), "state")["status"], status, "{mode:o}");
        if root {
            let code = i32::from(status == "fail");
            assert_eq!(output.status.code(), Some(code), "{}", json(&output));
        }
    }
}

//! How the interceptor gives its rights up, as root on this kernel. Every check runs twice: free,
//! where each must succeed, and confined, where the table says which still do.
//!
//! A process is confined for good, and only while it has one thread, which a test harness takes
//! away. So this program is its own harness: it starts itself again for each world.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and reports by printing"
)]

mod checks;
mod refused;
mod works;
mod world;

use std::process::ExitCode;

use nix::sys::signal::Signal;
use world::{Outcome, Scene, World};

use checks::{CHECKS, Want};

/// A user that no machine has.
const STRANGER: u32 = 64_123;

fn main() -> ExitCode {
    // Started again, as the process that is confined.
    if let Some(world) = World::from_environment() {
        return checks::inside(&world);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let tests: [(&str, fn()); 6] = [
        ("another_user", || table(Some(STRANGER), "confined")),
        ("uid_0_without_capabilities", || table(None, "confined")),
        ("a_kernel_without_landlock", a_kernel_without_landlock),
        ("an_abort_ends_it", an_abort_ends_it),
        ("what_would_leave_a_way_out_is_an_error", what_would_leave_a_way_out_is_an_error),
        ("each_attempt_succeeds_or_fails_by_itself_outside", attempts_outside),
    ];
    if std::env::args().any(|a| a == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED {name}: needs root. Nothing was shown.");
            ignored += 1;
        } else if std::panic::catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    ExitCode::from(u8::from(failed != 0))
}

/// Runs every check in both worlds and compares them with the table.
fn table(user: Option<u32>, mode: &str) {
    let free = Scene::new(None).run("free");
    let scene = Scene::new(user);
    let confined = scene.run(mode);
    let status = confined.status.expect("the child said what it has become");
    println!("   {status}");
    assert_eq!(status.uid, user.unwrap_or(0));
    assert!(mode == "confined" || status.landlock.is_none(), "{status}");
    assert_eq!(status.absent, [scene.absent()]);
    assert!(status.refused > 60, "{}", status.refused);
    let mut wrong = Vec::new();
    for check in CHECKS {
        let want = if user.is_some() { check.stranger } else { check.root };
        let (before, after) = (&free.results[check.name], &confined.results[check.name]);
        println!("   {:52} free: {before:24} confined: {after}", check.name);
        let lacking = match want {
            Want::Landlock(version) => {
                (status.landlock < Some(version)).then_some("the kernel's Landlock does not do it")
            }
            Want::Machine => (!before.is_ok()).then_some("this machine refuses it to root"),
            Want::Works | Want::Refused => None,
        };
        if let Some(why) = lacking {
            println!("   SKIPPED {}: {why}", check.name);
            continue;
        }
        let held = after.is_ok() == (want == Want::Works);
        // Without the control nothing was shown.
        if !before.is_ok() || !held {
            wrong.push(check.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // What was written inside can be believed outside.
    let layout = egret::audit::Layout::new(&scene.state(), None);
    let report = egret::audit::verify::verify(&layout, None);
    assert_eq!(report.findings, [], "{report:?}");
    assert!(report.records >= 3, "{report:?}");
}

/// It is said and nothing else changes: mounts, user and filter stand without it.
fn a_kernel_without_landlock() {
    for user in [Some(STRANGER), None] {
        table(user, "without Landlock");
    }
}

fn an_abort_ends_it() {
    for user in [None, Some(STRANGER)] {
        let outcome = Scene::new(user).run("abort");
        assert_eq!(outcome.signal, Some(Signal::SIGABRT as i32), "the filter lets it through");
    }
}

/// Each beside the same process without the fault, which is confined.
fn what_would_leave_a_way_out_is_an_error() {
    let error = |mode: &str| -> String {
        let Outcome { error, .. } = Scene::new(Some(STRANGER)).run(mode);
        error.unwrap_or_else(|| "confined".to_owned())
    };
    assert_eq!(error("nothing"), "confined", "control");
    for (mode, expected) in [
        ("thread", "has 2 threads"),
        ("folder", "is an open folder"),
        ("hidden", "No such file or directory"),
        ("file", "Not a directory"),
        ("writable", "No such file or directory"),
        ("again", "is an open folder"),
    ] {
        let error = error(mode);
        assert!(error.contains(expected), "{mode}: {error}");
    }
}

/// Inside, [`egret::confine::confine`] makes every attempt itself, and EPERM is what it wants.
/// Here something else answers each of them, so that answer means what it says.
fn attempts_outside() {
    let mut silent = Vec::new();
    for attempt in egret::sys::attempt::all() {
        let answer = attempt.answer().map(std::io::Error::from_raw_os_error);
        if answer.as_ref().is_some_and(|e| e.raw_os_error() == Some(libc::EPERM)) {
            silent.push(attempt.name());
        }
    }
    // Some machines forbid these two to everybody (kernel.io_uring_disabled, lockdown).
    silent.retain(|name| !name.starts_with("io_uring") && *name != "perf_event_open");
    assert!(silent.is_empty(), "EPERM also to root: {silent:?}");
}

//! Exit codes, signals, background processes, and what happens when egret dies.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use egret::contain::{ContainError, ExitStatus};
use nix::sys::signal::Signal;

use crate::harness::{Box, eventually, exists, skipped};

#[test]
fn exit_codes_are_the_commands_own() {
    if skipped("exit_codes_are_the_commands_own") {
        return;
    }
    let b = Box::new();
    for (script, expected) in [
        ("true", ExitStatus::Exited(0)),
        ("exit 1", ExitStatus::Exited(1)),
        ("exit 126", ExitStatus::Exited(126)),
        ("kill -TERM $$", ExitStatus::Killed(15)),
        ("kill -KILL $$", ExitStatus::Killed(9)),
    ] {
        assert_eq!(b.run(b.script(script)), expected, "{script}");
    }
    assert_eq!(ExitStatus::Killed(15).code(), 143);
}

/// Not a test: prints what containment costs.
#[test]
#[ignore = "a measurement, run by hand"]
fn overhead() {
    let b = Box::new();
    let mut plan = b.plan(&["true"]);
    let ca = rcgen::generate_simple_self_signed(vec![]).unwrap().cert.pem();
    let roots = egret::contain::trust::system_roots();
    plan.resolv_conf = Some("nameserver 198.18.0.1\n".into());
    plan.trust = egret::contain::trust::files(&roots, &ca).unwrap();
    let measure = |what: &str, run: &dyn Fn()| {
        let mut times: Vec<_> = (0..60)
            .map(|_| {
                let clock = std::time::Instant::now();
                run();
                clock.elapsed()
            })
            .collect();
        times.sort();
        println!("{what}: least {:?}, median {:?}", times[0], times[30]);
    };
    measure("bare true", &|| {
        assert!(std::process::Command::new("true").status().unwrap().success());
    });
    measure("contained true", &|| assert_eq!(b.run(plan.clone()), ExitStatus::Exited(0)));
    measure("trust files", &|| drop(egret::contain::trust::files(&roots, &ca).unwrap()));
    measure("namespace and listeners", &|| {
        let n = egret::redirect::netns::Netns::private().unwrap();
        drop(egret::redirect::listener::Listeners::open(&n).unwrap());
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    if skipped("what_cannot_be_started_says_why") {
        return;
    }
    let b = Box::new();
    let text = b.path("text");
    fs::write(&text, "not a program").unwrap();
    let dir = b.path("");
    for (name, code) in [
        ("no-such-command-x", 127),
        ("/no/such/path", 127),
        ("", 127),
        (text.to_str().unwrap(), 126),
        (dir.to_str().unwrap(), 126),
    ] {
        let error = b.spawn(b.plan(&[name])).unwrap_err();
        assert_eq!(error.exit_code(), code, "{name}: {error}");
    }
    let mut plan = b.plan(&["true"]);
    plan.cwd = "/no/such/folder".into();
    let error = b.spawn(plan).unwrap_err();
    assert!(matches!(&error, ContainError::Setup { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
    assert_eq!(b.spawn(b.plan(&[])).unwrap_err().exit_code(), 125);
    // Nothing is left behind by a failure.
    assert_eq!(fs::read_to_string(b.cgroup.join("cgroup.procs")).unwrap(), "");
    // Control: a script without an interpreter line runs, as it does from a shell.
    fs::write(&text, "exit 7").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(b.run(b.plan(&[text.to_str().unwrap()])), ExitStatus::Exited(7));
}

#[test]
fn it_waits_for_background_children_and_stays_in_its_cgroup() {
    if skipped("it_waits_for_background_children_and_stays_in_its_cgroup") {
        return;
    }
    let b = Box::new();
    let done = b.path("done");
    let script =
        format!("(setsid sh -c 'sleep 0.3; cat /proc/self/cgroup >{}' &)\nexit 3", done.display());
    let mut at_exit = None;
    let child = b.spawn(b.script(&script)).unwrap();
    let status = child.wait(|s| at_exit = Some((s, exists(&done)))).unwrap();
    assert_eq!(status, ExitStatus::Exited(3));
    assert_eq!(at_exit, Some((ExitStatus::Exited(3), false)), "told when the command ended");
    assert!(
        fs::read_to_string(&done).unwrap().contains("0::/\n"),
        "the agent's cgroup is its root"
    );
}

#[test]
fn signals_reach_the_command_and_later_what_it_left() {
    if skipped("signals_reach_the_command_and_later_what_it_left") {
        return;
    }
    let b = Box::new();
    let ready = b.path("ready");
    let script =
        format!("trap 'exit 42' TERM\n: >{}\nwhile :; do sleep 0.05; done", ready.display());
    let child = b.as_user(b.script(&script), "65534");
    let child = b.spawn(child).unwrap();
    eventually("the command is ready", || exists(&ready));
    child.signal(Signal::SIGTERM).unwrap();
    assert_eq!(child.wait(|_| ()).unwrap(), ExitStatus::Exited(42));

    let b = Box::new();
    let ready = b.path("ready");
    let script = format!("(trap '' TERM; : >{}; sleep 1000; :) &\nexit 5", ready.display());
    let child = b.spawn(b.script(&script)).unwrap();
    eventually("the background process is there", || exists(&ready));
    eventually("only init and the background are left", || {
        fs::read_to_string(b.cgroup.join("cgroup.procs")).unwrap().lines().count() == 3
    });
    child.signal(Signal::SIGTERM).unwrap(); // ends the sleep; the subshell ignores it or ends
    child.signal(Signal::SIGTERM).unwrap(); // the second ends everything
    let _ = child.wait(|_| ()).unwrap();
    assert_eq!(fs::read_to_string(b.cgroup.join("cgroup.procs")).unwrap(), "");
}

#[test]
fn the_command_dies_with_egret_unless_told_otherwise() {
    if skipped("the_command_dies_with_egret_unless_told_otherwise") {
        return;
    }
    // Closing the socket is what the kernel does when egret is killed.
    let b = Box::new();
    let procs = || fs::read_to_string(b.cgroup.join("cgroup.procs")).unwrap();
    drop(b.spawn(b.plan(&["sleep", "1000"])).unwrap());
    eventually("all inside is dead", || procs().is_empty());

    let mut plan = b.plan(&["sleep", "1000"]);
    plan.die_with_parent = false;
    let child = b.spawn(plan).unwrap();
    let killer = child.killer().unwrap();
    drop(child);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(procs().lines().count(), 2, "init and the command live on");
    killer.kill().unwrap();
    eventually("all inside is dead", || procs().is_empty());
}

#[test]
fn inside_no_other_process_is_seen_and_init_cannot_be_touched() {
    if skipped("inside_no_other_process_is_seen_and_init_cannot_be_touched") {
        return;
    }
    let b = Box::new();
    let script = "ls /proc | grep -c ^[0-9]; kill -KILL 1; kill -STOP 1; cat /proc/1/environ; \
        readlink /proc/1/fd/* && echo BAD; head -c 1 /proc/1/mem && echo BAD; echo alive";
    for uid in ["0", "65534"] {
        let out = b.output(b.as_user(b.script(script), uid));
        assert!(out.contains("alive"), "{out}");
        assert!(out.contains("denied") && !out.contains("BAD"), "{out}");
        let seen: u32 = out.lines().next().unwrap().trim().parse().unwrap();
        assert!(seen <= 5, "{out}");
    }
    assert!(
        crate::harness::outside("ls /proc | grep -c ^[0-9]").trim().parse::<u32>().unwrap() > 5
    );
}

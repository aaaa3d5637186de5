//! A command under egret is still that command: exit codes, arguments, input, user, terminal,
//! signals, children.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use super::Case;
use crate::fixtures::agent::{self, Running, eventually};
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "true_exits_0", needs: &[], run: true_exits_0 },
    Case { name: "exit_codes_pass_through", needs: &[], run: exit_codes },
    Case { name: "arguments_and_folder_are_untouched", needs: &[], run: arguments },
    Case { name: "runs_as_the_user_asked_for", needs: &[], run: user },
    Case { name: "holds_no_capabilities_and_gains_none", needs: &[], run: capabilities },
    Case { name: "foreign_descriptors_are_closed", needs: &[Need::Bash], run: descriptors },
    Case { name: "a_terminal_stays_a_terminal", needs: &[Need::Script], run: terminal },
    Case { name: "signals_are_passed_on", needs: &[], run: signals },
    Case { name: "background_children_are_waited_for", needs: &[], run: background },
    Case { name: "the_summary_names_what_was_refused", needs: &[Need::Curl], run: summary },
];

fn true_exits_0(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let egret = world.egret()?;
    let cold = egret.run(&["true"])?.expect(0)?;
    let warm = egret.run(&["true"])?.expect(0)?;
    let bare = agent::outside("true", &[])?;
    println!(
        "egret run -- true: {:?}, then {:?}; bare true: {:?}",
        cold.took, warm.took, bare.took
    );
    Ok(())
}

fn exit_codes(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let egret = world.egret()?;
    for code in [0, 1, 2, 7, 42, 124, 255] {
        egret.sh(&format!("exit {code}"))?.expect(code)?;
    }
    egret.sh("kill -9 $$")?.expect(137)?;
    egret.sh("kill -TERM $$")?.expect(143)?;
    egret.run(&["/no/such/program"])?.expect(127)?;
    egret.run(&["no-such-program-anywhere"])?.expect(127)?;
    let plain = world.write("not-executable", "text")?;
    egret.run(&[&plain.display().to_string()])?.expect(126)?;
    Ok(())
}

fn arguments(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script = "pwd; for a in \"$@\"; do echo \"[$a]\"; done";
    let ended = world
        .egret()?
        .env("KEPT", "as it was")
        .run(&[
            "sh",
            "-c",
            &format!("{script}; echo \"$KEPT\""),
            "x",
            "two words",
            "--policy",
            "",
            "é",
        ])?
        .expect(0)?;
    let folder = world.folder().display().to_string();
    let expected = format!("{folder}\n[two words]\n[--policy]\n[]\n[é]\nas it was\n");
    ensure!(ended.stdout == expected, "{}", ended.text());
    Ok(())
}

fn user(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let name = bench.user.as_str();
    let ended = world.egret()?.user(name).run(&["id", "-u"])?.expect(0)?;
    ensure!(ended.stdout.trim() == bench.uid.to_string(), "{}", ended.text());
    // Without --user, the caller; through sudo, the one who called it.
    let ended = world.egret()?.run(&["id", "-u"])?.expect(0)?;
    ensure!(ended.stdout.trim() == "0", "{}", ended.text());
    let through_sudo = world
        .egret()?
        .env("SUDO_UID", &bench.uid.to_string())
        .env("SUDO_GID", &bench.uid.to_string())
        .env("SUDO_USER", name)
        .run(&["id", "-u"])?
        .expect(0)?;
    ensure!(through_sudo.stdout.trim() == bench.uid.to_string(), "{}", through_sudo.text());
    Ok(())
}

fn capabilities(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for user in ["root", &bench.user] {
        let ended = world.egret()?.user(user).run(&["cat", "/proc/self/status"])?.expect(0)?;
        let field = |name: &str| {
            let line = ended.stdout.lines().find_map(|l| l.strip_prefix(name));
            line.unwrap_or("absent").trim_start_matches(':').trim().to_owned()
        };
        let bounding = u64::from_str_radix(&field("CapBnd"), 16)?;
        let effective = u64::from_str_radix(&field("CapEff"), 16)?;
        // NET_ADMIN 12, NET_RAW 13, SYS_PTRACE 19, SYS_ADMIN 21, BPF 39.
        for bit in [12, 13, 19, 21, 39] {
            let mask = 1 << bit;
            ensure!(
                (bounding | effective) & mask == 0,
                "{user} holds capability {bit}: {}",
                ended.stdout
            );
        }
        ensure!(field("NoNewPrivs") == "1", "{user}: {}", ended.stdout);
        ensure!(field("Seccomp") == "2", "{user}: {}", ended.stdout);
    }
    Ok(())
}

fn descriptors(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let secret = world.write("open-file", "opened before egret")?;
    let list = "ls /proc/self/fd | wc -l; cat <&9";
    let opened = format!("exec 9<{}; exec \"$@\"", secret.display());
    // Control: bash hands descriptor 9 on.
    agent::outside("bash", &["-c", &opened, "x", "sh", "-c", list])?
        .expect(0)?
        .says("opened before egret")?;
    let inner = world.egret()?.command(&["sh", "-c", list]);
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &opened, "x"]).arg(inner.get_program()).args(inner.get_args());
    command.env("E2E_TOKEN", &world.secret);
    let ended = Running::start(command)?.wait()?;
    ended.hides("opened before egret")?;
    Ok(())
}

fn terminal(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let inner = world.egret()?.command(&["sh", "-c", "test -t 0 && test -t 1 && tty && stty size"]);
    let words: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|w| format!("'{}'", w.to_string_lossy()))
        .collect();
    let line = format!("stty rows 33 cols 77; {}", words.join(" "));
    let mut command = std::process::Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("E2E_TOKEN", &world.secret);
    let ended = Running::start(command)?.wait()?.expect(0)?;
    ended.says("33 77")?;
    Ok(())
}

fn signals(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for (signal, trapped, code) in
        [(Signal::SIGTERM, "TERM", 42), (Signal::SIGINT, "INT", 43), (Signal::SIGHUP, "HUP", 44)]
    {
        let ready = world.shared(trapped);
        let script = format!(
            "trap 'exit {code}' {trapped}; : > {}; while :; do sleep 0.1; done",
            ready.display()
        );
        // Whoever runs the tests may ignore signals (nohup), and a shell cannot trap those.
        let command = world.egret()?.command(&["sh", "-c", &script]);
        let mut fresh = Command::new("env");
        fresh.arg("--default-signal=TERM,INT,HUP").arg(command.get_program());
        fresh.args(command.get_args()).current_dir(world.folder());
        fresh.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let running = Running::start(fresh)?;
        eventually("the agent is ready", || ready.exists())?;
        running.signal(signal)?;
        running.wait()?.expect(code)?;
    }
    Ok(())
}

fn background(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let done = world.shared("done");
    let script = format!("(sleep 1; echo late > {}) >/dev/null 2>&1 & exit 5", done.display());
    world.egret()?.sh(&script)?.expect(5)?;
    if !done.exists() {
        bail!("egret ended before the agent's background child did");
    }
    Ok(())
}

fn summary(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script = "curl -s https://api.test/a; curl -s https://forbidden.test/b; true";
    let ended = world.egret()?.sh(script)?.expect(0)?;
    for word in ["forbidden.test", "no_rule"] {
        ensure!(ended.stderr.contains(word), "the summary lacks {word}\n{}", ended.text());
    }
    ended.hides(&world.secret)?;
    let quiet = world.egret()?.option("--quiet").run(&["true"])?.expect(0)?;
    ensure!(quiet.stderr.is_empty(), "--quiet is not: {}", quiet.stderr);
    Ok(())
}

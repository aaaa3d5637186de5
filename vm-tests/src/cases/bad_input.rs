//! Wrong input: one paragraph that says what to do, exit code 125, and nothing started.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};

use super::Case;
use crate::fixtures::agent::{Ended, Running, egret};
use crate::fixtures::{Bench, Egret, World};

pub(super) const CASES: &[Case] = &[
    Case { name: "a_bad_policy_is_refused_with_its_place", needs: &[], run: policies },
    Case { name: "a_missing_policy_is_refused", needs: &[], run: missing },
    Case { name: "no_policy_at_all_is_refused", needs: &[], run: none },
    Case { name: "a_loose_secret_file_is_refused", needs: &[], run: loose },
    Case { name: "an_unresolvable_secret_is_refused", needs: &[], run: unresolvable },
    Case { name: "without_root_it_says_so", needs: &[], run: without_root },
    Case { name: "check_reports_all_errors_at_once", needs: &[], run: check },
];

/// egret failed with 125, said each of these, and the command did not start.
fn refused(world: &World, ended: &Ended, words: &[&str]) -> Result<()> {
    ensure!(ended.code == 125, "exit code {}\n{}", ended.code, ended.text());
    for word in words {
        ensure!(ended.stderr.contains(word), "the error lacks {word:?}\n{}", ended.text());
    }
    ensure!(!ended.stderr.contains("panicked"), "{}", ended.text());
    ensure!(!world.shared("started").exists(), "the command was started");
    ended.hides(&world.secret)?;
    Ok(())
}

fn touch(world: &World) -> String {
    format!(": > {}", world.shared("started").display())
}

fn policies(bench: &Bench) -> Result<()> {
    let rule = "[[rule]]\nname = \"r\"\naction = \"allow\"\n";
    let with = |rest: &str| format!("version = 1\nname = \"p\"\n{rule}{rest}");
    // What is wrong, the policy, and what the error must name.
    let cases: &[(&str, String, &[&str])] = &[
        ("not TOML", "version = = 1\n".to_owned(), &["policy.toml:1:"]),
        ("empty", String::new(), &["policy.toml", "version"]),
        (
            "unknown version",
            "version = 9\nname = \"p\"\n".to_owned(),
            &["policy.toml:1:", "version"],
        ),
        ("misspelt key", with("host = [\"api.test\"]\n"), &["policy.toml:6:", "hosts"]),
        ("empty list", with("hosts = []\n"), &["policy.toml:6:"]),
        ("wrong type", with("hosts = \"api.test\"\n"), &["policy.toml:6:"]),
        ("bad host", with("hosts = [\"a*b.test\"]\n"), &["policy.toml:6:", "a*b.test"]),
        (
            "bad action",
            with("hosts = [\"a.test\"]\n").replace("allow", "alow"),
            &["policy.toml:5:", "allow"],
        ),
        ("bad port", with("hosts = [\"a.test\"]\nports = [70000]\n"), &["policy.toml:7:"]),
        (
            "unknown credential",
            with("hosts = [\"a.test\"]\ncredentials = [\"gone\"]\n"),
            &["policy.toml:7:", "gone"],
        ),
    ];
    for (what, text, words) in cases {
        let world = World::new(bench)?;
        let path = world.write("policy.toml", text)?;
        let ended = Egret::new(&world, &path).sh(&touch(&world))?;
        refused(&world, &ended, words).map_err(|e| e.context(*what))?;
    }
    // Control: the same way, a good policy starts the command.
    let world = World::new(bench)?;
    let path = world.write("policy.toml", &with("hosts = [\"a.test\"]\n"))?;
    Egret::new(&world, &path).sh(&touch(&world))?.expect(0)?;
    ensure!(world.shared("started").exists(), "the control did not start");
    Ok(())
}

fn missing(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = Egret::new(&world, &world.path("none.toml")).sh(&touch(&world))?;
    refused(&world, &ended, &["none.toml"])
}

fn none(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    // A policy in the working folder is not picked up.
    world.policy(&world.rules())?;
    std::fs::copy(world.path("policy.toml"), world.path("egret.toml"))?;
    let mut command = std::process::Command::new(&bench.egret);
    command.arg("run").arg("--state").arg(world.state());
    command.args(["--", "sh", "-c", &touch(&world)]).current_dir(world.folder());
    command.env_remove("EGRET_POLICY");
    let ended = Running::start(command)?.wait()?;
    refused(&world, &ended, &["--policy"])
}

fn loose(bench: &Bench) -> Result<()> {
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let world = World::new(bench)?;
        let path = world.write("token", &world.secret)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        let credential =
            format!("secret = \"file:{}\"\nhosts = [\"api.test\"]\nbearer = true", path.display());
        let run = || world.egret_with(&world.credential(&credential))?.sh(&touch(&world));
        refused(&world, &run()?, &["token", "0600"]).map_err(|e| e.context(format!("{mode:o}")))?;
        // Control: with the right mode it starts.
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        run()?.expect(0)?;
    }
    Ok(())
}

fn unresolvable(bench: &Bench) -> Result<()> {
    for source in ["env:NOT_SET_ANYWHERE", "file:/no/such/file", "exec:/no/such/program"] {
        let world = World::new(bench)?;
        let credential = format!("secret = \"{source}\"\nhosts = [\"api.test\"]\nbearer = true");
        let ended = world.egret_with(&world.credential(&credential))?.sh(&touch(&world))?;
        let (_, name) = source.split_once(':').unwrap_or(("", source));
        refused(&world, &ended, &[name]).map_err(|e| e.context(source))?;
    }
    Ok(())
}

fn without_root(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let inner = world.egret()?.command(&["sh", "-c", &touch(&world)]);
    let mut command = std::process::Command::new("setpriv");
    let uid = bench.uid.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    command.arg(inner.get_program()).args(inner.get_args()).env("E2E_TOKEN", &world.secret);
    let ended = Running::start(command)?.wait()?;
    refused(&world, &ended, &["root"])
}

fn check(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let text = "version = 1\nname = \"p\"\n[[rule]]\naction = \"alow\"\nhosts = []\nprots = [1]\n";
    let path = world.write("wrong.toml", text)?.display().to_string();
    let ended = egret(&world, &["check", &path])?;
    ensure!(ended.code != 0, "{}", ended.text());
    for word in ["wrong.toml:4:", "wrong.toml:5:", "wrong.toml:6:", "ports"] {
        ended.says(word)?;
    }
    let good = world.policy(&world.rules())?.display().to_string();
    egret(&world, &["check", &good])?.expect(0)?;
    Ok(())
}

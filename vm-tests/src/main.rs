//! `egret-e2e`: the end-to-end tests and the demo as one binary.
//!
//! `egret-e2e [--egret PATH] [FILTER and other options of cargo's tests]` runs the tests;
//! `egret-e2e attacks [--mode run|attach|both] [--json] [--only N,N]` plays the catalogue of attacks;
//! `egret-e2e clients --tools FOLDER [--cargo PATH] [--only NAME]` plays the client matrix;
//! `egret-e2e demo` and `egret-e2e can-run` serve `cargo xtask demo`. The path of egret may also
//! come from EGRET_BIN.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool that reports")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use libtest_mimic::Arguments;
use vm_tests::attacks::{Mode, Wanted};
use vm_tests::fixtures::Bench;
use vm_tests::{attacks, cases, clients, demo};

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().collect();
    let egret = take_egret(&mut args);
    let bench = match Bench::new(&egret) {
        Ok(bench) => bench,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    let done = match args.get(1).map(String::as_str) {
        Some("demo") => demo::play(&bench),
        Some("attacks") => play_attacks(&bench, &args[2..]),
        Some("clients") => play_clients(&bench, &args[2..]),
        Some("can-run") => demo::can_run(&bench).map(|()| true),
        _ => {
            let arguments = Arguments::from_iter(args);
            let (trials, skipped) = cases::trials(&bench);
            let listing = arguments.list;
            let conclusion = libtest_mimic::run(&arguments, trials);
            if !listing {
                for line in skipped {
                    println!("skipped: {line}");
                }
            }
            return conclusion.exit_code();
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play_attacks(bench: &Bench, args: &[String]) -> Result<bool> {
    let value = |name: &str| -> Result<Option<&String>> {
        let at = args.iter().position(|a| a == name);
        at.map(|at| args.get(at + 1).with_context(|| format!("{name} needs a value"))).transpose()
    };
    let mut only = Vec::new();
    for number in value("--only")?.into_iter().flat_map(|v| v.split(',')) {
        only.push(number.parse().with_context(|| format!("{number} is no line"))?);
    }
    let mode = value("--mode")?.map_or("both", String::as_str);
    let modes = Mode::named(mode).with_context(|| format!("{mode} is no mode"))?;
    let json = args.iter().any(|a| a == "--json");
    attacks::run(bench, &Wanted { only, modes, json })
}

fn play_clients(bench: &Bench, args: &[String]) -> Result<bool> {
    let values = |name: &str| -> Vec<&String> {
        let named = |(i, a): (usize, &String)| (a == name).then(|| args.get(i + 1)).flatten();
        args.iter().enumerate().filter_map(named).collect()
    };
    let tools = values("--tools").first().context("clients needs --tools FOLDER")?.into();
    let cargo = values("--cargo").first().map(PathBuf::from);
    let only = values("--only").into_iter().cloned().collect();
    clients::run(bench, &clients::Wanted { tools, cargo, only })
}

/// `--egret PATH`, else EGRET_BIN, else the release build of the folder we are in.
fn take_egret(args: &mut Vec<String>) -> PathBuf {
    if let Some(at) = args.iter().position(|a| a == "--egret")
        && at + 1 < args.len()
    {
        args.remove(at);
        return args.remove(at).into();
    }
    std::env::var_os("EGRET_BIN").map_or_else(|| "target/release/egret".into(), PathBuf::from)
}

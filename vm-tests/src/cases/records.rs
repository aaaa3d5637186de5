//! The audit log: complete, queryable, and damaged never without notice.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::fixtures::agent::{egret, expect_record, records};
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "every_kind_of_event_is_recorded",
        needs: &[Need::Curl, Need::Python],
        run: recorded,
    },
    Case { name: "records_carry_process_and_chain", needs: &[Need::Curl], run: carried },
    Case { name: "filters_select", needs: &[Need::Curl], run: filters },
    Case { name: "verify_finds_a_flipped_byte", needs: &[Need::Curl], run: flipped },
    Case { name: "verify_finds_a_torn_tail", needs: &[Need::Curl], run: torn },
    Case { name: "a_killed_egret_leaves_an_intact_log", needs: &[Need::Curl], run: killed },
];

fn traffic(world: &World) -> Result<()> {
    let script = "curl -s https://api.test/a?secret=query; curl -s -d x https://api.test/b; \
                  curl -s https://forbidden.test/c; true";
    world.egret()?.sh(script)?.expect(0)?;
    Ok(())
}

fn recorded(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    traffic(&world)?;
    world.egret()?.run(&["python3", &world.probe(), "udp", "203.0.113.5", "4444"])?;
    for fields in [
        &[("event", "session_start")][..],
        &[
            ("event", "request"),
            ("decision", "allow"),
            ("rule", "read api"),
            ("request.path", "/a"),
        ],
        &[
            ("event", "request"),
            ("decision", "deny"),
            ("reason", "no_rule"),
            ("request.method", "POST"),
        ],
        &[("event", "response"), ("request.status", "200")],
        &[("decision", "deny"), ("destination.host", "forbidden.test")],
        &[("event", "kernel_deny"), ("reason", "udp_refused")],
        &[("event", "session_end")],
    ] {
        expect_record(&world, fields)?;
    }
    let all: Vec<String> = records(&world)?.iter().map(ToString::to_string).collect();
    ensure!(!all.join("").contains("secret=query"), "a record holds a query string");
    egret(&world, &["audit", "verify"])?.expect(0)?;
    Ok(())
}

fn carried(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    world.egret()?.user(&bench.user).run(&["curl", "-s", "https://api.test/a"])?.expect(0)?;
    let uid = bench.uid.to_string();
    let record = expect_record(
        &world,
        &[
            ("event", "request"),
            ("agent", &world.name),
            ("process.comm", "curl"),
            ("process.uid", &uid),
            ("destination.host", "api.test"),
            ("destination.port", "443"),
            ("schema", "1"),
        ],
    )?;
    for field in ["seq", "time", "session", "prev", "hash"] {
        ensure!(!record[field].is_null(), "{field} is missing: {record}");
    }
    let numbers: Vec<u64> = records(&world)?.iter().filter_map(|r| r["seq"].as_u64()).collect();
    ensure!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "a gap: {numbers:?}");
    Ok(())
}

fn filters(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    traffic(&world)?;
    let count = |args: &[&str]| -> Result<usize> {
        let all: Vec<&str> = ["audit", "--json"].iter().chain(args).copied().collect();
        Ok(egret(&world, &all)?.expect(0)?.stdout.lines().count())
    };
    let (all, denied) = (count(&[])?, count(&["--decision", "deny"])?);
    ensure!(denied >= 2 && denied < all, "{denied} of {all} denied");
    let forbidden = count(&["--host", "forbidden.test"])?;
    ensure!(forbidden >= 1 && forbidden < all, "{forbidden} of {all} for one host");
    ensure!(count(&["--agent", &world.name])? == all, "all records are this agent's");
    ensure!(count(&["--agent", "somebody-else"])? == 0, "somebody else has records");
    ensure!(count(&["--last", "2"])? == 2, "--last 2");
    Ok(())
}

/// The journal: the largest file below the state folder whose lines are records.
fn journal(folder: &Path) -> Result<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path)?.windows(8).any(|w| w == b"\"prev\":\"") {
                found.push((entry.metadata()?.len(), path));
            }
        }
    }
    // The store keeps copies; the journal is plain lines.
    found.retain(|(_, path)| std::fs::read(path).is_ok_and(|b| b.starts_with(b"{")));
    found.sort();
    Ok(found.pop().context("no journal is found")?.1)
}

fn flipped(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    traffic(&world)?;
    egret(&world, &["audit", "verify"])?.expect(0)?;
    let path = journal(&world.state())?;
    let intact = std::fs::read(&path)?;
    for share in [3, 2] {
        let mut bytes = intact.clone();
        let at = bytes.len() / share;
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes)?;
        let ended = egret(&world, &["audit", "verify"])?;
        ensure!(ended.code == 1, "byte {at} flipped: {}", ended.text());
    }
    // Control: with its bytes back, it is intact again.
    std::fs::write(&path, &intact)?;
    egret(&world, &["audit", "verify"])?.expect(0)?;
    Ok(())
}

fn torn(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    traffic(&world)?;
    let path = journal(&world.state())?;
    let intact = std::fs::read(&path)?;
    std::fs::write(&path, &intact[..intact.len() - 7])?;
    let ended = egret(&world, &["audit", "verify"])?;
    ensure!([1, 2, 4].contains(&ended.code), "{}", ended.text());
    Ok(())
}

fn killed(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let running = world.egret()?.spawn(&[
        "sh",
        "-c",
        "curl -s https://api.test/before; curl -s https://api.test/slow",
    ])?;
    world.https.wait("the download flows", |u| u.streamed() > 50_000)?;
    running.signal(nix::sys::signal::Signal::SIGKILL)?;
    let mut running = running;
    running.wait_status()?;
    let seen = world.https.seen();
    let verify = egret(&world, &["audit", "verify"])?;
    ensure!([0, 2].contains(&verify.code), "{}", verify.text());
    for request in seen {
        expect_record(&world, &[("decision", "allow"), ("request.path", &request.target)])?;
    }
    Ok(())
}

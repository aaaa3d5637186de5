//! The demo: unmodified clients under `egret run`, and on one screen what each of them saw and
//! what the other side saw at the same time.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::fixtures::agent::{egret, eventually, outside, processes, records};
use crate::fixtures::link::Link;
use crate::fixtures::{Bench, World};
use crate::needs::Need;

/// One act: what was tried, what each side saw, and whether that is what egret promises.
struct Act {
    tried: String,
    agent: String,
    other: String,
    good: bool,
}

/// Where the demo plays.
struct Stage {
    world: World,
    link: Link,
    held: Vec<bool>,
}

/// Whether egret starts a command on this machine; the error is its own, in one line.
pub fn can_run(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = world.egret()?.run(&["true"])?;
    if ended.code == 0 {
        return Ok(());
    }
    let lines: Vec<&str> = ended.stderr.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    bail!("{}", lines.join(" "))
}

/// Play all acts; true if each came out as promised.
pub fn play(bench: &Bench) -> Result<bool> {
    for need in [Need::Curl, Need::Python, Need::Veth] {
        if !need.is_met() {
            bail!("the demo needs {need:?}, which this machine lacks");
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("egret on Linux {}", release.trim());
    println!("the policy: GET on api.test with a bearer credential; nothing else\n");
    let mut stage = Stage { world: World::new(bench)?, link: Link::up()?, held: Vec::new() };
    stage.show(environment)?;
    stage.show(curl)?;
    stage.show(urllib)?;
    if Need::Node.is_met() {
        stage.show(node)?;
    }
    stage.show(post)?;
    stage.show(forbidden)?;
    for (title, probe) in [
        ("a raw-socket script dials a literal address over TCP", "tcp"),
        ("the same over UDP", "udp"),
        ("the same with a raw ICMP socket", "raw"),
    ] {
        stage.show(|stage| direct(stage, title, probe))?;
    }
    stage.show(killed)?;
    stage.show(audit)?;
    let good = stage.held.iter().filter(|h| **h).count();
    println!("\n{good} of {} held", stage.held.len());
    Ok(good == stage.held.len())
}

impl Stage {
    fn show(&mut self, act: impl FnOnce(&Self) -> Result<Act>) -> Result<()> {
        let act = act(self)?;
        println!("{} {}", if act.good { " ok  " } else { "WRONG" }, act.tried);
        println!("        the agent saw: {}", act.agent);
        println!("        outside:       {}", act.other);
        self.held.push(act.good);
        Ok(())
    }

    /// A shell script under egret as an ordinary user; its output.
    fn agent(&self, script: &str) -> Result<String> {
        let user = &self.world.bench.user;
        let ended = self.world.egret()?.user(user).option("--quiet").sh(script)?;
        Ok(format!("{}{}", ended.stdout, ended.stderr).trim().to_owned())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.world.secret)
    }
}

fn short(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 90 { line.chars().take(87).collect::<String>() + "..." } else { line }
}

fn environment(stage: &Stage) -> Result<Act> {
    let all = stage.agent("env")?;
    let held = all.lines().find(|l| l.starts_with("API_TOKEN=")).unwrap_or("no API_TOKEN");
    let leaked = all.contains(&stage.world.secret);
    Ok(Act {
        tried: "env".to_owned(),
        agent: short(held),
        other: format!("the real credential is {}", stage.world.secret),
        good: !leaked && held.len() > "API_TOKEN=".len(),
    })
}

/// The act of a client that asks the API: it gets its answer, and the API got the credential.
fn asked(stage: &Stage, tried: &str, script: &str) -> Result<Act> {
    let before = stage.world.https.seen().len();
    let answer = stage.agent(script)?;
    let seen = stage.world.https.seen().split_off(before);
    let got = seen.first().map_or("", |s| s.header("authorization")).to_owned();
    Ok(Act {
        tried: tried.to_owned(),
        agent: short(&answer),
        other: format!("{} request, authorization: {got}", seen.len()),
        good: got == stage.bearer()
            && answer.contains("200")
            && !answer.contains(&stage.world.secret),
    })
}

fn curl(stage: &Stage) -> Result<Act> {
    let script = "curl -sS -w '%{http_code} over HTTP/%{http_version}' -o /dev/null \
                  -H \"Authorization: Bearer $API_TOKEN\" https://api.test/user";
    asked(stage, "curl https://api.test/user, with the placeholder", script)
}

fn urllib(stage: &Stage) -> Result<Act> {
    let script = format!("python3 {} urllib_get https://api.test/items", stage.world.probe());
    asked(stage, "Python's urllib, told of no proxy and of no credential", &script)
}

fn node(stage: &Stage) -> Result<Act> {
    let script =
        "node -e 'fetch(\"https://api.test/n\").then(r => console.log(r.status, r.statusText))'";
    asked(stage, "node's fetch", script)
}

/// The act of a request that must be refused with a reason and reach nobody.
fn refused(stage: &Stage, tried: &str, curl: &str, control: &str) -> Result<Act> {
    let before = stage.world.https.connections();
    let answer = stage.agent(&format!("curl -sS -w '\\n%{{http_code}}' {curl}"))?;
    let dialled = stage.world.https.connections() - before;
    let (body, code) = answer.rsplit_once('\n').unwrap_or((&answer, ""));
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |field: &str| body[field].as_str().unwrap_or("-").to_owned();
    Ok(Act {
        tried: tried.to_owned(),
        agent: short(&format!("{code} {}: {}", text("reason"), text("message"))),
        other: format!("{dialled} connections{control}"),
        good: code == "403" && text("reason") == "no_rule" && dialled == 0,
    })
}

fn post(stage: &Stage) -> Result<Act> {
    refused(
        stage,
        "curl -d x=1 https://api.test/user, a POST that no rule allows",
        "-d x=1 https://api.test/user",
        "",
    )
}

fn forbidden(stage: &Stage) -> Result<Act> {
    let before = stage.world.https.connections();
    let target = format!("forbidden.test:443:{}", stage.world.https.address);
    let ca = stage.world.path("ca.pem").display().to_string();
    let url = "https://forbidden.test/";
    outside("curl", &["-sS", "--connect-to", &target, "--cacert", &ca, url])?.expect(0)?;
    let control = stage.world.https.connections() - before;
    let note = format!(" (the same without egret: {control})");
    let mut act = refused(stage, "curl https://forbidden.test/", url, &note)?;
    act.good &= control > 0;
    Ok(act)
}

fn direct(stage: &Stage, title: &str, probe: &str) -> Result<Act> {
    let target = if probe == "tcp" { stage.link.canary4.tcp } else { stage.link.canary4.udp };
    let (ip, port) = (target.ip().to_string(), target.port().to_string());
    stage.link.forget();
    outside("python3", &[&stage.world.probe(), probe, &ip, &port])?;
    let control = stage.link.packets().len();
    stage.link.forget();
    // As root inside, which is the harder case.
    let words = ["python3", &stage.world.probe(), probe, &ip, &port];
    let ended = stage.world.egret()?.user("root").option("--quiet").run(&words)?;
    let packets = stage.link.packets().len();
    Ok(Act {
        tried: format!("{title}, {target}, as root"),
        agent: short(&format!("{}{}", ended.stdout, ended.stderr)),
        other: format!("{packets} packets on the wire (the same without egret: {control})"),
        good: packets == 0 && control > 0,
    })
}

fn killed(stage: &Stage) -> Result<Act> {
    let world = &stage.world;
    let marker = format!("{}-demo-killed", world.name);
    let script = format!(
        ": {marker}; (while :; do timeout 1 python3 {} udp {} {}; done) & \
         curl -sS -o /dev/null https://api.test/slow; sleep 60",
        world.probe(),
        stage.link.far4,
        stage.link.canary4.udp.port()
    );
    stage.link.forget();
    let mut running = world.egret()?.spawn(&["sh", "-c", &script])?;
    world.https.wait("the download flows", |u| u.streamed() > 200_000)?;
    running.signal(Signal::SIGKILL)?;
    running.wait_status()?;
    std::thread::sleep(Duration::from_secs(1));
    let at = world.https.streamed();
    std::thread::sleep(Duration::from_secs(2));
    let (more, packets) = (world.https.streamed() - at, stage.link.packets().len());
    world.egret()?.run(&["true"])?.expect(0)?;
    let swept = eventually("no orphan is left", || processes(&marker).is_empty()).is_ok();
    Ok(Act {
        tried: "kill -9 of egret during a download".to_owned(),
        agent: format!("the download ended after {} KiB", at / 1024),
        other: format!("then {more} bytes more, {packets} packets; orphans swept: {swept}"),
        good: more == 0 && packets == 0 && swept,
    })
}

fn audit(stage: &Stage) -> Result<Act> {
    let all = records(&stage.world)?;
    let count = |decision: &str| all.iter().filter(|r| r["decision"] == decision).count();
    let verify = egret(&stage.world, &["audit", "verify"])?;
    let leaked = all.iter().any(|r| r.to_string().contains(&stage.world.secret));
    let first =
        verify.stdout.lines().next().context("verify says nothing").unwrap_or("").to_owned();
    Ok(Act {
        tried: "egret audit; egret audit verify".to_owned(),
        agent: "nothing: the log is out of its reach".to_owned(),
        other: short(&format!(
            "{} records ({} allow, {} deny); verify exits {}: {first}",
            all.len(),
            count("allow"),
            count("deny"),
            verify.code
        )),
        good: verify.code == 0 && count("allow") > 0 && count("deny") > 0 && !leaked,
    })
}

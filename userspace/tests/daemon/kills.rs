//! The long one: the warden is killed at random moments of attaching, reloading and detaching, and
//! of starting, while agents try to leave. EGRET_KILLS says how often, EGRET_SEED repeats a run.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::load::Load;
use crate::world::{World, eventually, in_world, names, report};

/// SplitMix64: the same numbers for the same seed, on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// Up to this many milliseconds.
    fn moment(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000))
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// An agent of the test: steady ones are attached all the time, the others come and go.
struct Subject {
    name: &'static str,
    group: String,
    policy: PathBuf,
    steady: bool,
    load: Load,
    /// What had left when it was last seen attached, since when nothing may.
    sealed: Option<u64>,
    /// It was asked to be let go.
    leaving: bool,
}

impl Subject {
    /// Nothing has left since it was attached.
    #[track_caller]
    fn assert_sealed(&self) {
        if let Some(sent) = self.sealed {
            assert_eq!(self.load.sent(), sent, "packets of {} have left", self.name);
        }
    }
}

#[test]
fn whenever_the_warden_is_killed_nothing_gets_out_and_all_is_found_again() {
    let kills = number("EGRET_KILLS").unwrap_or(25);
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("EGRET_SEED").unwrap_or_else(clock);
    in_world(move |w| {
        report(&format!("{kills} kills, EGRET_SEED={seed}"));
        let mut subjects = subjects(w);
        w.start();
        for subject in subjects.iter_mut().filter(|s| s.steady) {
            w.attach(subject.name, &subject.group, &subject.policy);
            subject.sealed = Some(subject.load.sent());
            subject.load.count();
        }
        let mut dice = Dice(seed);
        let mut done = 0;
        while done < kills {
            done += change_and_kill(w, &mut subjects, &mut dice);
            while dice.below(4) == 0 {
                // Killed while it starts, too.
                w.launch();
                std::thread::sleep(dice.moment(500));
                w.kill();
                done += 1;
            }
            w.start();
            examine(w, &mut subjects, done % 8 == 0);
        }
        examine(w, &mut subjects, true);
        finish(w, subjects, done);
    });
}

fn subjects(w: &World) -> Vec<Subject> {
    let mut number = 20;
    let mut subject = |name: &'static str, group: &str, steady| {
        number += 1;
        let group = w.group(group);
        let policy = w.policy(name, &[80], "");
        let load = Load::start(w, &group, number);
        Subject { name, group, policy, steady, load, sealed: None, leaving: false }
    };
    vec![
        subject("alone", "alone", true),
        subject("outer", "outer", false),
        // Its programs go up to the outer one and come back.
        subject("inner", "outer/inner", true),
        subject("comes", "comes", false),
    ]
}

/// Asks for a change, and kills the warden in the middle of it.
fn change_and_kill(w: &mut World, subjects: &mut [Subject], dice: &mut Dice) -> u64 {
    let chosen = &mut subjects[dice.below(4) as usize];
    let attached = !w.agent(chosen.name).is_null();
    let policy = chosen.policy.to_str().unwrap().to_owned();
    let args: Vec<&str> = match dice.below(4) {
        0 => vec!["reload"],
        1 if attached => vec!["detach", chosen.name, "--deny"],
        _ if attached && chosen.steady => vec!["reload"],
        _ if attached => vec!["detach", chosen.name],
        _ => vec!["attach", chosen.name, "--cgroup", &chosen.group, "--policy", &policy],
    };
    if args[0] == "detach" && args.len() == 2 {
        chosen.assert_sealed();
        chosen.leaving = true;
    }
    let mut command = w.command(&args);
    let mut asked = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(dice.moment(30));
    w.kill();
    asked.wait().unwrap();
    1
}

/// What must hold after every start.
#[track_caller]
fn examine(w: &World, subjects: &mut [Subject], served: bool) {
    let status = w.status();
    let agents = status["agents"].as_array().unwrap();
    let of = |name: &str| agents.iter().find(|a| a["name"] == name);
    assert_eq!(status["orphans"], serde_json::json!([]), "{status}");
    let mut expected: Vec<&str> = agents.iter().map(|a| a["name"].as_str().unwrap()).collect();
    let mut files: Vec<String> = expected.iter().map(|name| format!("{name}.json")).collect();
    files.sort();
    assert_eq!(w.records(), files, "records");
    expected.retain(|name| of(name).unwrap()["chain"][0] == *name);
    expected.sort_unstable();
    assert_eq!(w.pins(), expected, "programs are on outermost groups");
    for subject in subjects.iter_mut() {
        let frozen = fs::read_to_string(w.at(&subject.group).join("cgroup.freeze")).unwrap();
        assert_eq!(frozen.trim(), "0", "{} stands still", subject.name);
        if of(subject.name).is_none() {
            let nobody = subject.sealed.is_some() && !subject.leaving;
            assert!(!nobody, "{} is lost: nobody has let it go", subject.name);
            subject.sealed = None;
        } else {
            // Asked to be let go or not: it was not free for a moment.
            subject.assert_sealed();
            subject.sealed.get_or_insert_with(|| subject.load.sent());
        }
        subject.leaving = false;
    }
    let denied = |a: &&serde_json::Value| {
        a["closed"].as_str().is_some_and(|why| why.starts_with("closed by `egret detach --deny`"))
    };
    for agent in agents.iter().filter(denied) {
        w.egret(&["detach", agent["name"].as_str().unwrap(), "--undo"]).done();
    }
    for agent in w.status()["agents"].as_array().unwrap() {
        assert!(agent["closed"].is_null(), "{agent}");
    }
    if served {
        for subject in subjects.iter_mut().filter(|s| s.sealed.is_some()) {
            subject.load.is_served();
            subject.assert_sealed();
        }
    }
}

/// Lets everything go, and looks for what was left behind.
fn finish(w: &mut World, subjects: Vec<Subject>, kills: u64) {
    for subject in subjects {
        subject.assert_sealed();
        let (left, name) = (subject.load.sent(), subject.name);
        let note = if subject.steady { "since its control" } else { "while not attached" };
        report(&format!("{name}: {left} packets have left, {note}: {:?}", subject.load.end()));
        if !w.agent(name).is_null() {
            w.detach(name);
        }
    }
    assert!(w.pins().is_empty() && w.records().is_empty(), "{:?} {:?}", w.pins(), w.records());
    assert_eq!(names(&w.run_dir().join("bpf/guards")), [""; 0]);
    eventually("the names are forgotten", || w.kept_names().is_empty());
    // The upstream's alone.
    eventually("no listener is left over", || listeners() == 1);
    w.stop();
    eventually("no interceptor is left over", || interceptors() == 0);
    let begun = Instant::now();
    let verdict = w.egret(&["audit", "verify"]);
    report(&format!("after {kills} kills: {} ({:?})", verdict.out, begun.elapsed()));
    assert_eq!(verdict.code, 0, "{verdict:?}");
}

/// Listening TCP sockets in this thread's namespace.
fn listeners() -> usize {
    let tables = ["tcp", "tcp6"].map(|t| fs::read_to_string(format!("/proc/thread-self/net/{t}")));
    let rows = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    rows.filter(|row| row.split_whitespace().nth(3) == Some("0A")).count()
}

/// Interceptors in this thread's namespace.
fn interceptors() -> usize {
    let own = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    processes
        .filter(|p| fs::metadata(p.join("ns/net")).is_ok_and(|m| m.ino() == own))
        .filter(|p| fs::read_to_string(p.join("comm")).is_ok_and(|c| c.trim() == "egret-intercept"))
        .count()
}

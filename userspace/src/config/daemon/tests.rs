//! Configurations by table, and with policies on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
[daemon]
user        = "warbler"
group       = "operators"
lease       = "10s"
durability  = "power"
connections = 100

[[agent]]
name   = "triage"
slice  = "agents-triage.slice"
policy = "triage.toml"

[[agent]]
name   = "ci"
unit   = "ci@*.service"
policy = "/etc/policies/ci.toml"

[[agent]]
name   = "pods"
cgroup = "/kubepods.slice/*/cri-*"
policy = "triage.toml"
"#;

fn parse(text: &str) -> Result<DaemonConfig, String> {
    parse_daemon_config("e.toml", Path::new("/etc/egret"), text)
        .map_err(|found| found.iter().map(|d| format!("{d}\n")).collect())
}

#[test]
fn the_whole_grammar() {
    let config = parse(WHOLE).unwrap();
    let agent = |name: &str, target, policy: &str| AgentConfig {
        name: name.into(),
        target,
        policy: policy.into(),
    };
    let wanted = DaemonConfig {
        user: "warbler".into(),
        group: "operators".into(),
        lease: Duration::from_secs(10),
        durability: Durability::Power,
        connections: 100,
        agents: vec![
            agent(
                "triage",
                Pattern::slice("agents-triage.slice").unwrap(),
                "/etc/egret/triage.toml",
            ),
            agent("ci", Pattern::unit("ci@*.service").unwrap(), "/etc/policies/ci.toml"),
            agent(
                "pods",
                Pattern::cgroup("/kubepods.slice/*/cri-*").unwrap(),
                "/etc/egret/triage.toml",
            ),
        ],
    };
    assert_eq!(config, wanted);
    for nothing in ["", "[daemon]\n"] {
        assert_eq!(parse(nothing), Ok(DaemonConfig::default()));
    }
    assert_eq!(DaemonConfig::default().lease, Duration::from_secs(3));
}

#[test]
fn every_mistake_has_its_place_and_help() {
    let daemon = |line: &str| format!("[daemon]\n{line}\n");
    let agent = |lines: &str| format!("[[agent]]\n{lines}\n");
    let slice = |text: &str| agent(&format!("name = \"a\"\npolicy = \"p\"\nslice = {text}"));
    let named = |text: &str| agent(&format!("name = {text}\npolicy = \"p\"\nslice = \"a.slice\""));
    let long = format!("\"{}\"", "x".repeat(65));
    let two = |second: &str| agent("name = \"a\"\npolicy = \"p\"\nslice = \"a-b.slice\"") + second;
    for (text, want) in [
        ("x = 1".into(), "e.toml:1:1: unknown key in egret.toml `x`"),
        ("[agents]".into(), "did you mean `agent`?"),
        ("[agent]\nname = \"a\"".into(), "write [[agent]] with two brackets"),
        ("daemon = 1".into(), "`daemon` must be a table, not an integer"),
        (
            daemon("lese = \"1s\""),
            "e.toml:2:1: unknown key in `daemon` `lese`\n  help: did you mean `lease`?",
        ),
        (daemon("lease = 3"), "e.toml:2:9: `lease` must be a string, not an integer"),
        (daemon("lease = \"3\""), "is not a duration"),
        (daemon("lease = \"999ms\""), "must be from 1s to 60s"),
        (daemon("lease = \"61s\""), "must be from 1s to 60s"),
        (daemon("user = \"root\""), "e.toml:2:8: the process that reads agents' bytes must not be"),
        (daemon("user = \"0\""), "not the name of a user"),
        (daemon("user = \"a b\""), "not the name of a user"),
        (daemon("group = \"-x\""), "not the name of a group"),
        (daemon("durability = \"disk\""), "unknown value of `durability` `disk`"),
        (daemon("connections = 0"), "must be from 1 to"),
        (daemon("connections = \"many\""), "must be a whole number"),
        (agent(""), "e.toml:1:1: an agent has no `name`"),
        (agent(""), "an agent has no `policy`"),
        (agent(""), "an agent does not say which group it is\n  help: add one of: slice, unit"),
        (agent("name = \"x\"\npolice = \"p\""), "did you mean `policy`?"),
        (
            agent("name = \"x\"\nslice = \"a.slice\"\nunit = \"a.service\""),
            "e.toml:4:1: agent `x` has more than one of: slice, unit",
        ),
        (slice("\"\""), "`slice` is empty"),
        (slice("\"*\""), "a slice's name ends in .slice"),
        (slice("\"..\""), "a slice's name ends in .slice"),
        (
            slice("\"agents\""),
            "e.toml:4:9: `agents` as `slice`: a slice's name ends in .slice\n  help: write agents.slice",
        ),
        (slice("\"a.slice\"\nx = 1"), "unknown key in an agent `x`"),
        (agent("cgroup = \"*\""), "every group of its depth"),
        (agent("cgroup = \"/a/../b\""), "no `..`"),
        (agent("cgroup = \"/sys/fs/cgroup/a\""), "help: write /a"),
        (agent("unit = \"a\""), "write for example a.service"),
        (named("\"\""), "`name` is empty"),
        (named("1"), "`name` must be a string"),
        (named("\"a b\""), "e.toml:2:8: an agent's name is 1 to 64"),
        (named("\"..\""), "begins with a letter or a digit"),
        (named("\"-a\""), "begins with a letter or a digit"),
        (named("\"a/b\""), "an agent's name"),
        (named("\"é\""), "an agent's name"),
        (named(&long), "an agent's name"),
        (
            two(&named("\"a\"")),
            "e.toml:6:8: there is already an agent `a`\n  help: the first is at line 2",
        ),
        (
            two(&agent("name = \"b\"\npolicy = \"p\"\ncgroup = \"/a.slice/a-b.slice\"")),
            "e.toml:8:10: another agent is these groups already\n  help: the first is at line 4: slice a-b.slice",
        ),
        (daemon("lease ="), "not valid TOML"),
    ] {
        let text: String = text;
        let found = parse(&text).expect_err(&text);
        assert!(found.contains(want), "{text}\n{want}\n{found}");
    }
    // The limits themselves are good.
    for good in [
        daemon("lease = \"1s\""),
        daemon("lease = \"60s\""),
        daemon("group = \"root\""),
        daemon("connections = 1"),
        named(&long.replacen('x', "", 1)),
        named("\"0.a_B-c\""),
    ] {
        assert!(parse(&good).is_ok(), "{good}");
    }
}

#[test]
fn a_syntax_error_hides_what_may_be_misread() {
    let found = parse("[daemon]\nlease = \n[[agent]]\nname = \"a b\"\n").unwrap_err();
    assert_eq!(found.lines().count(), 1, "{found}");
}

const POLICY: &str = "version = 1\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn agent(name: &str, policy: &str) -> String {
    format!("[[agent]]\nname = \"{name}\"\nunit = \"{name}.service\"\npolicy = \"{policy}\"\n")
}

#[test]
fn policies_come_with_it_in_the_order_of_the_agents() {
    let text = agent("a", "one.toml") + &agent("b", "sub/../two.toml") + &agent("c", "one.toml");
    let used = "version = 1\nuse = [\"one.toml\"]\n";
    let dir = folder(&[("egret.toml", &text), ("one.toml", POLICY), ("two.toml", used)]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    let loaded = load_daemon_config(&dir.path().join("egret.toml")).unwrap();
    let names: Vec<String> =
        loaded.policies.iter().map(|p| p.load().unwrap().policy.name.to_string()).collect();
    assert_eq!(names, ["one", "two", "one"]);
    assert!(loaded.config.agents.iter().all(|a| a.policy.is_absolute()), "{:?}", loaded.config);
    assert_eq!(loaded.policies[0].digest(), loaded.policies[2].digest());
    assert_ne!(loaded.policies[0].digest(), loaded.policies[1].digest());
    assert_eq!(loaded.lints, []);
    // Nothing more is needed of the disk.
    drop(dir);
    assert!(loaded.policies.iter().all(|p| p.load().is_ok()));
}

#[test]
fn everything_wrong_everywhere_is_listed_at_once_and_nothing_is_loaded() {
    let text = "[daemon]\nlease = \"9h\"\n".to_owned()
        + &agent("a", "good.toml")
        + &agent("b c", "bad.toml")
        + &agent("d", "none.toml")
        + &agent("e", "bad.toml")
        + &agent("f", "uses.toml");
    let bad = "version = 1\nmode = \"x\"\nrulez = 1\n";
    let uses = "version = 1\nuse = [\"broken.toml\", \"gone.toml\"]\n";
    let dir = folder(&[
        ("egret.toml", &text),
        ("good.toml", POLICY),
        ("bad.toml", bad),
        ("uses.toml", uses),
        ("broken.toml", "version ="),
    ]);
    let found = load_daemon_config(&dir.path().join("egret.toml")).unwrap_err().diagnostics();
    let at =
        |d: &Diagnostic| format!("{}:{}:{}", d.file.rsplit('/').next().unwrap(), d.line, d.column);
    let places: Vec<String> = found.iter().map(at).collect();
    let wanted = [
        "egret.toml:2:9",
        "egret.toml:8:8",
        "egret.toml:9:8",
        "egret.toml:14:10",
        "bad.toml:2:8",
        "bad.toml:3:1",
        "uses.toml:2:23",
        "broken.toml:1:10",
    ];
    assert_eq!(places, wanted, "{found:#?}");
    assert!(found[3].message.starts_with("`none.toml`: cannot be opened"), "{found:#?}");
    let missing = load_daemon_config(&dir.path().join("nope.toml")).unwrap_err();
    assert!(missing.to_string().contains("nope.toml: cannot be opened"), "{missing}");
}

#[test]
fn files_anyone_may_write_are_warned_of() {
    let dir = folder(&[("egret.toml", &agent("a", "p.toml")), ("p.toml", POLICY)]);
    for name in ["egret.toml", "p.toml"] {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    let loaded = load_daemon_config(&dir.path().join("egret.toml")).unwrap();
    assert_eq!(loaded.lints.len(), 2, "{:?}", loaded.lints);
}

#[test]
fn it_is_told_from_a_policy() {
    for (text, is) in [
        ("[daemon]\n", true),
        ("[[agent]]\n", true),
        ("version = 1\n[[agent]]\n", true),
        ("[daemon]\nlease = \n", true),
        ("", false),
        ("version = 1\n", false),
        ("version = 1\n[daemon]\n[[rule]]\n", false),
        ("[agents]\n", false),
    ] {
        let dir = folder(&[("f.toml", text)]);
        assert_eq!(is_daemon_config(&dir.path().join("f.toml")), is, "{text}");
    }
    assert!(!is_daemon_config(Path::new("/nonexistent")));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_accepted_has_no_two_alike(
        lines in proptest::collection::vec("\\[\\[agent\\]\\]\nname = \"[ab.]{0,2}\"\n(slice|unit|cgroup) = \"(/?[ab*]{1,2}|[ab*]\\.(slice|service))\"\npolicy = \"[a./]{1,3}\"|\\[daemon\\]\n(lease|user|connections) = (\"[0-9a-z]{0,3}\"|[0-9]{1,3})", 0..5)
    ) {
        if let Ok(config) = parse(&lines.join("\n")) {
            for (i, a) in config.agents.iter().enumerate() {
                prop_assert!(a.policy.is_absolute() && !a.name.is_empty());
                for b in &config.agents[..i] {
                    prop_assert!(a.name != b.name && !a.target.is_same(&b.target));
                }
            }
        }
    }
}

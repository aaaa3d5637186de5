//! An `egret.toml`: reading it never panics, every error has a place in the file, what is accepted
//! has no two agents alike, and a pattern takes a group only where it said that one could be.
#![no_main]

use std::path::Path;

use egret::config::parse_daemon_config;
use libfuzzer_sys::fuzz_target;

/// A good beginning, to which the fuzzer adds the keys of one agent and whatever follows.
const BEGINNING: &str = "[daemon]\n[[agent]]\nname = \"a\"\npolicy = \"p.toml\"\n";

fuzz_target!(|text: &str| {
    check(text);
    check(&format!("{BEGINNING}{text}"));
    check(&format!("{BEGINNING}slice = \"a.slice\"\n[[agent]]\n{text}"));
});

fn check(text: &str) {
    let config = match parse_daemon_config("egret.toml", Path::new("/etc/egret"), text) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.is_empty(), "it was refused without a reason");
            for e in errors.iter().filter(|e| e.line > 0) {
                let line = text.split('\n').nth(e.line - 1);
                let width = line.unwrap_or_else(|| panic!("{e} is behind the file")).chars().count();
                assert!((1..=width + 1).contains(&e.column), "{e}");
            }
            return;
        }
    };
    assert!(config.user != "root" && config.lease.as_secs() >= 1 && config.lease.as_secs() <= 60);
    for (n, agent) in config.agents.iter().enumerate() {
        assert!(agent.policy.is_absolute() && !agent.name.contains('/'));
        for other in &config.agents[..n] {
            assert!(agent.name != other.name && !agent.target.is_same(&other.target));
        }
        for path in ["/a.slice", "/a.slice/a-b.slice/c.service", "/egret/x", "/", "/x/y"] {
            let path = Path::new(path);
            assert!(!agent.target.matches(Path::new("/")), "{}", agent.target);
            assert!(!agent.target.matches(Path::new("/egret/x")), "{}", agent.target);
            if agent.target.matches(path) {
                let mut above = path.ancestors().skip(1);
                assert!(above.all(|a| agent.target.may_match_below(a)), "{}", agent.target);
            }
        }
    }
}

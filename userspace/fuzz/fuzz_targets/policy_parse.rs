//! A policy file: reading it never panics, every error has a place in the file, and a policy that
//! was accepted decides without panicking, allows no name that `could_allow_name` does not know,
//! and refuses what none of its rules names.
#![no_main]

use egret::policy::parse::{Diagnostic, PresetsOnly, parse};
use egret::policy::{
    Action, Facts, Host, HostName, Layer, Mode, Policy, RequestFacts, Verdict, decide,
};
use egret_fuzz::naive;
use libfuzzer_sys::fuzz_target;

/// A good beginning, to which the fuzzer adds the keys of one rule and whatever follows.
const BEGINNING: &str = "version = 1\nname = \"f\"\n[[rule]]\nname = \"r\"\naction = \"allow\"\n";

fuzz_target!(|text: &str| {
    check(text);
    check(&format!("{BEGINNING}{text}"));
    check(&format!("{BEGINNING}hosts = [\"*.example\"]\n{text}"));
});

fn check(text: &str) {
    let parsed = match parse("policy.toml", text, &PresetsOnly) {
        Ok(parsed) => parsed,
        Err(errors) => {
            assert!(!errors.is_empty(), "it was refused without a reason");
            return errors.iter().for_each(|e| in_file(text, e));
        }
    };
    parsed.lints.iter().for_each(|l| in_file(text, l));
    for name in ["a.example", "example", "api.github.com", "x.y.z.test"] {
        decides(&parsed.policy, &HostName::parse(name).expect("a host name"));
    }
}

/// The place of a diagnostic is one where a person finds something to look at.
fn in_file(text: &str, found: &Diagnostic) {
    if &*found.file != "policy.toml" || found.line == 0 {
        return;
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let line = lines.get(found.line - 1);
    let line = line.unwrap_or_else(|| panic!("{found} is behind the file's {} lines", lines.len()));
    let width = line.chars().count();
    assert!((1..=width + 1).contains(&found.column), "{found}: the line has {width} characters");
    assert!(!found.message.is_empty());
}

fn decides(policy: &Policy, name: &HostName) {
    let host = Host::Name(name.clone());
    let get = Some(RequestFacts { method: "GET", path: "/a" });
    let layers = [
        (Layer::Connect, None),
        (Layer::Opened { tls: true }, None),
        (Layer::Opened { tls: false }, None),
        (Layer::Request { tls: true }, get),
        (Layer::Request { tls: false }, get),
    ];
    for (port, (layer, request)) in [443, 80].into_iter().flat_map(|p| layers.map(|l| (p, l))) {
        let facts = Facts { layer, host: &host, port, request };
        let verdict = decide(&[policy], &facts);
        if matches!(verdict, Verdict::Allow(_)) {
            assert!(policy.could_allow_name(name), "{verdict:?}");
        }
        let named = policy.rules.iter().any(|r| {
            let of_name = |p: &egret::policy::HostPattern| {
                p.is_name() && naive::host(&p.to_string(), name.as_str())
            };
            r.action != Action::Deny && r.hosts.iter().any(of_name)
        });
        if policy.mode == Mode::Enforce && !named {
            assert!(matches!(verdict, Verdict::Deny(_)), "no rule names {name}: {verdict:?}");
        }
        assert!(matches!(decide(&[policy, &Policy::deny_all("n")], &facts), Verdict::Deny(_)));
    }
}

//! A policy file: reading it never panics, and a policy that was accepted decides without
//! panicking and allows no name that `could_allow_name` does not know.
#![no_main]

use egret::policy::parse::{PresetsOnly, parse};
use egret::policy::{Facts, Host, HostName, Layer, Verdict, decide};
use libfuzzer_sys::fuzz_target;

/// A good beginning, to which the fuzzer adds the keys of one rule and whatever follows.
const BEGINNING: &str = "version = 1\nname = \"f\"\n[[rule]]\nname = \"r\"\naction = \"allow\"\n";

fuzz_target!(|text: &str| {
    check(text);
    check(&format!("{BEGINNING}{text}"));
    check(&format!("{BEGINNING}hosts = [\"*.example\"]\n{text}"));
});

fn check(text: &str) {
    let Ok(parsed) = parse("policy.toml", text, &PresetsOnly) else { return };
    for name in ["a.example", "example", "api.github.com", "x.y.z.test"] {
        let name = HostName::parse(name).expect("a host name");
        let host = Host::Name(name.clone());
        let facts = Facts { layer: Layer::Connect, host: &host, port: 443, request: None };
        let verdict = decide(&[&parsed.policy], &facts);
        if matches!(verdict, Verdict::Allow(_)) {
            assert!(parsed.policy.could_allow_name(&name), "{verdict:?}");
        }
    }
}

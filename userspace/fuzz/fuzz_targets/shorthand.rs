//! The shorthands of the command line: what `--allow` accepts is one host, one port and one
//! protocol, allows what it says and nothing beside it, and no message about a `--bearer` repeats
//! what could be the secret.
#![no_main]

use egret::config::{parse_allow, parse_bearer, parse_resolve};
use egret::outcome::Decision;
use egret::policy::{Action, HostPattern, Policy, Protocol, Rule, explain};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "ghp_s3cretCanary0123";

fuzz_target!(|text: &str| {
    if let Ok(rule) = parse_allow(text) {
        allow(rule);
    }
    if let Ok(spec) = parse_bearer(text) {
        assert!(spec.hosts.len() == 1 && spec.hosts.iter().all(HostPattern::is_name));
    }
    for written in [
        format!("{text}{SECRET}"),
        format!("{text}={SECRET}"),
        format!("x.test={text}{SECRET}"),
        format!("x.test={text}:{SECRET}"),
    ] {
        if let Err(why) = parse_bearer(&written) {
            let before = written.split_once('=').is_some_and(|(host, _)| host.contains(SECRET));
            let bare = !written.contains('=');
            assert!(before || bare || !why.contains(SECRET), "{written:?}: {why}");
        }
    }
    if let Ok((name, to)) = parse_resolve(text) {
        assert_eq!(egret::policy::HostName::parse(name.as_str()), Ok(name));
        assert_ne!(to.port, Some(0));
    }
});

fn allow(rule: Rule) {
    assert!(rule.action == Action::Allow && rule.credentials.is_empty());
    let (Some([port]), Some(protocol), [host]) =
        (rule.ports.as_deref(), rule.protocol, &rule.hosts[..])
    else {
        panic!("{rule:?}");
    };
    let (port, scheme) = (*port, protocol.as_str());
    assert_ne!(port, 0);
    let http = matches!(protocol, Protocol::Https | Protocol::Http);
    assert!(http || (rule.methods.is_none() && rule.paths.is_none()));
    let paths: &[_] = rule.paths.as_deref().unwrap_or_default();
    let path = paths.first().map_or(String::new(), |p| p.to_string());
    let methods = rule.methods.as_ref().map(|m| m.to_string().replace(", ", ","));
    let bracketed = match host {
        HostPattern::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
        host => host.to_string(),
    };
    if matches!(host, HostPattern::Cidr(_)) {
        return;
    }

    // Written out in full it is the same rule.
    let method = methods.as_ref().map(|m| format!("{m} ")).unwrap_or_default();
    let again = parse_allow(&format!("{method}{scheme}://{bracketed}:{port}{path}"));
    let again = again.expect("what was accepted, written out");
    assert_eq!((&again.hosts, &again.ports), (&rule.hosts, &rule.ports));
    assert_eq!((again.protocol, &again.methods, &again.paths), (rule.protocol, &rule.methods, &rule.paths));

    // A request that it names passes, and neither another port nor another host does.
    let mut policy = Policy::deny_all("f");
    policy.rules.push(rule);
    let first = methods.and_then(|m| m.split(',').next().map(str::to_owned));
    let name = bracketed.replace("**", "a.b").replace('*', "a");
    let path = path.replace("**", "x/y").replace('*', "x");
    let decided = |host: &str, port: u16| {
        let url = format!("{scheme}://{host}:{port}{path}");
        explain(&[&policy], first.as_deref(), &url).map(|e| e.decision)
    };
    if let Ok(decision) = decided(&name, port) {
        assert_eq!(decision, Decision::Allow, "{name}:{port}{path}");
    }
    for (name, port) in [(&*name, port ^ 1), ("other.invalid", port)] {
        if port != 0 && name != bracketed && !bracketed.ends_with(".invalid") || name != "other.invalid" && port != 0 {
            if let Ok(decision) = decided(name, port) {
                assert_eq!(decision, Decision::Deny, "{name}:{port}{path}");
            }
        }
    }
}

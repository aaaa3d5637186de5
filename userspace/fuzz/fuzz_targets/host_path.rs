//! Host names, patterns and paths: a canonical name is its own canonical form and the text but for
//! its case, patterns agree with a matcher that is too simple to be wrong, an allow rule never
//! matches a path that servers may read in two ways, and what an allow pattern matches the same
//! pattern forbids in a deny rule.
#![no_main]

use egret::policy::{Host, HostName, HostPattern, PathPattern, ambiguity};
use egret_fuzz::naive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (one, two) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(name) = HostName::parse(one) {
        assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
        assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
        if one.is_ascii() {
            let lower = one.to_ascii_lowercase();
            assert_eq!(lower.strip_suffix('.').unwrap_or(&lower), name.as_str());
        }
        if let Ok(pattern) = HostPattern::parse(two) {
            hosts(&pattern, &name);
        }
    }
    if let Ok((host, port)) = Host::parse_authority(one) {
        let again = match (&host, port) {
            (Host::Ip(std::net::IpAddr::V6(ip)), Some(port)) => format!("[{ip}]:{port}"),
            (host, Some(port)) => format!("{host}:{port}"),
            (Host::Ip(std::net::IpAddr::V6(ip)), None) => format!("[{ip}]"),
            (host, None) => host.to_string(),
        };
        assert_eq!(Host::parse_authority(&again), Ok((host, port)));
    }
    if let Ok(pattern) = PathPattern::parse(one) {
        paths(&pattern, two);
        // Something that it is likely to match.
        let filled = one.replace("**", two.trim_matches('/')).replace('*', "x");
        paths(&pattern, &filled);
    }
});

fn hosts(pattern: &HostPattern, name: &HostName) {
    let host = Host::Name(name.clone());
    assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()));
    let again = HostPattern::parse(&pattern.to_string()).expect("a pattern that was read");
    assert_eq!(again, *pattern);
    assert!(pattern.covers(pattern));
    let exact = HostPattern::Exact(name.clone());
    let matches = pattern.matches(&host);
    assert_eq!(matches, pattern.covers(&exact));
    let plain = pattern.is_name() && naive::host(&pattern.to_string(), name.as_str());
    assert_eq!(matches, plain, "{pattern} and {name}");
}

fn paths(pattern: &PathPattern, path: &str) {
    let one_reading = ambiguity(path).is_none();
    let matches = pattern.matches(path);
    assert_eq!(matches, one_reading && naive::path(pattern.as_str(), path), "{pattern} and {path}");
    if matches || !one_reading {
        assert!(pattern.forbids(path), "{pattern} does not forbid {path}");
    }
    // A server that decodes, folds case or drops a trailing slash finds nothing unforbidden.
    if one_reading && pattern.forbids(path) {
        assert!(pattern.forbids(&path.to_ascii_uppercase()));
        assert!(pattern.forbids(&path.to_ascii_lowercase()));
    }
}

//! Host names, patterns and paths: a canonical name is its own canonical form, an allow rule
//! never matches a path that servers may read in two ways, and what an allow pattern matches the
//! same pattern forbids in a deny rule.
#![no_main]

use egret::policy::{Host, HostName, HostPattern, PathPattern, ambiguity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (one, two) = input;
    if let Ok(name) = HostName::parse(one) {
        assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
        assert!(name.as_str().parse::<std::net::IpAddr>().is_err());
        let host = Host::Name(name);
        assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()));
        if let Ok(pattern) = HostPattern::parse(two) {
            let _ = pattern.matches(&host);
            assert!(pattern.covers(&pattern));
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
        if pattern.matches(two) {
            assert_eq!(ambiguity(two), None);
            assert!(pattern.forbids(two), "{one} allows {two} and does not forbid it");
        }
    }
});

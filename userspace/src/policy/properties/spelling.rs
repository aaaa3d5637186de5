//! Pure: what holds however hosts and paths are spelt, and that the matchers agree with ones that
//! are too simple to be wrong.

use std::net::{IpAddr, Ipv4Addr};

use percent_encoding::percent_decode;
use proptest::prelude::*;

use super::{OwnedFacts, any_facts, any_policy, build, naive};
use crate::http::admission::parse_authority;
use crate::policy::*;

/// Names that are alike: below one another, one letter more, one label more.
const NAMES: &str = "((a|b|xn--bcher-kva|x-a|_a)\\.){0,3}(x|ax|x-|notx)?\\.?(test|example)";
const HOSTS: &str = "(\\*\\.|\\*\\*\\.)?((a|b|xn--bcher-kva)\\.){0,2}(x|ax)\\.test";
const PATTERNS: &str = "(/(a|b|\\*|\\*\\*|a\\*|\\*b|a\\*b\\*a|a\\.b|%7E)?){1,5}";
const PATHS: &str = "(/(a|b|ab|aba|abba|a\\.b|A|%7E|%61)?){1,6}";
/// Whatever servers read in more than one way.
const ODD_PATHS: &str =
    "(/(a|\\.|\\.\\.|%2e|%2E%2e|%2f|%5C|%252e|%25252f|;x|%3b|%3F|%00|%c0%ae|\\\\|%|%zz|%25)*){1,5}";

/// `name` as somebody else may write it: `upper` says which letters are capitals.
fn respelt(name: &str, upper: &[bool], dot: bool) -> String {
    let letters = name.chars().zip(upper.iter().cycle());
    let mut out: String =
        letters.map(|(c, up)| if *up { c.to_ascii_uppercase() } else { c }).collect();
    if dot {
        out.push('.');
    }
    out
}

proptest! {
    #[test]
    fn a_host_decides_alike_however_it_is_spelt(
        p in any_policy(),
        f in any_facts(),
        upper in prop::collection::vec(any::<bool>(), 1..8),
        dot: bool,
    ) {
        let p = build(&p);
        let other = match &f.host {
            Host::Name(name) => Host::parse(&respelt(name.as_str(), &upper, dot)).unwrap(),
            // As a dual-stack socket tells it, and not made canonical by anybody.
            Host::Ip(IpAddr::V4(ip)) => Host::Ip(ip.to_ipv6_mapped().into()),
            Host::Ip(ip) => Host::parse(&format!("[{ip}]")).unwrap(),
        };
        let respelt = OwnedFacts { host: other, ..f.clone() };
        prop_assert_eq!(respelt.decide(&[&p]), f.decide(&[&p]));
    }

    #[test]
    fn an_authority_is_read_once(
        name in NAMES,
        upper in prop::collection::vec(any::<bool>(), 1..8),
        dot: bool,
        port in prop::option::of(1_u16..),
    ) {
        let port_text = port.map(|p| format!(":{p}")).unwrap_or_default();
        let written = format!("{}{port_text}", respelt(&name, &upper, dot));
        let Some((host, read)) = parse_authority(&written) else { return Ok(()) };
        prop_assert_eq!(read, port);
        prop_assert_eq!(parse_authority(&format!("{host}{port_text}")), Some((host.clone(), port)));
        // The reader that is made for people finds the same.
        prop_assert_eq!(Host::parse_authority(&written), Ok((host, port)));
    }

    #[test]
    fn what_is_allowed_is_the_name_that_a_rule_says(
        pattern in HOSTS, name in NAMES, upper in prop::collection::vec(any::<bool>(), 1..8), dot: bool,
    ) {
        let written = respelt(&name, &upper, dot);
        let Ok(host) = Host::parse(&written) else { return Ok(()) };
        let p = build(&format!(
            "version = 1\n[[rule]]\nname = \"r\"\naction = \"allow\"\nhosts = [\"{pattern}\"]\n"
        ));
        let request = RequestFacts { method: "GET", path: "/" };
        let layer = Layer::Request { tls: true };
        let verdict = decide(&[&p], &Facts { layer, host: &host, port: 443, request: Some(request) });
        // DNS compares labels without regard to case (RFC 4343), and nothing else is equal.
        let lower = written.to_ascii_lowercase();
        let equal = naive::host(&pattern, lower.strip_suffix('.').unwrap_or(&lower));
        match verdict {
            Verdict::Allow(permit) => {
                prop_assert!(equal, "{} is not {}", written, pattern);
                prop_assert_eq!(permit.host(), &host);
            }
            verdict => prop_assert!(!equal, "{} is {}: {:?}", written, pattern, verdict),
        }
    }

    #[test]
    fn host_patterns_match_as_a_plain_reading_does(pattern in HOSTS, name in NAMES) {
        let (Ok(p), Ok(n)) = (HostPattern::parse(&pattern), HostName::parse(&name)) else {
            return Ok(());
        };
        prop_assert_eq!(p.matches_name(&n), naive::host(&p.to_string(), n.as_str()));
        prop_assert_eq!(p.matches_name(&n), p.covers(&HostPattern::Exact(n)));
    }

    #[test]
    fn a_pattern_covers_only_what_it_matches(a in HOSTS, b in HOSTS, name in NAMES) {
        let (Ok(a), Ok(b)) = (HostPattern::parse(&a), HostPattern::parse(&b)) else { return Ok(()) };
        if let Ok(name) = HostName::parse(&name) && a.covers(&b) && b.matches_name(&name) {
            prop_assert!(a.matches_name(&name), "{} covers {}", a, b);
        }
    }

    #[test]
    fn networks_contain_what_their_bits_say(ip: u32, net: u32, prefix in 0_u8..=32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let written = format!("{}/{prefix}", Ipv4Addr::from(net & mask));
        let p = HostPattern::parse(&written).unwrap();
        for ip in [ip, (net & mask) | (ip & !mask)] {
            let host = Host::Ip(Ipv4Addr::from(ip).into());
            prop_assert_eq!(p.matches(&host), ip & mask == net & mask, "{} in {}", host, p);
        }
    }

    #[test]
    fn path_patterns_match_as_a_plain_reading_does(pattern in PATTERNS, path in PATHS) {
        let Ok(p) = PathPattern::parse(&pattern) else { return Ok(()) };
        let plain = ambiguity(&path).is_none() && naive::path(&pattern, &path);
        prop_assert_eq!(p.matches(&path), plain, "{} and {}", pattern, path);
    }

    #[test]
    fn a_path_with_one_reading_is_what_every_server_reads(path in prop_oneof![ODD_PATHS, PATHS]) {
        if ambiguity(&path).is_some() {
            return Ok(());
        }
        let mut reading: Vec<u8> = path.clone().into();
        // As it is, decoded, and decoded again by whoever stands behind the first.
        for _ in 0..3 {
            prop_assert_eq!(served(&reading), reading.clone(), "{}", path);
            reading = percent_decode(&reading).collect();
        }
    }

    #[test]
    fn no_rule_with_paths_allows_what_has_two_readings(pattern in PATTERNS, path in ODD_PATHS) {
        let Ok(p) = PathPattern::parse(&pattern) else { return Ok(()) };
        if ambiguity(&path).is_some() {
            prop_assert!(!p.matches(&path) && p.forbids(&path));
        }
    }
}

/// What a server that is made to get along serves: separators of both kinds, no parameters, no
/// query, no empty and no dot segments.
fn served(path: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|b| matches!(b, b'?' | b'#' | 0)).unwrap_or(path.len());
    let mut out: Vec<&[u8]> = Vec::new();
    let segments: Vec<&[u8]> = path[..end].split(|b| matches!(b, b'/' | b'\\')).skip(1).collect();
    for (n, segment) in segments.iter().enumerate() {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        match name {
            b"." => {}
            b".." => drop(out.pop()),
            b"" if n + 1 < segments.len() => {}
            name => out.push(name),
        }
    }
    [&b"/"[..], &out.join(&b'/')].concat()
}

#[test]
fn the_plain_readers_know_a_difference() {
    assert!(naive::host("*.x.test", "a.x.test") && !naive::host("*.x.test", "a.b.x.test"));
    assert!(naive::host("**.x.test", "a.b.x.test") && !naive::host("**.x.test", "x.test"));
    assert!(naive::path("/a/**/z", "/a/b/c/z") && !naive::path("/a/**", "/a"));
    assert!(naive::path("/a*b", "/aXb") && !naive::path("/*", "/"));
    assert_eq!(served(b"/a/../b//c;x?d"), b"/b/c");
    for odd in ["/a/../b", "/a%2fb", "/a;x/b", "/a//b", "/%252e%252e/a", "/a\\b"] {
        let read: Vec<u8> =
            percent_decode(&percent_decode(odd.as_bytes()).collect::<Vec<_>>()).collect();
        assert!(
            served(&read) != read
                || read.iter().filter(|b| **b == b'/').count() != odd.matches('/').count()
        );
        assert!(ambiguity(odd).is_some(), "{odd}");
    }
}

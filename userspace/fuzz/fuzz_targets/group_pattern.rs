//! Patterns over groups and units, and the groups that they are held against: a pattern takes only
//! what a plain reading of it takes, never the root and never egret's own, and whoever looks for
//! matches finds each of them. A unit name for systemd never leaves its folder.
#![no_main]

use std::path::Path;

use egret::identify::Pattern;
use egret::systemd::Governed;
use egret_fuzz::naive;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (text, path) = text.split_once('\n').unwrap_or((text, "/a.slice"));
    if let Ok(pattern) = Pattern::cgroup(text) {
        held_against(&pattern, path, |p| {
            let (pattern, path) = (text.trim_start_matches('/'), p.trim_start_matches('/'));
            let plain = ["", ".", ".."];
            !path.split('/').any(|f| plain.contains(&f))
                && pattern.split('/').count() == path.split('/').count()
                && naive::glob(pattern.as_bytes(), path.as_bytes(), Some(b'/'))
        });
    }
    if let Ok(pattern) = Pattern::slice(text) {
        held_against(&pattern, path, |p| {
            let name = p.rsplit('/').next().unwrap_or_default();
            name.ends_with(".slice") && naive::glob(text.as_bytes(), name.as_bytes(), Some(b'-'))
        });
        if let Some(at) = pattern.slice_path() {
            assert!(pattern.matches(&at), "{text} is not at its own place");
        }
    }
    if let Ok(pattern) = Pattern::unit(text) {
        held_against(&pattern, path, |p| {
            let name = p.rsplit('/').next().unwrap_or_default();
            naive::glob(text.as_bytes(), name.as_bytes(), None) && !p.contains("/user@1000.service/")
        });
    }
    if let Ok(governed) = text.parse::<Governed>() {
        let again = governed.pattern.to_string().parse::<egret::systemd::Pattern>();
        assert_eq!(again.as_ref(), Ok(&governed.pattern));
        let folder = governed.pattern.folder();
        assert!(folder.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.@".contains(&b)));
        assert!(folder.ends_with(".d") && folder.len() <= 255 && folder.len() > 2);
        assert!(!governed.agent.is_empty() && !governed.agent.contains('/'));
    }
});

fn held_against(pattern: &Pattern, path: &str, plain: impl Fn(&str) -> bool) {
    assert!(!pattern.matches(Path::new("/")) && !pattern.matches(Path::new("/egret/x")));
    assert!(pattern.is_same(pattern));
    for path in [path, "/a.slice/a-b.slice", "/x/y", "/system.slice/a.service"] {
        let at = Path::new(path);
        if pattern.matches(at) {
            assert!(plain(path), "{pattern} is not a reading of {path}");
            // From the root down; Path leaves out what a doubled slash would mean.
            let mut above = at.ancestors().skip(1);
            assert!(above.all(|a| pattern.may_match_below(a)), "{pattern} above {path}");
        }
    }
    if let Some(parent) = pattern.guardable_parent() {
        assert!(pattern.matches(&parent.join("x")), "{pattern}");
        assert!(!["/system.slice", "/user.slice", "/"].contains(&parent.to_str().unwrap_or("/")));
    }
}

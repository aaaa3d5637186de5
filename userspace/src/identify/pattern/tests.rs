//! Patterns by table and against a reference that is as simple as the rules.

use proptest::prelude::*;

use super::*;

fn slice(text: &str) -> Pattern {
    Pattern::slice(text).unwrap()
}

fn unit(text: &str) -> Pattern {
    Pattern::unit(text).unwrap()
}

fn cgroup(text: &str) -> Pattern {
    Pattern::cgroup(text).unwrap()
}

#[test]
fn what_matches() {
    for (pattern, path, is) in [
        (slice("agents.slice"), "/agents.slice", true),
        (slice("agents.slice"), "agents.slice", true),
        (slice("agents.slice"), "/agents.slice/a.service", false),
        (slice("agents.slice"), "/other.slice/agents.slice", false),
        (slice("a-b.slice"), "/a.slice/a-b.slice", true),
        (slice("a-b.slice"), "/a-b.slice", false),
        (slice("a-b.slice"), "/a.slice", false),
        (slice("a-*.slice"), "/a.slice/a-x.slice", true),
        (slice("a-*.slice"), "/a.slice/a-x.slice/a-x-y.slice", false),
        (slice("a-*.slice"), "/a.slice/a-x-y.slice", false),
        (slice("a-*.slice"), "/a.slice/b-x.slice", false),
        (slice(r"a-x\x2d*.slice"), r"/a.slice/a-x\x2dy.slice", true),
        (slice("a*-b.slice"), "/a1.slice/a1-b.slice", true),
        (slice("a*-b.slice"), "/a1.slice/a2-b.slice", false),
        (unit("c.service"), "/system.slice/c.service", true),
        (unit("c.service"), "/c.service", true),
        (unit("c.service"), "/a.slice/a-b.slice/c.service", true),
        (unit("c.service"), "/system.slice/c.service/sub", false),
        (unit("c.service"), "/system.slice/c.service/c.service", false),
        (unit("c@*.service"), "/system.slice/system-c.slice/c@1.service", true),
        (unit("c@*.service"), "/system.slice/c@1.service/c@2.service", false),
        (unit("c*.service"), "/system.slice/xc.service", false),
        (unit(r"c\x2dd.service"), r"/system.slice/c\x2dd.service", true),
        (unit("c.service"), "/user.slice/user-1.slice/user@1.service/app.slice/c.service", false),
        (unit("user@*.service"), "/user.slice/user-1.slice/user@1.service", true),
        (unit("c.service"), "/egret/1.2.3.s/c.service", false),
        (cgroup("/a/*"), "/a/b", true),
        (cgroup("a/*"), "/a/b", true),
        (cgroup("/a/*"), "/a", false),
        (cgroup("/a/*"), "/a/b/c", false),
        (cgroup("/a/*"), "/a/../b", false),
        (cgroup("/a/x*y*"), "/a/x1y", true),
        (cgroup("/a/x*y*"), "/a/xy2", true),
        (cgroup("/a/x*y*"), "/a/x", false),
        (cgroup("/*/x"), "/a/x", true),
        (cgroup("/*/x"), "/egret/x", false),
        (cgroup("/a-*.slice"), "/a-b-c.slice", true),
        (cgroup("/a"), "/", false),
        (cgroup("/a"), "", false),
        (cgroup("/a"), "/a/", false),
        (cgroup("/a"), "//a", false),
    ] {
        assert_eq!(pattern.matches(Path::new(path)), is, "{pattern} {path}");
    }
    let strange = Path::new(std::ffi::OsStr::from_bytes(b"/a/\xff"));
    assert!(cgroup("/a/*").matches(strange) && !slice("a-*.slice").matches(strange));
}

#[test]
fn what_is_no_pattern() {
    for (text, want) in [
        ("", "the root"),
        ("/", "the root"),
        ("*", "every group"),
        ("/*", "every group"),
        ("/*/*", "every group"),
        ("/a/../b", "no `..`"),
        ("..", "no `..`"),
        ("/a/./b", "no `.`"),
        ("/a//b", "no name"),
        ("/a/", "no name"),
        ("/a/**", "one folder's name only"),
        ("/a/b\n", "line break"),
        ("/egret", "egret run"),
        ("/egret/x", "egret run"),
        ("/sys/fs/cgroup/a/*", "write /a/*"),
        ("/sys/fs/cgroup/unified/a", "write /a"),
        ("/sys/fs/cgroup", "write /NAME"),
    ] {
        let e = Pattern::cgroup(text).unwrap_err().to_string();
        assert!(e.contains(want), "{text}: {e}");
    }
    assert!(Pattern::cgroup("/egrets/x").is_ok(), "control");
    for text in ["", "*", "..", "*.slice", "agents", "a/b.slice", "-.slice"] {
        assert!(Pattern::slice(text).is_err(), "{text}");
    }
    for text in ["", "*", "..", "*.service", "a", "a/b.service", "a.slice"] {
        assert!(Pattern::unit(text).is_err(), "{text}");
    }
}

#[test]
fn a_parent_is_guarded_where_everything_in_it_is_an_agent() {
    for (pattern, parent) in [
        (cgroup("/agents.slice/*"), Some("/agents.slice")),
        (cgroup("agents/a/*"), Some("/agents/a")),
        (cgroup("/system.slice/ci.service/*"), Some("/system.slice/ci.service")),
        (cgroup("/agents.slice/a*"), None),
        (cgroup("/agents.slice"), None),
        (cgroup("/agents*/*"), None),
        (cgroup("/*/a/*"), None),
        (cgroup("/system.slice/*"), None),
        (cgroup("/user.slice/*"), None),
        (cgroup("/user.slice/user-1000.slice/*"), None),
        (cgroup("/machine.slice/*"), None),
        (cgroup("/init.scope/*"), None),
        (cgroup("/agents.slice/system.slice/*"), Some("/agents.slice/system.slice")),
        (slice("agents-*.slice"), None),
        (unit("a*.service"), None),
    ] {
        assert_eq!(pattern.guardable_parent(), parent.map(PathBuf::from), "{pattern}");
    }
}

#[test]
fn the_same_groups_are_known_however_written() {
    assert!(slice("a-b.slice").is_same(&cgroup("/a.slice/a-b.slice")));
    assert!(cgroup("/a/*").is_same(&cgroup("a/*")));
    assert!(!cgroup("/a.service").is_same(&unit("a.service")));
    assert!(!cgroup("/a/*").is_same(&cgroup("/a/b*")));
}

/// Every way to cut the text at the first star.
fn plain_glob(pattern: &[u8], text: &[u8], stop: Option<u8>) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len())
            .take_while(|n| !text[..*n].iter().any(|b| Some(*b) == stop))
            .any(|n| plain_glob(rest, &text[n..], stop)),
        Some((a, rest)) => text.first() == Some(a) && plain_glob(rest, &text[1..], stop),
    }
}

fn split(path: &str) -> Vec<&str> {
    path.split('/').filter(|f| !f.is_empty()).collect()
}

fn plain_match(pattern: &Pattern, path: &str) -> bool {
    let folders = split(path);
    let g = |p: &str, f: &str, stop| plain_glob(p.as_bytes(), f.as_bytes(), stop);
    let Some(last) = folders.last() else { return false };
    if folders[0] == "egret" {
        return false;
    }
    match pattern.kind {
        Kind::Cgroup => {
            let wanted = split(&pattern.text);
            wanted.len() == folders.len() && wanted.iter().zip(&folders).all(|(p, f)| g(p, f, None))
        }
        // Exactly where systemd puts the slice that the last folder is named after.
        Kind::Slice => g(&pattern.text, last, Some(b'-')) && slice_folders(last) == folders,
        Kind::Unit => {
            let above = &folders[..folders.len() - 1];
            g(&pattern.text, last, None)
                && !above.iter().any(|f| g(&pattern.text, f, None) || g("user@*.service", f, None))
        }
    }
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let parsed =
        |kind: fn(&str) -> Result<Pattern, NameError>| move |text: String| kind(&text).ok();
    prop_oneof![
        "(/?[ab*]{1,3}){1,3}".prop_filter_map("cgroup", parsed(Pattern::cgroup)),
        "/[ab-]{1,3}\\.slice/[ab*-]{1,5}".prop_filter_map("cgroup", parsed(Pattern::cgroup)),
        "[ab*]{1,3}(-[ab*]{1,3}){0,2}\\.slice".prop_filter_map("slice", parsed(Pattern::slice)),
        "[ab*@]{1,4}\\.service".prop_filter_map("unit", parsed(Pattern::unit)),
        Just(unit("user@*.service")),
    ]
}

fn paths() -> impl Strategy<Value = String> {
    let slices = "[ab]{1,3}(-[ab]{1,3}){0,2}\\.slice"
        .prop_map(|name| format!("/{}", slice_folders(&name).join("/")));
    let folder = "[ab]{1,3}|[ab-]{1,4}\\.slice|[ab@]{1,3}\\.service|user@1\\.service|egret";
    let folders = proptest::collection::vec(folder, 0..4).prop_map(|f| format!("/{}", f.join("/")));
    // Not where systemd would put them.
    let misplaced = "/[ab]{1,2}\\.slice/[ab]{1,2}-[ab]{1,2}\\.slice";
    (prop_oneof![Just(String::new()), slices, misplaced], folders).prop_map(|(a, b)| {
        let path = a + &b;
        if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn a_glob_is_its_simple_self(
        pattern in "[ab*-]{0,8}",
        text in "[ab-]{0,10}",
        stop in proptest::option::of(Just(b'-')),
    ) {
        let (p, t) = (pattern.as_bytes(), text.as_bytes());
        prop_assert_eq!(glob(p, t, stop), plain_glob(p, t, stop));
    }

    #[test]
    fn matching_is_its_simple_self(pattern in patterns(), path in paths()) {
        prop_assert_eq!(pattern.matches(Path::new(&path)), plain_match(&pattern, &path));
    }

    /// The walk from the root finds every match, and nothing below one.
    #[test]
    fn a_match_is_always_reached(pattern in patterns(), path in paths()) {
        if pattern.matches(Path::new(&path)) {
            for above in Path::new(&path).ancestors().skip(1) {
                prop_assert!(pattern.may_match_below(above), "{}", above.display());
                prop_assert!(!pattern.matches(above), "{}", above.display());
            }
            prop_assert!(!pattern.may_match_below(Path::new(&path)));
        }
    }
}

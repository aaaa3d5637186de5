//! A bundle is the policy: the same answers without the files, and a digest that knows it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::PolicyArgs;
use super::super::gather::{anyone_may_write, find, gather, read_text};
use super::*;
use crate::policy::parse::PresetsOnly;

static PEM: LazyLock<String> =
    LazyLock::new(|| rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap().cert.pem());

fn rule(name: &str, host: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\naction = \"allow\"\nhosts = [\"{host}\"]\n")
}

fn round_trip(bundle: &PolicyBundle) -> PolicyBundle {
    serde_json::from_slice(&serde_json::to_vec(bundle).unwrap()).unwrap()
}

/// What a load says, as text.
fn said(loaded: &Result<Loaded, LoadError>) -> String {
    match loaded {
        Ok(loaded) => format!("{loaded:?}"),
        Err(e) => format!("{e}"),
    }
}

/// Loads a policy file with nothing between the parser and the disk.
fn reference(path: &Path) -> Result<Loaded, LoadError> {
    struct Disk;
    impl Loader for Disk {
        fn load(&self, from: &str, name: &str) -> Result<UsedFile, String> {
            find(from, name)
        }
    }
    let file = path.display().to_string();
    let invalid = |d: Diagnostic| LoadError::Invalid(vec![d]);
    let text = read_text(path).map_err(|why| invalid(Diagnostic::about(&file, why)))?;
    let mut parsed = parse(&file, &text, &Disk).map_err(LoadError::Invalid)?;
    let mut errors = Vec::new();
    for ca in &parsed.ca {
        let text = read_text(&path.parent().unwrap().join(&ca.path));
        match text.and_then(|t| certificates(&Answer::Is(t))) {
            Ok(pem) => parsed.policy.upstream.ca.push(pem),
            Err(why) => errors.push(ca.at.say(format!("`{}`: {why}", ca.path))),
        }
    }
    if !errors.is_empty() {
        return Err(LoadError::Invalid(errors));
    }
    if anyone_may_write(path) {
        parsed.lints.push(Diagnostic::about(&file, ANYONE_MAY_WRITE));
    }
    Ok(Loaded { policy: parsed.policy, lints: parsed.lints })
}

/// The uses, the CA files and one more line of a file.
type Written = (Vec<&'static str>, Vec<&'static str>, &'static str);

fn written() -> impl Strategy<Value = Written> {
    const GOOD: &[&str] = &["./f1.toml", "f1.toml", "sub/f2.toml", "../f1.toml", "npm-readonly"];
    const BAD: &[&str] = &["f0.toml", "none.toml", "npm-readonl", "ca.pem"];
    let uses = prop_oneof![
        4 => Just(Vec::new()),
        4 => proptest::sample::subsequence(GOOD, 1..3),
        1 => proptest::sample::subsequence(BAD, 1..2),
    ];
    let ca = prop_oneof![
        4 => Just(vec![]),
        4 => Just(vec!["ca.pem"]),
        1 => Just(vec!["none.pem", "f1.toml"]),
    ];
    let line = prop_oneof![
        12 => Just("name = \"n\""),
        1 => Just("mode = \"no\""),
        1 => Just("x ="),
    ];
    (uses, ca, line)
}

fn quoted(all: &[&str]) -> String {
    all.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ")
}

fn text_of(n: usize, (uses, ca, line): &Written) -> String {
    let mut text = format!("version = 1\n{line}\n");
    if !uses.is_empty() {
        text += &format!("use = [{}]\n", quoted(uses));
    }
    text += &rule(&format!("r{n}"), &format!("h{n}.test"));
    if n == 0 && !ca.is_empty() {
        text += &format!("[upstream]\nca = [{}]\n", quoted(ca));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_bundle_loads_without_the_files_as_with_them(
        files in proptest::collection::vec(written(), 4),
        allow in proptest::sample::subsequence(vec!["GET a.test/x", "h0.test", "b.test:22"], 0..3),
        bearer in proptest::sample::subsequence(vec!["h0.test=env:A", "h1.test=env:A", "a.test=x"], 0..2),
        extra in proptest::sample::subsequence(vec!["ca.pem", "none.pem"], 0..2),
        audit_mode: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (n, file) in files.iter().enumerate() {
            let name = if n == 2 { "sub/f2.toml".to_owned() } else { format!("f{n}.toml") };
            fs::write(dir.path().join(name), text_of(n, file)).unwrap();
        }
        fs::write(dir.path().join("ca.pem"), &*PEM).unwrap();
        let path = dir.path().join("f0.toml");
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let plain = PolicyArgs { policy: Some(path.clone()), ..PolicyArgs::default() };
        let full = PolicyArgs {
            allow: own(&allow),
            bearer: own(&bearer),
            upstream_ca: extra.iter().map(|f| dir.path().join(f)).collect(),
            audit_mode,
            ..plain.clone()
        };
        let wanted = said(&reference(&path));
prop_assert_eq!(&said(&plain.load()), &wanted);
        let direct = full.load();
        match full.bundle() {
            Ok(_) => prop_assert!(direct.is_ok()),
            Err(e) => prop_assert_eq!(said(&Err(e)), said(&direct)),
        }
        let (plain, full) = (round_trip(&gather(&plain)), round_trip(&gather(&full)));
        drop(dir);
prop_assert_eq!(&said(&plain.load()), &wanted);
        prop_assert_eq!(said(&full.load()), said(&direct));
    }
}

/// A bundle with something in every field.
fn whole(dir: &Path) -> PolicyArgs {
    let text = format!(
        "version = 1\nuse = [\"used.toml\"]\n{}[upstream]\nca = [\"ca.pem\"]\n",
        rule("r", "x.test")
    );
    fs::write(dir.join("p.toml"), text).unwrap();
    fs::write(dir.join("used.toml"), format!("version = 1\n{}", rule("u", "u.test"))).unwrap();
    fs::write(dir.join("ca.pem"), &*PEM).unwrap();
    PolicyArgs {
        policy: Some(dir.join("p.toml")),
        allow: vec!["y.test".into()],
        bearer: vec!["x.test=env:A".into()],
        resolve: vec!["x.test=127.0.0.1".into()],
        upstream_ca: vec![dir.join("ca.pem")],
        audit_mode: true,
    }
}

#[test]
fn the_digest_knows_every_part_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = whole(dir.path()).bundle().unwrap();
    let digest = bundle.digest();
    assert_eq!(digest, whole(dir.path()).bundle().unwrap().digest(), "read again");
    assert_eq!(digest, round_trip(&bundle).digest());
    let mut lint = bundle.clone();
    lint.policy.as_mut().unwrap().anyone_may_write ^= true;
    assert_eq!(digest, lint.digest(), "a lint changes no policy");

    type Change = fn(&mut PolicyBundle);
    let changes: &[Change] = &[
        |b| b.policy = None,
        |b| b.policy.as_mut().unwrap().file.push('x'),
        |b| b.policy.as_mut().unwrap().text = Answer::Is("version = 1\n".into()),
        |b| b.policy.as_mut().unwrap().text = Answer::Failed("version = 1\n".into()),
        |b| b.used.clear(),
        |b| b.used[0].name.push('x'),
        |b| b.used[0].from.push('x'),
        |b| b.used[0].answer = Answer::Failed(String::new()),
        |b| {
            if let Answer::Is(used) = &mut b.used[0].answer {
                used.text.push('\n');
            }
        },
        |b| {
            if let Answer::Is(used) = &mut b.used[0].answer {
                let moved = used.file.pop().unwrap();
                used.prefix.insert(0, moved);
            }
        },
        |b| b.ca.clear(),
        |b| *b.ca.get_mut("ca.pem").unwrap() = Answer::Is(String::new()),
        |b| b.allow.push("z.test".into()),
        |b| b.bearer.clear(),
        |b| b.resolve = std::mem::take(&mut b.bearer),
        |b| b.upstream_ca.clear(),
        |b| b.upstream_ca[0].file.push('x'),
        |b| b.audit_mode = false,
    ];
    let mut seen = std::collections::BTreeSet::from([digest.to_string()]);
    for (n, change) in changes.iter().enumerate() {
        let mut changed = bundle.clone();
        change(&mut changed);
        assert!(seen.insert(changed.digest().to_string()), "change {n}");
    }
}

#[test]
fn a_bundle_from_elsewhere_is_checked_like_files() {
    let dir = tempfile::tempdir().unwrap();
    let good = whole(dir.path()).bundle().unwrap();
    assert!(good.load().is_ok(), "control");
    let said = |change: fn(&mut PolicyBundle)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.load().unwrap_err().to_string()
    };
    for (text, want) in [
        (said(|b| b.used.clear()), "p.toml:2:8: `used.toml` is not part of the bundle"),
        (said(|b| b.ca.clear()), "p.toml:8:7: `ca.pem`: is not part of the bundle"),
        (
            said(|b| b.upstream_ca[0].text = Answer::Is("no PEM".into())),
            "ca.pem: holds no certificate",
        ),
        (
            said(|b| b.policy.as_mut().unwrap().text = Answer::Is(" ".repeat(LARGEST_FILE + 1))),
            "p.toml: is larger than 1 MiB",
        ),
        (
            said(|b| {
                if let Answer::Is(used) = &mut b.used[0].answer {
                    used.text = " ".repeat(LARGEST_FILE + 1);
                }
            }),
            "`used.toml` is larger than 1 MiB",
        ),
        (said(|b| (b.policy, b.allow) = (None, Vec::new())), "no policy"),
    ] {
        assert!(text.contains(want), "{want}: {text}");
    }
    let unknown = serde_json::from_str::<PolicyBundle>("{\"polcy\":null}");
    assert!(unknown.is_err());
}

#[test]
fn presets_travel_with_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.toml"), "version = 1\nuse = [\"npm-readonly\"]\n").unwrap();
    let args = PolicyArgs { policy: Some(dir.path().join("p.toml")), ..PolicyArgs::default() };
    let bundle = args.bundle().unwrap();
    let Answer::Is(used) = &bundle.used[0].answer else { panic!("a preset") };
    assert_eq!(*used, PresetsOnly.load("", "npm-readonly").unwrap());
}

#[test]
fn debug_output_shows_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = whole(dir.path());
    args.bearer = vec!["x.test=ghp_canary".into()];
    let text = format!("{:?}", gather(&args));
    assert!(text.contains("p.toml") && !text.contains("canary"), "{text}");
}

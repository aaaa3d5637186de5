//! A set in another process, and placeholders that outlive the process which made them.

use std::collections::BTreeMap;

use super::super::{CredentialSet, HandedOver};
use super::activate::{SECRET, of, operator, policy};
use crate::policy::CredentialKind::{Basic, Bearer};
use crate::policy::{CredentialSpec, Policy};
use crate::secrets::Operator;

fn two() -> Policy {
    let basic = Basic { username: "bot".into() };
    policy(vec![
        CredentialSpec { shape: Some("ghp_{36}".into()), ..of("a", "env:TOKEN", Some("A")) },
        CredentialSpec { kind: basic, ..of("b", "file:/nonexistent/b", None) },
    ])
}

/// A set of [`two`], made without its second source.
fn made() -> CredentialSet {
    let mut readable = two();
    readable.credentials[1].secret = readable.credentials[0].secret.clone();
    CredentialSet::activate(&readable, &operator()).unwrap()
}

fn wire(handed: &[HandedOver]) -> Vec<HandedOver> {
    serde_json::from_slice(&serde_json::to_vec(handed).unwrap()).unwrap()
}

#[test]
fn the_other_process_has_an_equal_set_and_reads_nothing() {
    let (policy, set) = (two(), made());
    assert!(CredentialSet::activate(&policy, &operator()).is_err(), "control: no such file");
    let taken = CredentialSet::take_over(&policy, wire(&set.hand_over())).unwrap();
    let facts = |set: &CredentialSet| {
        let of = |c: &std::sync::Arc<super::super::Credential>| {
            (c.spec.name.clone(), c.secret.expose().to_vec(), c.placeholder.clone())
        };
        set.all().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(facts(&taken), facts(&set));
    assert_eq!(taken.agent_env(), set.agent_env());
    assert_eq!(taken.hidden_files(), ["/nonexistent/b".as_ref() as &std::path::Path]);
    // And so once more.
    let again = CredentialSet::take_over(&policy, wire(&taken.hand_over())).unwrap();
    assert_eq!(facts(&again), facts(&set));
}

#[test]
fn what_is_taken_over_is_exactly_what_the_policy_asks_for() {
    let handed = made().hand_over();
    let [a, b] = &handed[..] else { panic!("two") };
    let json = |one: &HandedOver| serde_json::to_value(one).unwrap();
    let changed = |key: &str, value: &str| {
        let mut all = json(a);
        all[key] = value.into();
        serde_json::from_value::<HandedOver>(all).unwrap()
    };
    let base64 = |text: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
    let random = "x".repeat(36);
    for (handed, want) in [
        (vec![a.clone()], "credential `b`: it was not handed over"),
        (vec![], "credential `a`: it was not handed over"),
        (vec![a.clone(), b.clone(), a.clone()], "credential `a`: it was handed over"),
        (vec![a.clone(), b.clone(), changed("credential", "c")], "`c`: it was handed over, and"),
        (vec![changed("placeholder", "short"), b.clone()], "a placeholder that the policy's"),
        (vec![changed("placeholder", &format!("gho_{random}")), b.clone()], "a placeholder that"),
        (vec![changed("secret", &base64("short")), b.clone()], "shorter than 8"),
        (vec![changed("secret", &base64("a\r\nb: 12345")), b.clone()], "control character"),
        (vec![changed("secret", ""), b.clone()], "is empty"),
    ] {
        let errors = CredentialSet::take_over(&two(), wire(&handed)).unwrap_err();
        let text = format!("{errors:?} {}", errors[0]);
        assert!(text.contains(want), "{want}: {text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    // Placeholders as such are not the fault above.
    let other = changed("placeholder", &format!("ghp_{random}"));
    assert!(CredentialSet::take_over(&two(), vec![other, b.clone()]).is_ok(), "control");
}

#[test]
fn nothing_shows_the_secret_on_its_way() {
    let handed = made().hand_over();
    let printed = format!("{handed:?} {handed:#?}");
    assert!(printed.contains("Secret(…)") && !printed.contains(&SECRET[..8]), "{printed}");
    for bad in
        ["\"correct-horse-battery\"", "17", "\"Y29ycmVjd\"", &format!("\"{}\"", "A".repeat(90_000))]
    {
        let text = format!("{{\"credential\":\"a\",\"secret\":{bad},\"placeholder\":\"p\"}}");
        let error = serde_json::from_str::<HandedOver>(&text).unwrap_err().to_string();
        assert!(!error.contains("correct") && !error.contains("Y29"), "{error}");
    }
}

fn activate(policy: &Policy, keep: &BTreeMap<String, String>) -> CredentialSet {
    CredentialSet::activate_keeping(policy, &operator(), keep).unwrap()
}

#[test]
fn a_kept_placeholder_stays_while_it_is_good() {
    let shaped = |name, shape: &str| CredentialSpec {
        shape: Some(shape.into()),
        ..of(name, "env:TOKEN", None)
    };
    let before = policy(vec![shaped("a", "ghp_{36}"), of("b", "env:TOKEN", None)]);
    let first = activate(&before, &BTreeMap::new());
    let keep = first.to_keep();
    let names: Vec<&str> = keep.keys().map(String::as_str).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(activate(&before, &keep).to_keep(), keep);
    assert_ne!(activate(&before, &BTreeMap::new()).to_keep(), keep, "control");

    // A credential that came, went, or changed its kind does not disturb the others.
    let more = policy(vec![of("new", "env:TOKEN", None), shaped("a", "ghp_{36}")]);
    assert_eq!(activate(&more, &keep).to_keep()["a"], keep["a"]);
    let mut basic = before.clone();
    basic.credentials[0].kind = Basic { username: "x".into() };
    assert_eq!(activate(&basic, &keep).to_keep(), keep);
    assert_eq!(before.credentials[0].kind, Bearer);

    // The shape changed, or the kept text never had one.
    let reshaped = policy(vec![shaped("a", "gho_{36}"), of("b", "env:TOKEN", None)]);
    let after = activate(&reshaped, &keep).to_keep();
    assert!(after["a"].starts_with("gho_") && after["b"] == keep["b"], "{after:?}");
    for bad in ["", "ghp_", SECRET, "ghp_\r\nX: 1"] {
        let bad = BTreeMap::from([("a".to_owned(), bad.to_owned())]);
        assert!(activate(&before, &bad).to_keep()["a"].starts_with("ghp_"), "{bad:?}");
    }
}

#[test]
fn a_kept_placeholder_never_meets_a_secret_or_another_placeholder() {
    let text = "ghp_".to_owned() + &"Ab1".repeat(12);
    let shape =
        |name| CredentialSpec { shape: Some("ghp_{36}".into()), ..of(name, "env:TOKEN", None) };
    let keep = BTreeMap::from([("a".to_owned(), text.clone())]);
    // The new secret is the placeholder, is part of it, or has it as a part.
    for secret in [text.clone(), text[4..20].to_owned(), format!("x{text}x")] {
        let operator = Operator::new(0, move |_| Some(secret.clone().into()));
        let set =
            CredentialSet::activate_keeping(&policy(vec![shape("a")]), &operator, &keep).unwrap();
        assert_ne!(*set.all()[0].placeholder, *text);
    }
    assert_eq!(activate(&policy(vec![shape("a")]), &keep).to_keep(), keep, "control");
    // The same text kept for two: they must differ.
    let twice = BTreeMap::from([("a".to_owned(), text.clone()), ("b".to_owned(), text)]);
    let set = activate(&policy(vec![shape("a"), shape("b")]), &twice).to_keep();
    assert_ne!(set["a"], set["b"]);
}

//! Pure: tests of the parser as a whole.

use std::time::Duration;

use proptest::prelude::*;

use super::mistakes::errors;
use super::*;
use crate::policy::{CredentialKind, HttpSettings, Protocol, UpstreamTimes};

const HEAD: &str = "version = 1\n";
const CREDENTIAL: &str =
    "[credentials.c]\nsecret = \"env:T\"\nhosts = [\"x.test\"]\nbearer = true\n";
const RULE: &str = "[[rule]]\nname = \"r\"\naction = \"allow\"\nhosts = [\"x.test\"]\n";

fn parsed(text: &str) -> Parsed {
    parse("p.toml", text, &PresetsOnly)
        .unwrap_or_else(|e| panic!("{}", e.iter().map(|d| format!("{d}\n")).collect::<String>()))
}

#[test]
fn the_whole_grammar() {
    let p = parsed(
        r#"
version = 1
name    = "github-triage"
mode    = "audit"
use     = ["npm-readonly"]
[credentials.github]
secret = "env:GITHUB_TOKEN"
hosts  = ["api.github.com", "**.ghe.test"]
bearer = true
env    = "GITHUB_TOKEN"
shape  = "ghp_{36}"
[credentials.b]
secret = "file:/etc/b"
hosts  = ["x.test"]
basic  = { username = "u" }
[credentials.h]
secret = "exec:/bin/true"
hosts  = ["x.test"]
header = { name = "X-Api-Key", value = "k {secret}" }
[credentials.q]
secret = "env:Q"
hosts  = ["x.test"]
query  = { name = "key" }
on_canary = "deny"
[credentials.p]
secret = "env:P"
hosts  = ["x.test"]
env    = "P"
placeholder = ["header", "body"]
[[rule]]
name     = "read issues"
action   = "allow"
hosts    = ["api.github.com", "a.b.ghe.test"]
ports    = [443, 8443]
protocol = "https"
methods  = ["GET", "HEAD"]
paths    = ["/repos/acme/**"]
credentials = ["github"]
limits   = { requests_per_minute = 60, upload = "10MiB", download = 1000 }
reason   = "triage only"
[[rule]]
name = "x"
action = "allow"
hosts = ["x.test"]
credentials = ["b", "h", "q", "p"]
[[rule]]
name = "plain"
action = "allow"
hosts = ["x.test"]
protocol = "http"
[[rule]]
name = "db"
action = "allow"
hosts = ["10.0.0.0/8"]
protocol = "tcp"
ports = [5432]
[[rule]]
name = "ask"
action = "ask"
hosts = ["y.test"]
[upstream]
resolve = { "api.test" = "127.0.0.1:8443", "b.test" = "::1" }
private = ["10.0.0.0/8"]
ca = ["ca.pem"]
connect_timeout = "5s"
answer_timeout = "1h30m"
[http]
head = "16KiB"
headers = 64
head_timeout = "10s"
body_timeout = "5s"
body_rate = 100
read_timeout = "1m"
streams = 10
resets = 5
idle_timeout = "2m"
[dns]
unmatched = "nxdomain"
[local]
connect = [5432, 6379]
listen = [3000]
unix = ["/run/postgresql/**"]
[session]
"#,
    );
    let policy = &p.policy;
    assert_eq!((&*policy.name, policy.mode), ("github-triage", Mode::Audit));
    let seconds = Duration::from_secs;
    let http = HttpSettings {
        head: Some(16 << 10),
        headers: Some(64),
        head_timeout: Some(seconds(10)),
        body_timeout: Some(seconds(5)),
        body_rate: Some(100),
        read_timeout: Some(seconds(60)),
        streams: Some(10),
        resets: Some(5),
        idle_timeout: Some(seconds(120)),
    };
    assert_eq!(policy.http, http);
    assert_eq!(policy.rules.iter().map(|r| &*r.name).next_back(), Some("npm-readonly: packages"));
    let rule = &policy.rules[0];
    assert_eq!(rule.limits.upload, Some(10 << 20));
    assert_eq!(rule.ports, Some(vec![443, 8443]));
    assert_eq!(policy.rules[1].protocol, Some(Protocol::Https));
    assert_eq!(policy.rules[1].ports, Some(vec![443]));
    assert_eq!(policy.rules[2].ports, Some(vec![80]));
    assert_eq!((policy.rules[4].protocol, &policy.rules[4].ports), (None, &None));
    let kind = |name: &str| policy.credential(name).unwrap().kind.clone();
    assert_eq!(kind("github"), CredentialKind::Bearer);
    assert_eq!(
        kind("h"),
        CredentialKind::Header { name: "x-api-key".into(), value: "k {secret}".into() }
    );
    assert!(matches!(kind("p"), CredentialKind::Placeholder(p) if p.header && p.body && !p.path));
    assert_eq!(policy.upstream.resolve.len(), 2);
    let times = UpstreamTimes {
        connect: Some(Duration::from_secs(5)),
        answer: Some(Duration::from_secs(5400)),
        ..UpstreamTimes::default()
    };
    assert_eq!(policy.upstream.times, times);
    assert_eq!(policy.local.unix, ["/run/postgresql/**"]);
    assert_eq!((&*policy.local.connect, &*policy.local.listen), (&[5432, 6379][..], &[3000][..]));
    assert_eq!(p.ca[0].path, "ca.pem");
    assert_eq!((p.ca[0].at.line, p.ca[0].at.column), (64, 7));
    assert_eq!(p.lints, []);
}

#[test]
fn all_errors_come_at_once_in_file_order() {
    let found = errors(
        "version = 2\nmdoe = \"audit\"\n[[rule]]\nname = \"r\"\naction = \"alow\"\nhosts = [\"*\"]\nports = []\n",
    );
    let places: Vec<&str> = found.iter().map(|e| e.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["p.toml:1:11", "p.toml:2:1", "p.toml:5:10", "p.toml:6:10", "p.toml:7:9"]);
}

#[test]
fn one_mistake_does_not_breed_others() {
    let broken = CREDENTIAL.replace("env:T", "nonsense");
    assert_eq!(errors(&format!("{HEAD}{broken}{RULE}credentials = [\"c\"]\n")).len(), 1);
    assert_eq!(errors(&format!("{HEAD}name = \n{RULE}credentials = [\"c\"]\n")).len(), 1);
}

#[test]
fn a_secret_written_into_a_policy_is_not_repeated() {
    for secret in ["ghp_canary", "evn:canary", "Bearer: canary", "file:canary"] {
        let text = format!("{HEAD}{}", CREDENTIAL.replace("env:T", secret));
        let found = errors(&text);
        assert!(found[0].contains("reference to a secret"), "{found:?}");
        assert!(!found.join("\n").contains("canary"), "{found:?}");
    }
}

#[test]
fn lints() {
    let rule = |name: &str, action: &str, keys: &str| {
        format!("[[rule]]\nname = \"{name}\"\naction = \"{action}\"\n{keys}\n")
    };
    for (text, want) in [
        (CREDENTIAL.to_owned(), Some("no rule uses the credential `c`")),
        (
            rule("r", "allow", "hosts = [\"*.com\"]"),
            Some("`*.com` covers names that anyone can register"),
        ),
        (rule("r", "allow", "hosts = [\"**.github.io\"]"), Some("anyone can register")),
        (rule("r", "deny", "hosts = [\"**.github.io\"]"), None),
        (rule("r", "allow", "hosts = [\"*.github.com\"]"), None),
        (rule("r", "allow", "hosts = [\"0.0.0.0/0\"]"), Some("every address")),
        (rule("r", "allow", "hosts = [\"169.254.169.254\"]"), Some("metadata")),
        (
            rule("r", "allow", "hosts = [\"x.test\"]\nmethods = [\"GTE\"]"),
            Some("did you mean `GET`?"),
        ),
        (
            rule("a", "allow", "hosts = [\"a.x.test\"]")
                + &rule("d", "deny", "hosts = [\"**.x.test\"]"),
            Some("rule `a` can never decide"),
        ),
        (
            rule("a", "allow", "hosts = [\"a.x.test\"]")
                + &rule("d", "deny", "hosts = [\"a.x.test\"]\nmethods = [\"GET\"]"),
            None,
        ),
        (
            rule("a", "allow", "hosts = [\"x.test\"]\nmethods = [\"GET\"]")
                + &rule(
                    "d",
                    "deny",
                    "hosts = [\"x.test\"]\nprotocol = \"https\"\nmethods = [\"GET\", \"HEAD\"]",
                ),
            Some("rule `a` can never decide"),
        ),
        (
            rule("a", "allow", "hosts = [\"x.test\"]")
                + &rule("b", "allow", "hosts = [\"x.test\"]\npaths = [\"/a\"]"),
            Some("rule `b` can never decide"),
        ),
        (
            rule("a", "allow", "hosts = [\"x.test\"]\npaths = [\"/a\"]")
                + &rule("b", "allow", "hosts = [\"x.test\"]"),
            None,
        ),
        ("[local]\nunix = [\"/var/run/docker.sock\"]".into(), Some("acts on behalf")),
        ("[local]\nunix = [\"/run/postgresql/**\"]".into(), None),
    ] {
        let lints = parsed(&format!("{HEAD}{text}")).lints;
        match want {
            Some(want) => {
                assert!(lints.iter().any(|l| l.to_string().contains(want)), "{text}\n{lints:?}");
            }
            None => assert_eq!(lints, [], "{text}"),
        }
    }
}

#[test]
fn a_used_file_says_only_what_can_be_shared() {
    struct Fixed(&'static str);
    impl Loader for Fixed {
        fn load(&self, _: &str, name: &str) -> Result<UsedFile, String> {
            let text = self.0.to_owned();
            Ok(UsedFile { id: name.into(), file: name.into(), prefix: "u".into(), text })
        }
    }
    let text = "version = 1\nuse = [\"u\"]\n";
    assert!(parse("p", text, &Fixed("version = 1\n")).is_ok(), "control");
    for key in ["mode = \"audit\"", "[upstream]", "[dns]", "[local]", "[session]"] {
        let used: &'static str = Box::leak(format!("version = 1\n{key}\n").into_boxed_str());
        let found = parse("p", text, &Fixed(used)).unwrap_err();
        assert!(found[0].message.contains("belongs in the policy itself"), "{found:?}");
    }
    let circle = parse("p", text, &Fixed("version = 1\nuse = [\"u\"]\n")).unwrap_err();
    assert!(circle[0].message.contains("in a circle"), "{circle:?}");
}

proptest! {
    #[test]
    fn parse_never_panics(text in "\\PC{0,200}") {
        let _ = parse("p", &text, &PresetsOnly);
    }

    #[test]
    fn parse_never_panics_on_nearly_right_text(
        lines in proptest::collection::vec("(version|name|mode|use|rule|hosts|ports|shape|secret|bearer) = (1|\"[a-z*./:{}0-9]{0,8}\"|\\[\\]|\\[1\\]|\\[\"a\"\\]|\\{\\}|true|1979-05-27)|\\[\\[rule\\]\\]|\\[credentials\\.c\\]|\\[(dns|local|upstream|session)\\]", 0..12)
    ) {
        let _ = parse("p", &lines.join("\n"), &PresetsOnly);
    }
}

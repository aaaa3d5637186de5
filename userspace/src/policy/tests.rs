//! Pure: tables and properties of the decision.

use std::sync::Arc;

use super::parse::{PresetsOnly, parse};
use super::*;
use crate::outcome::Reason;

fn policy(text: &str) -> Policy {
    match parse("p.toml", &format!("version = 1\n{text}"), &PresetsOnly) {
        Ok(p) => p.policy,
        Err(e) => panic!("{e:#?}"),
    }
}

/// `[[rule]]` in one line.
fn rule(name: &str, action: &str, host: &str, more: &str) -> String {
    let more = more.replace("; ", "\n");
    format!("[[rule]]\nname = \"{name}\"\naction = \"{action}\"\nhosts = [\"{host}\"]\n{more}\n")
}

/// `connect`, `tls`, `plain`, or `METHOD PATH` over TLS, or `http METHOD PATH`.
fn ask(chain: &[&Policy], host: &str, port: u16, layer: &str) -> Verdict {
    let host = Host::parse(host).unwrap();
    let words: Vec<&str> = layer.split(' ').collect();
    let (layer, request) = match words[..] {
        ["connect"] => (Layer::Connect, None),
        ["tls"] => (Layer::Opened { tls: true }, None),
        ["plain"] => (Layer::Opened { tls: false }, None),
        ["http", method, path] => {
            (Layer::Request { tls: false }, Some(RequestFacts { method, path }))
        }
        [method, path] => (Layer::Request { tls: true }, Some(RequestFacts { method, path })),
        _ => panic!("{layer}"),
    };
    decide(chain, &Facts { layer, host: &host, port, request })
}

fn brief(v: &Verdict) -> String {
    let by = |rule: Option<&Arc<str>>| rule.map_or("-".into(), |r| r.to_string());
    match v {
        Verdict::Inspect => "inspect".into(),
        Verdict::Deny(d) => format!("{} {}", d.reason, by(d.rule.as_ref())),
        Verdict::Ask(d) => format!("ask {}", by(d.rule.as_ref())),
        Verdict::Allow(p) => match p.would_deny() {
            Some(d) => format!("would_deny {}", d.reason),
            None => format!("{} {}", p.protocol().as_str(), by(p.rule())),
        },
    }
}

fn table(p: &Policy, cases: &[(&str, u16, &str, &str)]) {
    for (host, port, layer, want) in cases {
        assert_eq!(brief(&ask(&[p], host, *port, layer)), *want, "{host}:{port} {layer}");
    }
}

#[test]
fn each_protocol_at_each_layer() {
    let p = policy(
        &[
            rule("web", "allow", "web.test", "methods = [\"GET\"]; paths = [\"/a/**\"]"),
            rule("plain", "allow", "plain.test", "protocol = \"http\""),
            rule("pass", "allow", "pass.test", "protocol = \"tls\""),
            rule("db", "allow", "db.test", "protocol = \"tcp\"; ports = [5432]"),
            rule("addr", "allow", "192.0.2.0/24", "protocol = \"tcp\"; ports = [22]"),
        ]
        .concat(),
    );
    table(
        &p,
        &[
            ("web.test", 443, "connect", "inspect"),
            ("web.test", 443, "tls", "inspect"),
            ("web.test", 443, "plain", "no_rule -"),
            ("web.test", 443, "GET /a/b", "https web"),
            ("web.test", 443, "POST /a/b", "no_rule -"),
            ("web.test", 443, "get /a/b", "no_rule -"),
            ("web.test", 443, "GET /b", "no_rule -"),
            ("web.test", 443, "GET /a/../b", "no_rule -"),
            ("web.test", 443, "http GET /a/b", "no_rule -"),
            ("web.test", 80, "connect", "no_rule -"),
            ("web.test", 8443, "connect", "no_rule -"),
            ("plain.test", 80, "connect", "inspect"),
            ("plain.test", 80, "plain", "inspect"),
            ("plain.test", 80, "tls", "no_rule -"),
            ("plain.test", 80, "http GET /a/../b", "http plain"),
            ("plain.test", 80, "http get /", "no_rule -"),
            ("plain.test", 80, "GET /", "no_rule -"),
            ("plain.test", 80, "http TRACE /", "method_refused -"),
            ("plain.test", 80, "http connect x:1", "method_refused -"),
            ("pass.test", 443, "connect", "inspect"),
            ("pass.test", 443, "tls", "tls pass"),
            ("pass.test", 443, "plain", "no_rule -"),
            ("db.test", 5432, "connect", "tcp db"),
            ("db.test", 5433, "connect", "no_rule -"),
            // A literal address: names may still come through SNI or Host, never for tcp.
            ("198.51.100.1", 443, "connect", "inspect"),
            ("198.51.100.1", 443, "tls", "no_rule -"),
            ("198.51.100.1", 80, "connect", "inspect"),
            ("198.51.100.1", 80, "plain", "inspect"),
            ("198.51.100.1", 80, "http GET /", "no_rule -"),
            ("198.51.100.1", 5432, "connect", "no_rule -"),
            ("192.0.2.7", 22, "connect", "tcp addr"),
            ("::ffff:192.0.2.7", 22, "connect", "tcp addr"),
            ("192.0.3.7", 22, "connect", "no_rule -"),
            ("other.test", 443, "connect", "no_rule -"),
        ],
    );
}

#[test]
fn file_order_among_allows_of_different_protocols() {
    let https = rule("web", "allow", "x.test", "paths = [\"/a\"]");
    let tcp = rule("raw", "allow", "x.test", "protocol = \"tcp\"; ports = [443]");
    table(&policy(&(tcp.clone() + &https)), &[("x.test", 443, "connect", "tcp raw")]);
    table(
        &policy(&(https + &tcp)),
        &[
            ("x.test", 443, "connect", "inspect"),
            ("x.test", 443, "tls", "inspect"),
            ("x.test", 443, "plain", "tcp raw"),
            ("x.test", 443, "GET /a", "https web"),
            // What a tcp rule lets pass unopened it lets pass opened.
            ("x.test", 443, "GET /b", "https raw"),
        ],
    );
}

#[test]
fn deny_wins_at_the_earliest_layer_that_can_tell() {
    let allow = rule("a", "allow", "**.test", "")
        + &rule("h", "allow", "**.test", "protocol = \"http\"")
        + &rule("t", "allow", "**.test", "protocol = \"tcp\"; ports = [443, 22]");
    let with = |deny: &str| policy(&(allow.clone() + &rule("d", "deny", "x.test", deny)));
    table(
        &with(""),
        &[
            ("x.test", 443, "connect", "denied_by_rule d"),
            ("x.test", 22, "connect", "denied_by_rule d"),
            ("y.test", 443, "GET /", "https a"),
        ],
    );
    table(
        &with("ports = [22]"),
        &[("x.test", 22, "connect", "denied_by_rule d"), ("x.test", 443, "GET /", "https a")],
    );
    table(
        &with("methods = [\"POST\"]"),
        &[
            ("x.test", 443, "connect", "inspect"),
            ("x.test", 443, "tls", "inspect"),
            // Nobody could see the method in a connection that is not opened.
            ("x.test", 22, "connect", "inspect"),
            ("x.test", 22, "plain", "denied_by_rule d"),
            ("y.test", 22, "connect", "tcp t"),
            ("x.test", 443, "GET /", "https a"),
            ("x.test", 443, "POST /", "denied_by_rule d"),
            ("x.test", 443, "post /", "denied_by_rule d"),
            ("x.test", 80, "http POST /", "denied_by_rule d"),
        ],
    );
    table(
        &with("paths = [\"/admin/**\"]"),
        &[
            ("x.test", 443, "GET /admin/x", "denied_by_rule d"),
            ("x.test", 443, "GET /ADMIN/x", "denied_by_rule d"),
            ("x.test", 443, "GET /%61dmin/x", "denied_by_rule d"),
            ("x.test", 443, "GET /a/../admin/x", "denied_by_rule d"),
            ("x.test", 443, "GET /a", "https a"),
            ("y.test", 443, "GET /a/../admin/x", "https a"),
        ],
    );
    table(
        &with("protocol = \"https\""),
        &[
            ("x.test", 443, "connect", "inspect"),
            ("x.test", 443, "tls", "denied_by_rule d"),
            ("x.test", 80, "http GET /", "http h"),
            ("x.test", 22, "plain", "tcp t"),
        ],
    );
    table(
        &with("protocol = \"http\""),
        &[("x.test", 80, "plain", "denied_by_rule d"), ("x.test", 443, "GET /", "https a")],
    );
    table(
        &with("protocol = \"tcp\"; ports = [443]"),
        &[("x.test", 443, "connect", "denied_by_rule d")],
    );
}

#[test]
fn ask_stands_between_deny_and_allow() {
    let p = policy(
        &[
            rule("a", "allow", "x.test", ""),
            rule(
                "q",
                "ask",
                "x.test",
                "methods = [\"POST\"]; paths = [\"/p/**\"]; reason = \"why\"",
            ),
            rule("d", "deny", "x.test", "paths = [\"/p/never\"]"),
            rule("all", "ask", "y.test", ""),
        ]
        .concat(),
    );
    table(
        &p,
        &[
            ("x.test", 443, "connect", "inspect"),
            ("x.test", 443, "GET /p/1", "https a"),
            ("x.test", 443, "POST /p/1", "ask q"),
            ("x.test", 443, "POST /p/never", "denied_by_rule d"),
            // Generously matched: neither allowed nor to be approved.
            ("x.test", 443, "POST /P/1", "denied_by_rule q"),
            ("x.test", 443, "post /p/1", "denied_by_rule q"),
            ("y.test", 9, "connect", "ask all"),
        ],
    );
    let Verdict::Ask(denial) = ask(&[&p], "x.test", 443, "POST /p/1") else { panic!() };
    assert_eq!((denial.reason, denial.message.as_deref()), (Reason::AskUnavailable, Some("why")));
}

const CREDENTIALS: &str = "[credentials.c]\nsecret = \"env:C\"\nhosts = [\"x.test\"]\nbearer = true\n[credentials.w]\nsecret = \"env:W\"\nhosts = [\"**.test\"]\nbearer = true\n";

#[test]
fn a_chain_only_narrows() {
    let wide = policy(&format!(
        "{CREDENTIALS}{}",
        rule(
            "wide",
            "allow",
            "x.test",
            "credentials = [\"c\", \"w\"]; limits = { upload = 10, requests_per_minute = 5 }"
        )
    ));
    let child = policy(&format!(
        "{CREDENTIALS}{}",
        rule(
            "child",
            "allow",
            "x.test",
            "methods = [\"GET\"]; credentials = [\"w\", \"c\"]; limits = { upload = 20, download = 7 }"
        )
    ));
    let poor = policy(&format!(
        "{CREDENTIALS}{}",
        rule("poor", "allow", "x.test", "credentials = [\"w\"]")
    ));
    let raw = policy(&rule("raw", "allow", "x.test", "protocol = \"tcp\"; ports = [443]"));
    let pass = policy(&rule("pass", "allow", "x.test", "protocol = \"tls\""));
    let none = Policy::deny_all("none");
    let names = |chain: &[&Policy]| match ask(chain, "x.test", 443, "GET /") {
        Verdict::Allow(p) => p.credentials().iter().map(ToString::to_string).collect::<Vec<_>>(),
        v => panic!("{v:?}"),
    };
    assert_eq!(names(&[&wide]), ["c", "w"]);
    assert_eq!(names(&[&wide, &child]), ["w", "c"]);
    assert_eq!(names(&[&wide, &poor]), ["w"]);
    assert_eq!(names(&[&poor, &wide]), ["w"]);
    assert_eq!(names(&[&wide, &raw, &child]), Vec::<String>::new());
    let Verdict::Allow(p) = ask(&[&wide, &child], "x.test", 443, "GET /") else { panic!() };
    assert_eq!(
        p.limits(),
        Limits { requests_per_minute: Some(5), upload: Some(10), download: Some(7) }
    );
    assert_eq!(p.rule().map(|r| &**r), Some("child"));
    for (chain, layer, want) in [
        (&[&wide, &child][..], "POST /", "no_rule -"),
        (&[&wide, &none], "connect", "no_rule -"),
        (&[&none, &wide], "connect", "no_rule -"),
        (&[], "connect", "agent_unknown -"),
        (&[], "tls", "agent_unknown -"),
        (&[], "plain", "agent_unknown -"),
        (&[], "GET /", "agent_unknown -"),
        // An opaque ancestor does not forbid what is inside.
        (&[&raw, &child], "connect", "inspect"),
        (&[&raw, &child], "tls", "inspect"),
        (&[&raw, &child], "GET /", "https child"),
        (&[&raw, &child], "POST /", "no_rule -"),
        (&[&pass, &child], "GET /", "https child"),
        (&[&wide, &raw], "connect", "inspect"),
        (&[&wide, &raw], "plain", "no_rule -"),
        (&[&pass, &raw], "tls", "tls raw"),
    ] {
        assert_eq!(brief(&ask(chain, "x.test", 443, layer)), want, "{layer}");
    }
}

#[test]
fn credentials_only_on_https_to_bound_names() {
    let p =
        policy(&format!("{CREDENTIALS}{}", rule("r", "allow", "x.test", "credentials = [\"c\"]")));
    let got = |p: &Policy, host: &str, layer: &str| match ask(&[p], host, 443, layer) {
        Verdict::Allow(permit) => permit.credentials().len(),
        v => panic!("{v:?}"),
    };
    assert_eq!(got(&p, "x.test", "GET /"), 1, "control");
    // Rules as the parser would never make them: the decision does not rely on it.
    let mut odd = p.clone();
    odd.rules[0].hosts =
        vec![HostPattern::parse("**.test").unwrap(), HostPattern::parse("192.0.2.1").unwrap()];
    assert_eq!(got(&odd, "x.test", "GET /"), 1);
    assert_eq!(got(&odd, "y.test", "GET /"), 0, "outside the binding");
    assert_eq!(got(&odd, "192.0.2.1", "GET /"), 0, "an address");
    odd.rules[0].protocol = Some(Protocol::Http);
    assert_eq!(got(&odd, "x.test", "http GET /"), 0, "plain");
    odd.rules[0].protocol = Some(Protocol::Tcp);
    assert_eq!(got(&odd, "x.test", "connect"), 0, "opaque");
}

#[test]
fn audit_mode_passes_what_no_deny_forbids() {
    let text = format!("mode = \"audit\"\n{CREDENTIALS}")
        + &rule("r", "allow", "x.test", "methods = [\"GET\"]; credentials = [\"c\"]")
        + &rule("d", "deny", "bad.test", "")
        + &rule("m", "deny", "x.test", "methods = [\"DELETE\"]")
        + &rule("q", "ask", "q.test", "");
    let p = policy(&text);
    table(
        &p,
        &[
            ("x.test", 443, "GET /", "https r"),
            ("x.test", 443, "POST /", "would_deny no_rule"),
            ("x.test", 443, "DELETE /", "denied_by_rule m"),
            ("x.test", 443, "TRACE /", "method_refused -"),
            ("bad.test", 443, "connect", "denied_by_rule d"),
            ("other.test", 22, "connect", "inspect"),
            ("other.test", 22, "plain", "would_deny no_rule"),
            ("other.test", 443, "tls", "inspect"),
            ("other.test", 6380, "tls", "would_deny no_rule"),
            // A deny rule about requests is kept, whatever the port.
            ("x.test", 6380, "tls", "inspect"),
            ("192.0.2.1", 80, "http GET /", "would_deny no_rule"),
            ("q.test", 443, "GET /", "would_deny ask_unavailable"),
        ],
    );
    let credentials = |layer| match ask(&[&p], "x.test", 443, layer) {
        Verdict::Allow(permit) => permit.credentials().len(),
        v => panic!("{v:?}"),
    };
    assert_eq!((credentials("GET /"), credentials("POST /")), (1, 0));
    // An enforcing ancestor still decides; an enforcing child too.
    let strict = policy(&rule("r", "allow", "x.test", "methods = [\"GET\"]"));
    for chain in [[&p, &strict], [&strict, &p]] {
        assert_eq!(brief(&ask(&chain, "x.test", 443, "POST /")), "no_rule -");
        let Verdict::Allow(permit) = ask(&chain, "x.test", 443, "GET /") else { panic!() };
        assert_eq!(permit.credentials().len(), 0);
    }
}

#[test]
fn names_for_dns() {
    let p = policy(
        &(rule("a", "allow", "*.x.test", "")
            + &rule("q", "ask", "q.test", "")
            + &rule("d", "deny", "d.test", "")),
    );
    let name = |t: &str| HostName::parse(t).unwrap();
    for (host, want) in [("a.x.test", true), ("q.test", true), ("d.test", false), ("x.test", false)]
    {
        assert_eq!(p.could_allow_name(&name(host)), want, "{host}");
    }
    assert!(!p.is_empty_deny_all());
    let deny_only = policy(&rule("d", "deny", "d.test", ""));
    assert!(deny_only.is_empty_deny_all() && Policy::deny_all("x").is_empty_deny_all());
    let audit = Policy { mode: Mode::Audit, ..deny_only };
    assert!(!audit.is_empty_deny_all() && audit.could_allow_name(&name("any.test")));
}

#[test]
fn facts_that_contradict_themselves_are_refused() {
    let p = policy(&rule("t", "allow", "x.test", "protocol = \"tcp\"; ports = [443]"));
    let host = Host::parse("x.test").unwrap();
    let request = Some(RequestFacts { method: "GET", path: "/" });
    for (layer, request) in [
        (Layer::Connect, request),
        (Layer::Opened { tls: true }, request),
        (Layer::Request { tls: true }, None),
    ] {
        let verdict = decide(&[&p], &Facts { layer, host: &host, port: 443, request });
        assert_eq!(brief(&verdict), "malformed_request -");
    }
}

#[test]
fn explanations_name_the_nearest_miss_first() {
    let p = policy(
        &[
            rule("other host", "allow", "y.test", ""),
            rule("other path", "allow", "x.test", "methods = [\"POST\"]; paths = [\"/b\"]"),
            rule("other method", "allow", "x.test", "methods = [\"GET\"]; paths = [\"/a\"]"),
        ]
        .concat(),
    );
    let got = explain(&[&p], Some("POST"), "https://x.test/a").unwrap();
    let order: Vec<&str> = got.considered.iter().map(|c| &*c.rule).collect();
    assert_eq!(order, ["other method", "other path", "other host"]);
    assert_eq!(got.considered[0].why, "method POST is not in GET");
    assert_eq!(got.considered[1].why, "path /a is not in /b");
    assert_eq!(got.considered[1].origin, "p.toml:8");
    assert_eq!((got.decision.as_str(), got.reason), ("deny", Some(Reason::NoRule)));
    let got = explain(&[&p], Some("GET"), "https://x.test/a").unwrap();
    assert!(got.considered[0].decides && got.rule.as_deref() == Some("other method"));
    let json = serde_json::to_value(&got).unwrap();
    assert_eq!(json["request"]["host"], "x.test");
    assert_eq!(json["decision"], "allow");
    let got = explain(&[&p], Some("GET"), "https://x.test/b/../a").unwrap();
    assert!(got.considered[0].why.contains("dot segment"), "{got}");
    assert!(explain(&[&p], None, "tls://x.test").unwrap().message.unwrap().contains("opened"));
}

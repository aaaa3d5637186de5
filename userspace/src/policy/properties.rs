//! Pure: what holds for all policies and facts.

use proptest::prelude::*;

use super::parse::{PresetsOnly, parse};
use super::*;
use crate::outcome::{Decision, Reason};

mod spelling;

/// Shared with the fuzz targets.
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets use more of it, from outside")]
#[path = "../../fuzz/src/naive.rs"]
mod naive;

fn any_rule(action: &'static str) -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "x.test",
        "*.test",
        "**.test",
        "a.x.test",
        "192.0.2.0/24",
        "192.0.2.1",
    ]);
    let protocol = prop::sample::select(vec!["", "https", "http", "tls", "tcp"]);
    let ports = prop::sample::select(vec!["443", "80", "22", "80, 443"]);
    let methods = prop::sample::select(vec!["", "\"GET\"", "\"POST\", \"GET\""]);
    let paths = prop::sample::select(vec!["", "\"/a\"", "\"/a/**\"", "\"/*\", \"/b\""]);
    (host, protocol, ports, methods, paths, any::<u64>()).prop_map(
        move |(h, p, ports, m, paths, id)| {
            let mut out =
                format!("[[rule]]\nname = \"{id}\"\naction = \"{action}\"\nhosts = [\"{h}\"]\n");
            let opaque = matches!(p, "tls" | "tcp");
            if action == "allow" || id % 2 == 0 {
                let p = if p.is_empty() { "https" } else { p };
                out += &format!("protocol = \"{p}\"\nports = [{ports}]\n");
            }
            if !opaque && !m.is_empty() {
                out += &format!("methods = [{m}]\n");
            }
            if !opaque && !paths.is_empty() {
                out += &format!("paths = [{paths}]\n");
            }
            out
        },
    )
}

fn any_policy() -> impl Strategy<Value = String> {
    let rules = prop_oneof![4 => any_rule("allow"), 1 => any_rule("deny"), 1 => any_rule("ask")];
    let mode = prop::sample::select(vec!["enforce", "enforce", "audit"]);
    (mode, prop::collection::vec(rules, 0..5))
        .prop_map(|(mode, rules)| format!("version = 1\nmode = \"{mode}\"\n{}", rules.concat()))
}

fn build(text: &str) -> Policy {
    parse("p", text, &PresetsOnly).unwrap_or_else(|e| panic!("{e:#?}\n{text}")).policy
}

#[derive(Clone, Debug)]
struct OwnedFacts {
    layer: Layer,
    host: Host,
    port: u16,
    method: String,
    path: String,
    contradict: bool,
}

impl OwnedFacts {
    fn decide(&self, chain: &[&Policy]) -> Verdict {
        let request = RequestFacts { method: &self.method, path: &self.path };
        let has = matches!(self.layer, Layer::Request { .. }) != self.contradict;
        decide(
            chain,
            &Facts {
                layer: self.layer,
                host: &self.host,
                port: self.port,
                request: has.then_some(request),
            },
        )
    }
}

fn any_facts() -> impl Strategy<Value = OwnedFacts> {
    let layer = prop::sample::select(vec![
        Layer::Connect,
        Layer::Opened { tls: true },
        Layer::Opened { tls: false },
        Layer::Request { tls: true },
        Layer::Request { tls: false },
    ]);
    let host = prop::sample::select(vec![
        "x.test",
        "a.x.test",
        "y.test",
        "evil.example",
        "192.0.2.1",
        "::1",
    ])
    .prop_map(|h| Host::parse(h).unwrap());
    let port = prop_oneof![4 => prop::sample::select(vec![443_u16, 80, 22]), 1 => any::<u16>()];
    let method = "GET|POST|get|TRACE|\\PC{0,6}";
    let path = "/a|/a/b|/b|/A|/%61|/a/../b|/x|\\PC{0,12}";
    (layer, host, port, method, path, prop::bool::weighted(0.05)).prop_map(
        |(layer, host, port, method, path, contradict)| OwnedFacts {
            layer,
            host,
            port,
            method,
            path,
            contradict,
        },
    )
}

/// How much a verdict opens: nothing, perhaps later, now.
fn openness(v: &Verdict) -> u8 {
    match v {
        Verdict::Deny(_) | Verdict::Ask(_) => 0,
        Verdict::Inspect => 1,
        Verdict::Allow(_) => 2,
    }
}

/// Whether it ends here.
fn closed(v: &Verdict) -> bool {
    openness(v) == 0
}

proptest! {
    #[test]
    fn decide_is_total_and_says_the_same_twice(p in any_policy(), f in any_facts()) {
        let p = build(&p);
        prop_assert_eq!(f.decide(&[&p]), f.decide(&[&p]));
    }

    #[test]
    fn a_deny_rule_never_allows_more(p in any_policy(), deny in any_rule("deny"), f in any_facts()) {
        let without = build(&p);
        let with = build(&format!("{p}{deny}"));
        let (before, after) = (f.decide(&[&without]), f.decide(&[&with]));
        // Audit mode passes only where nothing is pending, so it may look further instead.
        prop_assert!(openness(&after) <= openness(&before), "{:?} became {:?}", before, after);
    }

    #[test]
    fn a_conjunction_never_allows_more(a in any_policy(), b in any_policy(), f in any_facts()) {
        let (a, b) = (build(&a), build(&b));
        let alone = openness(&f.decide(&[&a])).min(openness(&f.decide(&[&b])));
        prop_assert!(openness(&f.decide(&[&a, &b])) <= alone);
        prop_assert!(openness(&f.decide(&[&b, &a])) <= alone);
    }

    #[test]
    fn an_allowed_request_was_not_refused_before(p in any_policy(), f in any_facts()) {
        let p = build(&p);
        if let (Layer::Request { tls }, Verdict::Allow(_), Host::Name(_)) = (f.layer, f.decide(&[&p]), &f.host) {
            for layer in [Layer::Connect, Layer::Opened { tls }] {
                let earlier = OwnedFacts { layer, ..f.clone() }.decide(&[&p]);
                prop_assert!(!matches!(earlier, Verdict::Ask(_)), "{:?}", earlier);
            }
        }
    }

    #[test]
    fn an_empty_policy_allows_nothing(f in any_facts()) {
        prop_assert_eq!(openness(&f.decide(&[&Policy::deny_all("none")])), 0);
        prop_assert_eq!(openness(&f.decide(&[])), 0);
    }

    #[test]
    fn explain_agrees_with_decide(p in any_policy(), f in any_facts()) {
        let p = build(&p);
        let Layer::Request { tls } = f.layer else { return Ok(()) };
        if !f.path.starts_with('/') || f.path.contains(['?', '#']) || f.contradict || f.port == 0 {
            return Ok(());
        }
        let host = match &f.host {
            Host::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
            host => host.to_string(),
        };
        let url = format!("{}://{host}:{}{}", if tls { "https" } else { "http" }, f.port, f.path);
        let told = explain(&[&p], Some(&f.method), &url).unwrap();
        // The first layer at which something is decided decides.
        let layers = [Layer::Connect, Layer::Opened { tls }, f.layer];
        let verdicts = layers.map(|layer| OwnedFacts { layer, ..f.clone() }.decide(&[&p]));
        let decided = verdicts.into_iter().find(|v| *v != Verdict::Inspect);
        let (decision, rule, reason) = match &decided {
            Some(Verdict::Allow(permit)) => match permit.would_deny() {
                Some(denial) => (Decision::WouldDeny, permit.rule(), Some(denial.reason)),
                None => (Decision::Allow, permit.rule(), None),
            },
            Some(Verdict::Ask(d)) => (Decision::Ask, d.rule.as_ref(), Some(d.reason)),
            Some(Verdict::Deny(d)) => (Decision::Deny, d.rule.as_ref(), Some(d.reason)),
            Some(Verdict::Inspect) | None => (Decision::Deny, None, Some(Reason::NoRule)),
        };
        prop_assert_eq!((told.decision, told.rule.as_ref(), told.reason), (decision, rule, reason));
        // What it says of each rule is about the rules that there are, and one at most decides.
        prop_assert_eq!(told.considered.len(), p.rules.len());
        let deciding = told.considered.iter().filter(|c| c.decides).count();
        prop_assert_eq!(deciding, usize::from(rule.is_some()));
    }

    #[test]
    fn a_chain_passes_only_what_each_member_passes(
        all in prop::collection::vec(any_policy(), 1..5),
        f in any_facts(),
        turn in 0_usize..4,
    ) {
        let all: Vec<Policy> = all.iter().map(|p| build(p)).collect();
        let mut chain: Vec<&Policy> = all.iter().collect();
        let together = f.decide(&chain);
        for alone in &all {
            prop_assert!(openness(&together) <= openness(&f.decide(&[alone])), "{:?}", together);
        }
        // Whoever stands where: it is as open, though another may be named for it.
        let turn = turn % chain.len();
        chain.rotate_left(turn);
        prop_assert_eq!(openness(&f.decide(&chain)), openness(&together));
        // One that refuses everything closes it, wherever it stands.
        let none = Policy::deny_all("none");
        chain.insert(turn, &none);
        prop_assert_eq!(openness(&f.decide(&chain)), 0);
    }

    #[test]
    fn the_order_of_actions_says_nothing(p in any_policy(), f in any_facts(), order in 0_usize..6) {
        let p = build(&p);
        let ranks = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][order];
        let mut sorted = p.clone();
        sorted.rules.sort_by_key(|r| ranks[Action::ALL.iter().position(|a| *a == r.action).unwrap()]);
        // Among rules of one action the order stays, and with it the rule that is named.
        prop_assert_eq!(f.decide(&[&sorted]), f.decide(&[&p]));
        sorted.rules.reverse();
        prop_assert_eq!(closed(&f.decide(&[&sorted])), closed(&f.decide(&[&p])));
    }
}

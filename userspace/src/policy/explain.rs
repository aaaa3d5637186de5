//! Pure: why a policy decides as it does, rule by rule.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::standing::{Miss, Standing};
use super::{Action, Facts, Layer, Limits, Policy, Rule, Target, TargetError, Verdict, decide};
use crate::outcome::{Decision, Reason, Stage};

/// A decision with its grounds.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub request: Target,
    /// Allow, deny, ask, or would_deny (audit mode).
    pub decision: Decision,
    /// Where it was decided.
    pub layer: Stage,
    pub reason: Option<Reason>,
    pub rule: Option<Arc<str>>,
    pub message: Option<String>,
    pub credentials: Vec<Arc<str>>,
    pub limits: Limits,
    /// Every rule of every policy; the deciding one first, then the nearest misses.
    pub considered: Vec<Considered>,
}

/// One rule and how it stands to the request.
#[derive(Clone, Debug, Serialize)]
pub struct Considered {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub action: Action,
    /// `file:line`, or empty for a rule made from a flag.
    pub origin: String,
    pub matches: bool,
    pub decides: bool,
    pub why: String,
}

/// Decides for `method` and `url`, layer by layer as a connection would be decided, and says why.
///
/// # Errors
/// When the URL cannot be read.
pub fn explain(
    chain: &[&Policy],
    method: Option<&str>,
    url: &str,
) -> Result<Explanation, TargetError> {
    Target::parse(method, url).map(|target| explain_target(chain, &target))
}

/// As [`explain`], for a target that has been read.
pub(super) fn explain_target(chain: &[&Policy], target: &Target) -> Explanation {
    let layers = target.layers();
    let mut outcome = None;
    for facts in &layers {
        match decide(chain, facts) {
            Verdict::Inspect => {}
            verdict => {
                outcome = Some((facts.layer, verdict));
                break;
            }
        }
    }
    let (layer, verdict) = outcome.map_or((None, Verdict::Inspect), |(l, v)| (Some(l), v));
    let mut out = Explanation {
        decision: Decision::Deny,
        layer: layer.map_or(Stage::Tls, stage),
        reason: None,
        rule: None,
        message: None,
        credentials: Vec::new(),
        limits: Limits::default(),
        considered: Vec::new(),
        request: target.clone(),
    };
    match verdict {
        Verdict::Allow(permit) => {
            let would = permit.would_deny();
            out.decision = if would.is_some() { Decision::WouldDeny } else { Decision::Allow };
            out.reason = would.map(|d| d.reason);
            out.rule = permit.rule().cloned();
            out.credentials = permit.credentials().to_vec();
            out.limits = permit.limits();
        }
        Verdict::Deny(d) | Verdict::Ask(d) => {
            let ask = d.reason == Reason::AskUnavailable;
            out.decision = if ask { Decision::Ask } else { Decision::Deny };
            out.reason = Some(d.reason);
            out.rule = d.rule;
            out.message = d.message;
        }
        Verdict::Inspect => {
            out.reason = Some(Reason::NoRule);
            out.message = Some(
                "the connection would be opened and each request in it decided by itself: explain \
                 it with a method and https:// or http://"
                    .into(),
            );
        }
    }
    if let Some(facts) = layers.last() {
        out.considered = considered(chain, facts, out.rule.as_deref());
    }
    out
}

fn stage(layer: Layer) -> Stage {
    match layer {
        Layer::Connect => Stage::Connect,
        Layer::Opened { .. } => Stage::Tls,
        Layer::Request { .. } => Stage::Request,
    }
}

fn considered(chain: &[&Policy], facts: &Facts<'_>, decider: Option<&str>) -> Vec<Considered> {
    let mut ranked: Vec<(u8, Considered)> = Vec::new();
    for policy in chain {
        for rule in &policy.rules {
            let standing = rule.standing(facts);
            let decides = decider == Some(&*rule.name);
            let matches = matches!(standing, Standing::Yes | Standing::Unclear);
            let entry = Considered {
                policy: Arc::clone(&policy.name),
                rule: Arc::clone(&rule.name),
                action: rule.action,
                origin: rule.origin.clone(),
                matches,
                decides,
                why: why(rule, standing, facts, decides),
            };
            let rank = if decides { 0 } else { distance(rule, standing, facts) };
            ranked.push((rank, entry));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, c)| c).collect()
}

/// How far a rule is from deciding; 0 is the deciding rule. Deny and ask rules that do not match
/// come last, since changing them would not help.
fn distance(rule: &Rule, standing: Standing, facts: &Facts<'_>) -> u8 {
    let miss = match standing {
        Standing::Yes | Standing::Unclear => return 1,
        Standing::Pending => return 2,
        Standing::No(miss) => miss,
    };
    let only_method = || {
        let path = facts.request.map_or("", |r| r.path);
        rule.paths.as_ref().is_none_or(|paths| paths.iter().any(|p| p.matches(path)))
    };
    let near = match miss {
        Miss::Method if only_method() => 3,
        Miss::AmbiguousPath(_) => 4,
        Miss::Path => 5,
        Miss::Method => 6,
        Miss::Protocol => 7,
        Miss::Port => 8,
        Miss::Host => 9,
    };
    if rule.action == Action::Allow { near } else { near + 10 }
}

fn why(rule: &Rule, standing: Standing, facts: &Facts<'_>, decides: bool) -> String {
    let miss = match standing {
        Standing::Yes if decides => return "matches and decides".into(),
        Standing::Yes => return "matches, but another rule decides first".into(),
        Standing::Unclear => return "matches in one of the ways the request can be read".into(),
        Standing::Pending if decides => {
            return "cannot be excluded on an unopened connection".into();
        }
        Standing::Pending => return "depends on the requests inside the connection".into(),
        Standing::No(miss) => miss,
    };
    let (method, path) = facts.request.map_or(("", ""), |r| (r.method, r.path));
    match miss {
        Miss::Host => format!("host {} is not in {}", facts.host, list(&rule.hosts)),
        Miss::Port => match &rule.ports {
            Some(ports) => format!("port {} is not in {}", facts.port, list(ports)),
            None => format!("port {}", facts.port),
        },
        Miss::Protocol => match rule.protocol {
            Some(p) => format!("the rule is for {}", p.as_str()),
            None => "the rule has no protocol".into(),
        },
        Miss::Method => match &rule.methods {
            Some(set) => format!("method {method} is not in {set}"),
            None => format!("method {method} is not spelt as methods are"),
        },
        Miss::Path => {
            let paths = rule.paths.as_deref().unwrap_or_default();
            format!("path {} is not in {}", path.escape_debug(), list(paths))
        }
        Miss::AmbiguousPath(how) => {
            format!("the path {how}, so servers disagree about it and no rule with paths allows it")
        }
    }
}

/// How many patterns a sentence names.
const LONGEST_LIST: usize = 4;

fn list<T: fmt::Display>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(LONGEST_LIST).map(ToString::to_string).collect();
    match items.len().saturating_sub(LONGEST_LIST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// For a person: the decision, then rule by rule.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.decision.as_str().to_uppercase())?;
        match &self.rule {
            Some(rule) => write!(f, " by rule `{rule}`")?,
            None if self.decision == Decision::Deny => write!(f, ": no rule decides")?,
            None => {}
        }
        writeln!(f, " (at {})", self.layer)?;
        if let Some(reason) = self.reason {
            writeln!(f, "  reason       {reason}: {}", reason.meaning())?;
        }
        if let Some(message) = &self.message {
            writeln!(f, "  says         {message}")?;
        }
        if !self.credentials.is_empty() {
            writeln!(f, "  credentials  {}", self.credentials.join(", "))?;
        }
        if !self.considered.is_empty() {
            writeln!(f, "rules, nearest first:")?;
        }
        for c in &self.considered {
            let mark = if c.decides { '>' } else { ' ' };
            write!(f, "{mark} {:5} `{}`", c.action.as_str(), c.rule)?;
            if !c.origin.is_empty() {
                write!(f, " ({})", c.origin)?;
            }
            writeln!(f, ": {}", c.why)?;
        }
        Ok(())
    }
}

//! Pure: the decision. A [`Permit`] can only be made here, and `forward::dial` needs one:
//! forwarding without a decision does not compile.
//!
//! Within one policy a matching deny rule wins, then ask, then the first allow rule in the file;
//! no match is a refusal. A rule that only a later layer can decide leads to
//! [`Verdict::Inspect`]. A connection that would pass unopened (`tcp`, `tls`) does not pass while
//! a deny or ask rule is pending on it, since nobody could then see whether that rule matches.
//! Across a chain each policy must allow.

use std::sync::Arc;

use super::matcher::is_tunnel;
use super::standing::Standing;
use super::{Action, Facts, Host, Layer, Limits, Mode, Policy, Protocol, Rule};
use crate::outcome::Reason;

/// The outcome of a decision at one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Deny(Denial),
    /// A person must be asked; until then it is a refusal.
    Ask(Denial),
    Allow(Permit),
    /// Some rule could still allow this: read the next layer and decide again.
    Inspect,
}

/// Why not, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub reason: Reason,
    pub rule: Option<Arc<str>>,
    /// The `reason = "…"` of the rule, shown to the agent.
    pub message: Option<String>,
}

impl Denial {
    /// A refusal that no rule speaks for.
    pub fn of(reason: Reason) -> Self {
        Self { reason, rule: None, message: None }
    }

    fn by(reason: Reason, rule: &Rule) -> Self {
        Self { reason, rule: Some(Arc::clone(&rule.name)), message: rule.reason.clone() }
    }

    fn saying(reason: Reason, rule: &Rule, message: &str) -> Self {
        Self { reason, rule: Some(Arc::clone(&rule.name)), message: Some(message.into()) }
    }
}

/// Proof that policy allowed exactly this destination. Fields are private to `policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    host: Host,
    port: u16,
    protocol: Protocol,
    rule: Option<Arc<str>>,
    credentials: Vec<Arc<str>>,
    limits: Limits,
    would_deny: Option<Denial>,
}

impl Permit {
    /// What to dial: by this name, or this address where no name is known.
    pub fn host(&self) -> &Host {
        &self.host
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    /// How the connection is spoken: at `Connect` tcp, at `Opened` tls or tcp (to be passed
    /// through), at `Request` https or http.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
    /// The innermost policy's deciding rule; `None` only where audit mode let it pass.
    pub fn rule(&self) -> Option<&Arc<str>> {
        self.rule.as_ref()
    }
    /// Credential names granted by every level of the chain, all bound to this host.
    pub fn credentials(&self) -> &[Arc<str>] {
        &self.credentials
    }
    /// The strictest limits of the chain.
    pub fn limits(&self) -> Limits {
        self.limits
    }
    /// Audit mode: it would have been refused for this reason. No credentials then.
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_ref()
    }
}

/// Decides for a chain of policies, outermost ancestor first: each must allow, and a credential
/// must be granted at each level. An empty chain is a refusal.
pub fn decide(chain: &[&Policy], facts: &Facts<'_>) -> Verdict {
    if let Some(reason) = inadmissible(chain, facts) {
        return Verdict::Deny(Denial::of(reason));
    }
    let mut passes = Vec::with_capacity(chain.len());
    let (mut ask, mut inspect) = (None, false);
    for policy in chain {
        match decide_one(policy, facts) {
            One::Deny(denial) => return Verdict::Deny(denial),
            One::Ask(denial) => ask = ask.or(Some(denial)),
            One::Inspect => inspect = true,
            One::Pass(pass) => passes.push((*policy, pass)),
        }
    }
    if let Some(denial) = ask {
        Verdict::Ask(denial)
    } else if inspect {
        Verdict::Inspect
    } else {
        Verdict::Allow(permit(&passes, facts))
    }
}

/// What no policy can allow.
fn inadmissible(chain: &[&Policy], facts: &Facts<'_>) -> Option<Reason> {
    if chain.is_empty() {
        return Some(Reason::AgentUnknown);
    }
    match (facts.layer, facts.request) {
        (Layer::Request { .. }, Some(r)) => is_tunnel(r.method).then_some(Reason::MethodRefused),
        (Layer::Request { .. }, None) | (Layer::Connect | Layer::Opened { .. }, Some(_)) => {
            Some(Reason::MalformedRequest)
        }
        (Layer::Connect | Layer::Opened { .. }, None) => None,
    }
}

/// The decision of one policy.
enum One<'p> {
    Deny(Denial),
    Ask(Denial),
    Inspect,
    Pass(Pass<'p>),
}

enum Pass<'p> {
    Rule(&'p Rule),
    /// Audit mode.
    Despite(Denial),
}

fn decide_one<'p>(policy: &'p Policy, facts: &Facts<'_>) -> One<'p> {
    let refusal = match barriers(policy, facts) {
        Barrier::Deny(denial) => return One::Deny(denial),
        Barrier::Ask { denial, pending } => Refusal { denial, pending, ask: true },
        Barrier::None { pending } => match first_allow(policy, facts, pending) {
            Ok(one) => return one,
            Err(denial) => Refusal { denial, pending: pending.is_some(), ask: false },
        },
    };
    match (policy.mode, refusal.ask) {
        (Mode::Audit, _) => pass_in_audit(policy, facts, refusal),
        (Mode::Enforce, true) => One::Ask(refusal.denial),
        (Mode::Enforce, false) => One::Deny(refusal.denial),
    }
}

/// What enforce mode would answer, short of a deny rule that matches.
struct Refusal {
    denial: Denial,
    /// A deny or ask rule could still match at a later layer.
    pending: bool,
    ask: bool,
}

/// What the deny and ask rules say.
enum Barrier<'p> {
    Deny(Denial),
    Ask { denial: Denial, pending: bool },
    None { pending: Option<&'p Rule> },
}

fn barriers<'p>(policy: &'p Policy, facts: &Facts<'_>) -> Barrier<'p> {
    let mut pending = None;
    for rule in policy.rules.iter().filter(|r| r.action == Action::Deny) {
        match rule.standing(facts) {
            Standing::Yes | Standing::Unclear => {
                return Barrier::Deny(Denial::by(Reason::DeniedByRule, rule));
            }
            Standing::Pending => pending = pending.or(Some(rule)),
            Standing::No(_) => {}
        }
    }
    let mut ask = None;
    for rule in policy.rules.iter().filter(|r| r.action == Action::Ask) {
        match rule.standing(facts) {
            Standing::Unclear => {
                let why = "the request can be read in more than one way, so nobody can approve it";
                return Barrier::Deny(Denial::saying(Reason::DeniedByRule, rule, why));
            }
            Standing::Yes => ask = ask.or(Some(Denial::by(Reason::AskUnavailable, rule))),
            Standing::Pending => pending = pending.or(Some(rule)),
            Standing::No(_) => {}
        }
    }
    match ask {
        Some(denial) => Barrier::Ask { denial, pending: pending.is_some() },
        None => Barrier::None { pending },
    }
}

fn first_allow<'p>(
    policy: &'p Policy,
    facts: &Facts<'_>,
    pending: Option<&Rule>,
) -> Result<One<'p>, Denial> {
    let mut unopened = false;
    for rule in policy.rules.iter().filter(|r| r.action == Action::Allow) {
        match rule.standing(facts) {
            Standing::Yes if pending.is_none() => return Ok(One::Pass(Pass::Rule(rule))),
            Standing::Yes => unopened = true,
            Standing::Pending => return Ok(One::Inspect),
            Standing::No(_) | Standing::Unclear => {}
        }
    }
    match (pending, facts.layer) {
        // Whether it is TLS may settle the pending rule.
        (Some(_), Layer::Connect) if unopened => Ok(One::Inspect),
        (Some(rule), _) if unopened => Err(Denial::saying(
            Reason::DeniedByRule,
            rule,
            "this rule is about requests, and the connection would pass unopened",
        )),
        _ => Err(Denial::of(Reason::NoRule)),
    }
}

/// Audit mode opens what is probably HTTP, so that requests are recorded and deny rules about
/// requests are kept, and lets the rest pass as it is.
fn pass_in_audit<'p>(policy: &Policy, facts: &Facts<'_>, refusal: Refusal) -> One<'p> {
    let speaks = |protocol: Protocol| {
        protocol.default_port() == Some(facts.port)
            || policy.rules.iter().any(|r| {
                r.protocol == Some(protocol)
                    && r.ports.as_ref().is_some_and(|p| p.contains(&facts.port))
            })
    };
    let open = match facts.layer {
        Layer::Connect => true,
        Layer::Opened { tls } => {
            refusal.pending || speaks(if tls { Protocol::Https } else { Protocol::Http })
        }
        Layer::Request { .. } => false,
    };
    if open { One::Inspect } else { One::Pass(Pass::Despite(refusal.denial)) }
}

/// Combines what each level passed. `passes` has one entry per policy of the chain.
fn permit(passes: &[(&Policy, Pass<'_>)], facts: &Facts<'_>) -> Permit {
    let mut limits = Limits::default();
    let mut would_deny = None;
    let mut rule = None;
    for (_, pass) in passes {
        match pass {
            Pass::Rule(r) => {
                limits = limits.stricter(r.limits);
                rule = Some(Arc::clone(&r.name));
            }
            Pass::Despite(denial) => {
                would_deny = would_deny.or_else(|| Some(denial.clone()));
                rule = None;
            }
        }
    }
    Permit {
        host: match facts.host {
            Host::Name(n) => Host::Name(n.clone()),
            Host::Ip(ip) => Host::from_ip(*ip),
        },
        port: facts.port,
        protocol: match facts.layer {
            Layer::Connect | Layer::Opened { tls: false } => Protocol::Tcp,
            Layer::Opened { tls: true } => Protocol::Tls,
            Layer::Request { tls: true } => Protocol::Https,
            Layer::Request { tls: false } => Protocol::Http,
        },
        rule,
        credentials: granted(passes, facts),
        limits,
        would_deny,
    }
}

/// The credentials of the innermost deciding rule that every level's deciding rule grants and
/// every level binds to this host; only ever on https.
fn granted(passes: &[(&Policy, Pass<'_>)], facts: &Facts<'_>) -> Vec<Arc<str>> {
    let (Layer::Request { tls: true }, Host::Name(host)) = (facts.layer, facts.host) else {
        return Vec::new();
    };
    let Some((_, Pass::Rule(innermost))) = passes.last() else { return Vec::new() };
    let everywhere = |name: &&Arc<str>| {
        passes.iter().all(|(policy, pass)| match pass {
            Pass::Rule(rule) => {
                rule.credentials.contains(name)
                    && policy.credential(name).is_some_and(|c| c.bound_to(host))
            }
            Pass::Despite(_) => false,
        })
    };
    innermost.credentials.iter().filter(everywhere).cloned().collect()
}

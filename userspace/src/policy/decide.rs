//! Pure: the decision. A [`Permit`] can only be made here, and `forward::dial` needs one:
//! forwarding without a decision does not compile.

use std::sync::Arc;

use super::{Facts, Host, Limits, Policy, Protocol};
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

/// Proof that policy allowed exactly this destination. Fields are private to `policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    host: Host,
    port: u16,
    protocol: Protocol,
    rule: Option<Arc<str>>,
    /// Credential names granted by every level of the chain.
    credentials: Vec<Arc<str>>,
    limits: Limits,
    /// Audit mode: it would have been refused for this reason. No credentials then.
    would_deny: Option<Denial>,
}

impl Permit {
    pub fn host(&self) -> &Host {
        &self.host
    }
    pub fn port(&self) -> u16 {
        self.port
    }
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
    pub fn rule(&self) -> Option<&Arc<str>> {
        self.rule.as_ref()
    }
    pub fn credentials(&self) -> &[Arc<str>] {
        &self.credentials
    }
    pub fn limits(&self) -> Limits {
        self.limits
    }
    pub fn would_deny(&self) -> Option<&Denial> {
        self.would_deny.as_ref()
    }
}

/// Decides for a chain of policies, outermost ancestor first: each must allow, and a credential
/// must be granted at each level. An empty chain is a refusal.
pub fn decide(chain: &[&Policy], facts: &Facts<'_>) -> Verdict {
    let _ = (chain, facts);
    Verdict::Deny(Denial { reason: Reason::NoRule, rule: None, message: None })
}

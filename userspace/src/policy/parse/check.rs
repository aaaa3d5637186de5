//! Pure: checks across the rules and credentials of a policy, errors first, then lints.

use std::collections::BTreeMap;

use super::credentials::CredentialDraft;
use super::diagnostic::{Diagnostic, nearest};
use super::rules::RuleDraft;
use crate::policy::{Action, HostPattern, Protocol, Rule};

/// Errors that need more than one entry to be seen.
/// `declared` names the credentials that had errors of their own as well.
pub(super) fn errors(
    rules: &[RuleDraft],
    credentials: &[CredentialDraft],
    declared: &[String],
) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let mut names: BTreeMap<&str, &RuleDraft> = BTreeMap::new();
    for draft in rules {
        if let Some(first) = names.get(&*draft.rule.name) {
            let message = format!("there is already a rule `{}`", draft.rule.name);
            let place = format!("the first is at {}:{}", first.at.file, first.at.line);
            out.push(draft.at.say(message).help(place));
        } else {
            names.insert(&draft.rule.name, draft);
        }
        rule_credentials(draft, credentials, declared, &mut out);
    }
    for (i, draft) in credentials.iter().enumerate() {
        let earlier = &credentials[..i];
        if earlier.iter().any(|c| c.spec.name == draft.spec.name) {
            out.push(draft.at.say(format!("there is already a credential `{}`", draft.spec.name)));
        }
        let env = draft.spec.env.as_deref();
        if let Some(env) = env.filter(|e| earlier.iter().any(|c| c.spec.env.as_deref() == Some(e)))
        {
            out.push(draft.env_at.say(format!("another credential already uses `{env}`")));
        }
    }
    out
}

fn rule_credentials(
    draft: &RuleDraft,
    credentials: &[CredentialDraft],
    declared: &[String],
    out: &mut Vec<Diagnostic>,
) {
    let known: Vec<&str> = declared.iter().map(String::as_str).collect();
    for (name, at) in draft.rule.credentials.iter().zip(&draft.credentials_at) {
        let Some(credential) = credentials.iter().find(|c| c.spec.name == *name) else {
            if known.contains(&&**name) {
                continue;
            }
            let found = at.say(format!("there is no credential `{name}`"));
            out.push(match nearest(name, &known) {
                Some(near) => found.help(format!("did you mean `{near}`?")),
                None => found.help(format!("add [credentials.{name}]")),
            });
            continue;
        };
        let bound = &credential.spec.hosts;
        for (host, at) in draft.rule.hosts.iter().zip(&draft.hosts_at) {
            if !bound.iter().any(|b| b.covers(host)) {
                let list: Vec<String> = bound.iter().map(ToString::to_string).collect();
                let message = format!("`{host}` is outside the binding of credential `{name}`");
                out.push(at.say(message).help(format!("`{name}` is bound to {}", list.join(", "))));
            }
        }
    }
}

/// What is allowed to stand there and is probably not meant.
pub(super) fn lints(rules: &[RuleDraft], credentials: &[CredentialDraft]) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    for (i, draft) in rules.iter().enumerate() {
        if draft.rule.action != Action::Deny {
            wide_hosts(draft, &mut out);
        }
        shadowed(draft, i, rules, &mut out);
    }
    for draft in credentials {
        if !rules.iter().any(|r| r.rule.credentials.contains(&draft.spec.name)) {
            out.push(draft.at.say(format!("no rule uses the credential `{}`", draft.spec.name)));
        }
    }
    out
}

/// Suffixes of more than one label under which anyone can have a name.
const PUBLIC_SUFFIXES: &[&str] = &[
    "amazonaws.com",
    "appspot.com",
    "azurewebsites.net",
    "blob.core.windows.net",
    "blogspot.com",
    "cloudapp.azure.com",
    "cloudfront.net",
    "co.jp",
    "co.kr",
    "co.nz",
    "co.uk",
    "co.za",
    "com.au",
    "com.br",
    "com.cn",
    "com.mx",
    "com.tr",
    "duckdns.org",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.io",
    "onrender.com",
    "org.uk",
    "pages.dev",
    "r2.dev",
    "readthedocs.io",
    "run.app",
    "s3.amazonaws.com",
    "surge.sh",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "workers.dev",
];

fn wide_hosts(draft: &RuleDraft, out: &mut Vec<Diagnostic>) {
    for (host, at) in draft.rule.hosts.iter().zip(&draft.hosts_at) {
        let message = match host {
            HostPattern::OneLabel(suffix) | HostPattern::AnyDepth(suffix)
                if !suffix.as_str().contains('.') || PUBLIC_SUFFIXES.contains(&suffix.as_str()) =>
            {
                format!("`{host}` covers names that anyone can register")
            }
            HostPattern::Cidr(net) if net.prefix() == 0 => {
                format!("`{host}` is every address of its family")
            }
            HostPattern::Ip(ip)
                if ["169.254.169.254", "fd00:ec2::254", "100.100.100.200"]
                    .iter()
                    .any(|m| m.parse() == Ok(*ip)) =>
            {
                format!("`{host}` is a cloud's metadata service, which hands out credentials")
            }
            _ => continue,
        };
        out.push(at.say(message));
    }
}

/// A deny rule anywhere, or an allow rule before this one, that always decides first.
fn shadowed(draft: &RuleDraft, index: usize, rules: &[RuleDraft], out: &mut Vec<Diagnostic>) {
    let rule = &draft.rule;
    let wins = |(i, other): &(usize, &RuleDraft)| {
        *i != index
            && match (other.rule.action, rule.action) {
                (Action::Deny, Action::Allow | Action::Ask) => true,
                (Action::Ask, Action::Allow) => true,
                (a, b) => a == b && *i < index,
            }
            && covers(&other.rule, rule)
    };
    if let Some((_, other)) = rules.iter().enumerate().find(wins) {
        let message = format!("rule `{}` can never decide", rule.name);
        let why = format!("rule `{}` decides everything it matches", other.rule.name);
        out.push(draft.at.say(message).help(why));
    }
}

/// Whether `wide` certainly matches whatever `narrow` matches.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let hosts = narrow.hosts.iter().all(|n| wide.hosts.iter().any(|w| w.covers(n)));
    let ports = match (&wide.ports, &narrow.ports) {
        (None, _) => true,
        (Some(w), Some(n)) => n.iter().all(|p| w.contains(p)),
        (Some(_), None) => false,
    };
    let barrier = wide.action != Action::Allow;
    let protocol = match (wide.protocol, narrow.protocol) {
        (None, _) => true,
        (Some(Protocol::Tcp), _) if barrier => true,
        (Some(Protocol::Https | Protocol::Tls), Some(Protocol::Https | Protocol::Tls))
            if barrier =>
        {
            true
        }
        (w, n) => w == n,
    };
    let methods = match (&wide.methods, &narrow.methods) {
        (None, _) => true,
        (Some(w), Some(n)) => n.iter().all(|m| w.contains(m)),
        (Some(_), None) => false,
    };
    let paths = match (&wide.paths, &narrow.paths) {
        (None, _) => true,
        (Some(w), Some(n)) => n.iter().all(|p| w.iter().any(|q| q.covers(p))),
        (Some(_), None) => false,
    };
    hosts && ports && protocol && methods && paths
}

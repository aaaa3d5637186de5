//! Pure: `[[rule]]`.

use std::sync::Arc;

use super::diagnostic::{Location, Report, nearest};
use super::reader::{Reader, Text, Value, integer_of};
use super::units::parse_size;
use crate::policy::{Action, HostPattern, Limits, MethodSet, PathPattern, Protocol, Rule};

/// A rule with the places that later checks point at.
pub(super) struct RuleDraft {
    pub(super) rule: Rule,
    pub(super) at: Location,
    /// One per host of the rule.
    pub(super) hosts_at: Vec<Location>,
    /// One per credential of the rule.
    pub(super) credentials_at: Vec<Location>,
}

const KEYS: &[&str] = &[
    "name",
    "action",
    "hosts",
    "ports",
    "protocol",
    "methods",
    "paths",
    "credentials",
    "limits",
    "reason",
];

const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "QUERY",
];

/// Reads every `[[rule]]`; those with errors are reported and left out.
pub(super) fn rules(top: &Reader<'_, '_>, report: &mut Report<'_>) -> Vec<RuleDraft> {
    let tables = top.tables("rule", "a rule", report);
    let read = |reader: Reader<'_, '_>| {
        reader.only("a rule", KEYS, &[], report);
        rule(&reader, report)
    };
    tables.into_iter().filter_map(read).collect()
}

fn rule(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<RuleDraft> {
    let name = required(r, "name", "audit records and refusals show it", report);
    let action = required(r, "action", "one of: allow, deny, ask", report)
        .and_then(|text| action(&text, report));
    let hosts = match r.get("hosts") {
        Some(_) => r.texts("hosts", report),
        None => {
            r.missing("a rule", "hosts", "name the hosts it is about", report);
            None
        }
    };
    let hosts = hosts.map(|texts| host_patterns(&texts, report));
    let protocol = r.text("protocol", report).and_then(|text| protocol(&text, report));
    let ports = ports(r, report);
    let methods = methods(r, report);
    let paths = r.texts("paths", report).map(|texts| path_patterns(&texts, report));
    let credentials = r.texts("credentials", report).unwrap_or_default();
    let limits = r.table("limits", report).map_or_else(Limits::default, |t| limits(&t, report));
    let reason = r.text("reason", report).map(|(t, _)| t.to_owned());

    let ((name, name_span), action, hosts) = (name?, action?, hosts?);
    let at = report.locate(&name_span);
    let (hosts, hosts_at) = hosts.into_iter().unzip();
    let mut rule = Rule {
        name: name.into(),
        action,
        hosts,
        ports,
        protocol,
        methods,
        paths,
        credentials: credentials.iter().map(|(t, _)| Arc::from(*t)).collect(),
        limits,
        reason,
        origin: format!("{}:{}", at.file, at.line),
    };
    complete(&mut rule, r, report);
    Some(RuleDraft {
        rule,
        at,
        hosts_at,
        credentials_at: credentials.iter().map(|(_, s)| report.locate(s)).collect(),
    })
}

fn required<'a>(
    r: &Reader<'a, '_>,
    key: &str,
    help: &str,
    report: &mut Report<'_>,
) -> Option<Text<'a>> {
    if r.get(key).is_none() {
        r.missing("a rule", key, help, report);
    }
    r.text(key, report)
}

fn action((text, span): &Text<'_>, report: &mut Report<'_>) -> Option<Action> {
    let found = Action::ALL.into_iter().find(|a| a.as_str() == *text);
    if found.is_none() {
        report.unknown(span, "action", text, &Action::ALL.map(Action::as_str));
    }
    found
}

fn protocol((text, span): &Text<'_>, report: &mut Report<'_>) -> Option<Protocol> {
    let found = Protocol::parse(text);
    if found.is_none() {
        report.unknown(span, "protocol", text, &Protocol::ALL.map(Protocol::as_str));
    }
    found
}

/// Host patterns with their places; bad ones are reported and left out.
pub(super) fn host_patterns(
    texts: &[Text<'_>],
    report: &mut Report<'_>,
) -> Vec<(HostPattern, Location)> {
    let mut out: Vec<(HostPattern, Location)> = Vec::new();
    for (text, span) in texts {
        match HostPattern::parse(text) {
            Ok(p) if out.iter().any(|(q, _)| *q == p) => {
                report.error(span, format!("`{p}` stands here twice"));
            }
            Ok(p) => out.push((p, report.locate(span))),
            Err(e) => {
                let found = report.locate(span).say(e.to_string());
                report.errors.push(match e.suggestion {
                    Some(s) => found.help(format!("write {s}")),
                    None => found,
                });
            }
        }
    }
    out
}

fn path_patterns(texts: &[Text<'_>], report: &mut Report<'_>) -> Vec<PathPattern> {
    let mut out = Vec::new();
    for (text, span) in texts {
        match PathPattern::parse(text) {
            Ok(p) => out.push(p),
            Err(why) => {
                report
                    .error(span, format!("`{}` is not a path pattern: {why}", text.escape_debug()));
            }
        }
    }
    out
}

fn ports(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<Vec<u16>> {
    let list = r.list("ports", report)?;
    let mut out = Vec::new();
    for value in list {
        let port = integer_of(value, "a port", 1..=65535, report);
        if let Some(port) = port.and_then(|p| u16::try_from(p).ok()) {
            if out.contains(&port) {
                report.error(&value.span(), format!("port {port} stands here twice"));
            }
            out.push(port);
        }
    }
    Some(out)
}

fn methods(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<MethodSet> {
    let texts = r.texts("methods", report)?;
    let mut good = Vec::new();
    for (text, span) in texts {
        match MethodSet::check(text) {
            Err(why) => match nearest(text, METHODS).filter(|_| !why.contains("never")) {
                Some(near) => report.error_help(&span, why, format!("did you mean `{near}`?")),
                None => report.error(&span, why),
            },
            Ok(()) => {
                if !METHODS.contains(&text) {
                    let near = nearest(text, METHODS);
                    let hint = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                    report.lint(&span, format!("`{text}` is not a usual method{hint}"));
                }
                good.push(text);
            }
        }
    }
    MethodSet::new(good).ok()
}

fn limits(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Limits {
    r.only("limits", &["requests_per_minute", "upload", "download"], &[], report);
    let rpm = r
        .get("requests_per_minute")
        .and_then(|v| integer_of(v, "`requests_per_minute`", 1..=u64::from(u32::MAX), report));
    Limits {
        requests_per_minute: rpm.and_then(|n| u32::try_from(n).ok()),
        upload: r.get("upload").and_then(|v| size(v, "`upload`", report)),
        download: r.get("download").and_then(|v| size(v, "`download`", report)),
    }
}

fn size(value: &Value<'_>, what: &str, report: &mut Report<'_>) -> Option<u64> {
    match value.get_ref().as_str() {
        None => integer_of(value, what, 0..=u64::MAX, report),
        Some(text) => parse_size(text).map_err(|why| report.error(&value.span(), why)).ok(),
    }
}

/// Fills in defaults and checks the keys against one another.
///
/// An allow rule without `protocol` is https; without `ports` it has its protocol's port. A deny
/// or ask rule without them means every protocol and every port.
fn complete(rule: &mut Rule, r: &Reader<'_, '_>, report: &mut Report<'_>) {
    let of_request = [("methods", rule.methods.is_some()), ("paths", rule.paths.is_some())];
    if let Some(p @ (Protocol::Tcp | Protocol::Tls)) = rule.protocol {
        for (key, _) in of_request.iter().filter(|(_, there)| *there) {
            let why =
                format!("`{key}` needs https or http: a {} rule sees no requests", p.as_str());
            report.error(&r.key_span(key), why);
        }
        if rule.limits.requests_per_minute.is_some() {
            report.error(&r.key_span("limits"), "`requests_per_minute` needs https or http");
        }
    }
    if !rule.credentials.is_empty() && !matches!(rule.protocol, None | Some(Protocol::Https)) {
        report.error_help(
            &r.key_span("credentials"),
            "a credential is only ever attached on https",
            "set protocol = \"https\" or remove `credentials`",
        );
    }
    match rule.action {
        Action::Allow => complete_allow(rule, r, report),
        Action::Deny => {
            for key in ["credentials", "limits"] {
                if r.get(key).is_some() {
                    report.error(&r.key_span(key), format!("a deny rule has no `{key}`"));
                }
            }
        }
        Action::Ask => {}
    }
}

fn complete_allow(rule: &mut Rule, r: &Reader<'_, '_>, report: &mut Report<'_>) {
    if r.get("protocol").is_none() && rule.ports.as_ref().is_some_and(|p| p.contains(&80)) {
        report.error_help(
            &r.key_span("ports"),
            "port 80 without `protocol`: a rule is https unless it says otherwise",
            "add protocol = \"http\", or \"https\" if that is meant",
        );
    }
    let protocol = *rule.protocol.get_or_insert(Protocol::Https);
    if r.get("ports").is_none() {
        rule.ports = protocol.default_port().map(|p| vec![p]);
        if rule.ports.is_none() {
            r.missing("a tcp rule", "ports", "tcp has no usual port: write ports = [5432]", report);
        }
    }
    // A list with errors has been reported; what is left of it must not mean "every port".
    rule.ports.get_or_insert_default();
}

/// Used by sibling modules that report on a single word.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

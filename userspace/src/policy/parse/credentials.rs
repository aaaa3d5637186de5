//! Pure: `[credentials.NAME]`.

use toml::de::DeValue;

use super::diagnostic::{Location, Report};
use super::reader::{Reader, Text, expected, text_of};
use super::rules::{host_patterns, is_token};
use crate::inject::placeholder::Shape;
use crate::policy::{CredentialKind, CredentialSpec, OnCanary, Places};
use crate::secrets::SecretRef;

/// A credential with the places that later checks point at.
pub(super) struct CredentialDraft {
    pub(super) spec: CredentialSpec,
    pub(super) at: Location,
    pub(super) env_at: Location,
}

const KINDS: &[&str] = &["bearer", "basic", "header", "query", "placeholder"];
const LATER_KINDS: &[&str] = &["aws_sigv4", "oauth2", "github_app"];
const KEYS: &[&str] = &[
    "secret",
    "hosts",
    "bearer",
    "basic",
    "header",
    "query",
    "placeholder",
    "env",
    "shape",
    "on_canary",
];
const LATER_SECRETS: &[&str] = &["fd", "systemd", "store", "vault"];

/// Variables that change what runs or where it connects; a placeholder there would break the agent.
const RESERVED_ENV: &[&str] =
    &["PATH", "HOME", "SHELL", "USER", "TERM", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// Headers that describe the message or the connection, and so cannot carry a credential.
const RESERVED_HEADERS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "content-encoding",
    "expect",
];

/// Reads every credential; those with errors are reported and left out.
/// Every name, good or not, goes into `declared`.
pub(super) fn credentials(
    top: &Reader<'_, '_>,
    report: &mut Report<'_>,
    declared: &mut Vec<String>,
) -> Vec<CredentialDraft> {
    let Some(all) = top.table("credentials", report) else { return Vec::new() };
    let mut out = Vec::new();
    for (key, value) in all.table {
        let name: &str = key.get_ref();
        declared.push(name.to_owned());
        if !is_token(name) {
            report.error(&key.span(), "a credential's name is letters, digits, `-`, `_` and `.`");
        }
        let Some(r) = Reader::of(value, &format!("`credentials.{name}`"), report) else { continue };
        r.only("a credential", KEYS, LATER_KINDS, report);
        let at = report.locate(&key.span());
        out.extend(credential(name, &at, &r, report));
    }
    out
}

fn credential(
    name: &str,
    at: &Location,
    r: &Reader<'_, '_>,
    report: &mut Report<'_>,
) -> Option<CredentialDraft> {
    let what = format!("credential `{name}`");
    for (key, help) in [
        ("secret", "a reference such as env:NAME, file:/path or exec:COMMAND"),
        ("hosts", "name the only hosts that may ever receive it"),
    ] {
        if r.get(key).is_none() {
            r.missing(&what, key, help, report);
        }
    }
    let secret = r.text("secret", report).and_then(|t| secret(&t, report));
    let hosts = r.texts("hosts", report).map(|texts| {
        let found = host_patterns(&texts, report);
        for (_, at) in found.iter().filter(|(p, _)| !p.is_name()) {
            report.errors.push(at.say("a credential is bound to host names, not to addresses"));
        }
        found.into_iter().map(|(p, _)| p).collect()
    });
    let kind = kind(&what, r, report);
    let env = r.text("env", report).and_then(|t| env_name(&t, report));
    let shape = r.text("shape", report).and_then(|t| shape(&t, report));
    let on_canary = on_canary(r, report);
    let spec = CredentialSpec {
        name: name.into(),
        secret: secret?,
        hosts: hosts?,
        kind: kind?,
        env,
        shape,
        on_canary,
    };
    if matches!(spec.kind, CredentialKind::Placeholder(_)) && r.get("env").is_none() {
        let found = at.say(format!("{what} is a placeholder and the agent has no way to see it"));
        report.lints.push(found.help("add env = \"NAME\""));
    }
    let env_at = report.locate(&r.key_span("env"));
    Some(CredentialDraft { spec, at: at.clone(), env_at })
}

/// Never repeats the text: it may be the secret itself.
fn secret((text, span): &Text<'_>, report: &mut Report<'_>) -> Option<SecretRef> {
    let scheme = text.split_once(':').map(|(s, _)| s);
    if let Some(later) = LATER_SECRETS.iter().find(|s| scheme == Some(s)) {
        report.not_yet(span, &format!("a `{later}:` secret"));
        return None;
    }
    match SecretRef::parse(text) {
        Ok(found) => Some(found),
        Err(e) => {
            let known = matches!(scheme, Some("env" | "file" | "exec"));
            let why = if known { e.why.as_str() } else { "a policy never holds the secret itself" };
            report.error_help(
                span,
                format!("`secret` must be a reference to a secret: {why}"),
                "write env:NAME, file:/absolute/path or exec:COMMAND ARGS",
            );
            None
        }
    }
}

fn kind(what: &str, r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<CredentialKind> {
    let present: Vec<&str> = KINDS.iter().copied().filter(|k| r.get(k).is_some()).collect();
    match present[..] {
        [] if LATER_KINDS.iter().any(|k| r.get(k).is_some()) => None,
        [] => {
            let help = format!("add one of: {}", KINDS.join(", "));
            report.error_help(&r.span, format!("{what} does not say how it is attached"), help);
            None
        }
        ["bearer"] => bearer(r, report),
        ["basic"] => basic(&r.table("basic", report)?, report),
        ["header"] => header(&r.table("header", report)?, report),
        ["query"] => query(&r.table("query", report)?, report),
        ["placeholder"] => places(r, report).map(CredentialKind::Placeholder),
        [.., last] => {
            let message = format!("{what} has more than one kind: {}", present.join(", "));
            report.error(&r.key_span(last), message);
            None
        }
    }
}

fn bearer(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<CredentialKind> {
    let value = r.get("bearer")?;
    if matches!(value.get_ref(), DeValue::Boolean(true)) {
        return Some(CredentialKind::Bearer);
    }
    expected(report, value, "`bearer`", "`true`");
    None
}

fn basic(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<CredentialKind> {
    r.only("`basic`", &["username"], &[], report);
    let (username, span) = field(r, "basic", "username", report)?;
    if username.contains(':') {
        report.error(&span, "a user name of basic authentication has no `:`");
        return None;
    }
    Some(CredentialKind::Basic { username: username.into() })
}

fn header(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<CredentialKind> {
    r.only("`header`", &["name", "value"], &[], report);
    let name = field(r, "header", "name", report);
    let value = field(r, "header", "value", report);
    let ((name, name_span), (value, value_span)) = (name?, value?);
    let lower = name.to_ascii_lowercase();
    if !is_token(name) {
        report.error(&name_span, "this is not a header name");
        return None;
    }
    if RESERVED_HEADERS.contains(&lower.as_str()) {
        report.error(&name_span, format!("the header `{lower}` cannot carry a credential"));
        return None;
    }
    if !value.contains("{secret}") {
        report.error_help(
            &value_span,
            "the value of a header credential must contain `{secret}`",
            "write value = \"{secret}\"; the secret itself never stands in a policy",
        );
        return None;
    }
    Some(CredentialKind::Header { name: lower, value: value.into() })
}

fn query(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<CredentialKind> {
    r.only("`query`", &["name"], &[], report);
    let (name, _) = field(r, "query", "name", report)?;
    Some(CredentialKind::Query { name: name.into() })
}

fn places(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<Places> {
    let mut places = Places::default();
    for (text, span) in r.texts("placeholder", report)? {
        match text {
            "header" => places.header = true,
            "query" => places.query = true,
            "path" => places.path = true,
            "body" => places.body = true,
            _ => report.unknown(&span, "place", text, &["header", "query", "path", "body"]),
        }
    }
    Some(places)
}

fn field<'a>(
    r: &Reader<'a, '_>,
    what: &str,
    key: &str,
    report: &mut Report<'_>,
) -> Option<Text<'a>> {
    let Some(value) = r.get(key) else {
        report.error(&r.span, format!("`{what}` has no `{key}`"));
        return None;
    };
    text_of(value, &format!("`{key}`"), report)
}

fn on_canary(r: &Reader<'_, '_>, report: &mut Report<'_>) -> OnCanary {
    match r.text("on_canary", report) {
        Some(("freeze", span)) => report.not_yet(&span, "on_canary = \"freeze\""),
        None | Some(("deny", _)) => {}
        Some((text, span)) => {
            report.unknown(&span, "value of `on_canary`", text, &["deny", "freeze"]);
        }
    }
    OnCanary::Deny
}

fn env_name((text, span): &Text<'_>, report: &mut Report<'_>) -> Option<String> {
    let name = !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !name {
        report.error(span, "a variable's name is letters, digits and `_`");
    } else if RESERVED_ENV.contains(text) {
        report.error(span, format!("`{text}` cannot hold a placeholder"));
    } else {
        return Some((*text).to_owned());
    }
    None
}

/// Literal text and `{N}` for N random characters, by the same grammar that fills it later.
fn shape((text, span): &Text<'_>, report: &mut Report<'_>) -> Option<String> {
    match Shape::parse(text) {
        Ok(_) => Some((*text).to_owned()),
        Err(e) => {
            report.error_help(span, e.to_string(), "write for example ghp_{36}");
            None
        }
    }
}

//! Pure: `egret.toml` as written, each value with its place, and everything that is wrong in the
//! file itself.

use std::ops::Range;
use std::time::Duration;

use crate::audit::Durability;
use crate::identify::Pattern;
use crate::identify::names::NameError;
use crate::policy::parse::{
    Diagnostic, Location, Reader, Report, Text, file_table, integer_of, parse_duration,
};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: Location,
}

/// What the file says. `None` is a value that is not there, or one with an error.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) lease: Option<Duration>,
    pub(super) durability: Option<Durability>,
    pub(super) connections: Option<usize>,
    pub(super) agents: Vec<WrittenAgent>,
}

/// One `[[agent]]`.
#[derive(Debug)]
pub(super) struct WrittenAgent {
    pub(super) name: Option<At<String>>,
    pub(super) target: Option<At<Pattern>>,
    /// As written: absolute, or relative to the file.
    pub(super) policy: Option<At<String>>,
}

const TARGETS: &[&str] = &["slice", "unit", "cgroup"];
const AGENT_KEYS: &[&str] = &["name", "slice", "unit", "cgroup", "policy"];
const DAEMON_KEYS: &[&str] = &["user", "group", "lease", "durability", "connections"];

/// The shortest lease leaves room for a few late heartbeats; the longest is how long a dead daemon
/// may stay open.
const LEASE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const MOST_CONNECTIONS: u64 = 1 << 20;

/// Reads the whole file. After a syntax error nothing of it is used.
pub(super) fn read(file: &str, text: &str) -> (Written, Vec<Diagnostic>) {
    let mut report = Report::new(file, text);
    let (table, span) = file_table(text, &mut report);
    let top = Reader { table: &table, span };
    top.only("egret.toml", &["daemon", "agent"], &[], &mut report);
    let mut written = Written::default();
    if let Some(daemon) = top.table("daemon", &mut report) {
        read_daemon(&daemon, &mut written, &mut report);
    }
    let agents = top.tables("agent", "an agent", &mut report);
    written.agents = agents.iter().map(|r| read_agent(r, &mut report)).collect();
    across(&written.agents, &mut report.errors);
    if report.keep_real() {
        written = Written::default();
    }
    report.errors.sort();
    report.errors.dedup();
    (written, report.errors)
}

/// Whether a file is meant to be an `egret.toml` and not a policy.
pub(super) fn is_meant(text: &str) -> bool {
    let mut report = Report::new("", text);
    let (table, span) = file_table(text, &mut report);
    let top = Reader { table: &table, span };
    let has = |keys: &[&str]| keys.iter().any(|key| top.get(key).is_some());
    has(&["daemon", "agent"]) && !has(&["rule", "credentials"])
}

fn read_daemon(r: &Reader<'_, '_>, written: &mut Written, report: &mut Report<'_>) {
    r.only("`daemon`", DAEMON_KEYS, &[], report);
    written.user = r.text("user", report).and_then(|t| account("user", &t, report));
    written.group = r.text("group", report).and_then(|t| account("group", &t, report));
    if let Some((text, span)) = r.text("lease", report) {
        match parse_duration(text) {
            Ok(lease) if (LEASE.0..=LEASE.1).contains(&lease) => written.lease = Some(lease),
            Ok(_) => report.error_help(
                &span,
                "`lease` must be from 1s to 60s",
                "the usual is 3s: how long agents stay open when the daemon hangs",
            ),
            Err(why) => report.error(&span, why),
        }
    }
    written.durability = r.text("durability", report).and_then(|(text, span)| match text {
        "process" => Some(Durability::Process),
        "power" => Some(Durability::Power),
        _ => {
            report.unknown(&span, "value of `durability`", text, &["process", "power"]);
            None
        }
    });
    let connections = r
        .get("connections")
        .and_then(|v| integer_of(v, "`connections`", 1..=MOST_CONNECTIONS, report));
    written.connections = connections.and_then(|n| usize::try_from(n).ok());
}

/// The name of a user or a group. The interceptor reads agents' bytes, so it is not root.
fn account(what: &str, (text, span): &Text<'_>, report: &mut Report<'_>) -> Option<String> {
    let first = text.bytes().next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !first || text.len() > 32 || !text.bytes().all(plain) {
        report.error_help(
            span,
            format!("`{}` is not the name of a {what}", text.escape_debug()),
            "write the name, not the number",
        );
    } else if what == "user" && *text == "root" {
        report.error_help(
            span,
            "the process that reads agents' bytes must not be root's",
            "make a user for it: useradd --system egret",
        );
    } else {
        return Some((*text).to_owned());
    }
    None
}

fn read_agent(r: &Reader<'_, '_>, report: &mut Report<'_>) -> WrittenAgent {
    r.only("an agent", AGENT_KEYS, &[], report);
    let what = match r.get("name").and_then(|v| v.get_ref().as_str()) {
        Some(name) => format!("agent `{}`", name.escape_debug()),
        None => "an agent".to_owned(),
    };
    for (key, help) in [
        ("name", "how `egret status` and the audit log call it"),
        ("policy", "the policy's file, relative to this one"),
    ] {
        if r.get(key).is_none() {
            r.missing(&what, key, help, report);
        }
    }
    let name = r.text("name", report).and_then(|(text, span)| match parse_agent_name(text) {
        Ok(name) => Some(placed(name, &span, report)),
        Err(why) => {
            report.error(&span, why);
            None
        }
    });
    let target = read_target(&what, r, report);
    let policy =
        r.text("policy", report).map(|(text, span)| placed(text.to_owned(), &span, report));
    WrittenAgent { name, target, policy }
}

type Parse = fn(&str) -> Result<Pattern, NameError>;

fn read_target(what: &str, r: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<At<Pattern>> {
    let present: Vec<&str> = TARGETS.iter().copied().filter(|k| r.get(k).is_some()).collect();
    let (key, parse): (_, Parse) = match present[..] {
        ["slice"] => ("slice", Pattern::slice),
        ["unit"] => ("unit", Pattern::unit),
        ["cgroup"] => ("cgroup", Pattern::cgroup),
        [] => {
            let help = format!("add one of: {}", TARGETS.join(", "));
            report.error_help(&r.span, format!("{what} does not say which group it is"), help);
            return None;
        }
        [.., last] => {
            let message = format!("{what} has more than one of: {}", present.join(", "));
            report.error_help(&r.key_span(last), message, "write one [[agent]] for each");
            return None;
        }
    };
    let (text, span) = r.text(key, report)?;
    match parse(text) {
        Ok(pattern) => Some(placed(pattern, &span, report)),
        Err(NameError { why, help }) => {
            let message = format!("`{}` as `{key}`: {why}", text.escape_debug());
            match help {
                Some(help) => report.error_help(&span, message, help),
                None => report.error(&span, message),
            }
            None
        }
    }
}

fn placed<T>(value: T, span: &Range<usize>, report: &Report<'_>) -> At<T> {
    At { value, at: report.locate(span) }
}

/// Errors that need two agents to be seen.
fn across(agents: &[WrittenAgent], errors: &mut Vec<Diagnostic>) {
    for (i, agent) in agents.iter().enumerate() {
        let earlier = || agents[..i].iter();
        if let Some(At { value, at }) = &agent.name
            && let Some(first) =
                earlier().filter_map(|a| a.name.as_ref()).find(|n| n.value == *value)
        {
            let found = at.say(format!("there is already an agent `{value}`"));
            errors.push(found.help(format!("the first is at line {}", first.at.line)));
        }
        if let Some(At { value, at }) = &agent.target
            && let Some(first) =
                earlier().filter_map(|a| a.target.as_ref()).find(|t| t.value.is_same(value))
        {
            let found = at.say("another agent is these groups already");
            errors.push(
                found.help(format!("the first is at line {}: {}", first.at.line, first.value)),
            );
        }
    }
}

const LONGEST_NAME: usize = 64;

/// Reads the name of an agent, which also names its files.
///
/// # Errors
/// Says what a name is.
pub fn parse_agent_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= LONGEST_NAME && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "an agent's name is 1 to {LONGEST_NAME} letters, digits, `.`, `_` and `-`, \
         and begins with a letter or a digit"
    ))
}

//! Pure: everything of a policy file that is neither a rule nor a credential.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::bounds;
use super::diagnostic::{Location, Report};
use super::reader::{Reader, Text, integer_of, text_of};
use crate::policy::{
    HostName, Local, Mode, ResolveTo, UnmatchedNames, UpstreamSettings, parse_cidr,
};

/// A CA file that the policy names; the loader reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFile {
    /// As written; relative to the policy file.
    pub path: String,
    pub at: Location,
}

/// The keys of a policy file. A used file has only those up to `rule`.
const KEYS: &[&str] = &[
    "version",
    "name",
    "use",
    "credentials",
    "rule",
    "mode",
    "upstream",
    "http",
    "dns",
    "local",
    "session",
];
const USED_KEYS: usize = 5;

/// Reports unknown keys at the top of the file, and a version that is missing or not 1.
pub(super) fn check_top(top: &Reader<'_, '_>, used: bool, report: &mut Report<'_>) {
    if used {
        for key in KEYS[USED_KEYS..].iter().filter(|k| top.get(k).is_some()) {
            let message = format!("`{key}` belongs in the policy itself, not in a file it uses");
            report.error(&top.key_span(key), message);
        }
    }
    top.only("the policy", KEYS, &[], report);
    match top.get("version") {
        None => {
            let found = report.locate(&(0..0)).say("the policy has no `version`");
            report.errors.push(found.help("begin the file with version = 1"));
        }
        Some(v) => {
            let version = integer_of(v, "`version`", 0..=u64::MAX, report);
            if version.is_some_and(|n| n != 1) {
                report.error(&v.span(), "this egret reads policies of version 1");
            }
        }
    }
}

pub(super) fn mode(top: &Reader<'_, '_>, report: &mut Report<'_>) -> Mode {
    match top.text("mode", report) {
        Some(("audit", _)) => Mode::Audit,
        None | Some(("enforce", _)) => Mode::Enforce,
        Some((text, span)) => {
            report.unknown(&span, "mode", text, &["enforce", "audit"]);
            Mode::Enforce
        }
    }
}

/// The keys of `[upstream]`.
const UPSTREAM_KEYS: &[&str] = &[
    "ca",
    "resolve",
    "private",
    "connect_timeout",
    "tls_timeout",
    "answer_timeout",
    "idle_timeout",
];

pub(super) fn upstream(
    top: &Reader<'_, '_>,
    report: &mut Report<'_>,
) -> (UpstreamSettings, Vec<CaFile>) {
    let Some(r) = top.table("upstream", report) else { return Default::default() };
    r.only("`upstream`", UPSTREAM_KEYS, &[], report);
    let files = r.texts("ca", report).unwrap_or_default();
    let ca = files
        .into_iter()
        .map(|(path, span)| CaFile { path: path.to_owned(), at: report.locate(&span) })
        .collect();
    let resolve = r.table("resolve", report).map(|t| resolve(&t, report)).unwrap_or_default();
    let mut private = Vec::new();
    for (text, span) in r.texts("private", report).unwrap_or_default() {
        match parse_cidr(text) {
            Ok(net) => private.push(net),
            Err(e) => {
                let found =
                    report.locate(&span).say(e.to_string().replace("host pattern", "network"));
                let help = e.suggestion.map(|s| format!("write \"{s}\""));
                report.errors.push(match help {
                    Some(help) => found.help(help),
                    None => found,
                });
            }
        }
    }
    let times = bounds::upstream_times(&r, report);
    (UpstreamSettings { ca: Vec::new(), resolve, private, times }, ca)
}

fn resolve(r: &Reader<'_, '_>, report: &mut Report<'_>) -> BTreeMap<HostName, ResolveTo> {
    let mut out = BTreeMap::new();
    for (key, value) in r.table {
        let name = HostName::parse(key.get_ref());
        let target = text_of(value, "an address", report)
            .map(|(text, span)| parse_resolve_target(text).map_err(|why| report.error(&span, why)));
        match (name, target) {
            (Err(e), _) => report.error(&key.span(), e.to_string()),
            (Ok(name), Some(Ok(target))) => {
                if out.insert(name, target).is_some() {
                    report.error(&key.span(), "this name stands here twice");
                }
            }
            (Ok(_), _) => {}
        }
    }
    out
}

/// `ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT`.
///
/// # Errors
/// Says what was expected.
pub fn parse_resolve_target(text: &str) -> Result<ResolveTo, String> {
    let target = if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Some(ResolveTo { ip, port: None })
    } else {
        text.parse::<SocketAddr>().ok().map(|a| ResolveTo { ip: a.ip(), port: Some(a.port()) })
    };
    target
        .filter(|t| t.port != Some(0))
        .map(|t| ResolveTo { ip: t.ip.to_canonical(), ..t })
        .ok_or_else(|| format!("`{}` is not ADDRESS or ADDRESS:PORT", text.escape_debug()))
}

pub(super) fn dns(top: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<UnmatchedNames> {
    let r = top.table("dns", report)?;
    r.only("`dns`", &["unmatched"], &["forward"], report);
    match r.text("unmatched", report)? {
        ("synthesize", _) => Some(UnmatchedNames::Synthesize),
        ("nxdomain", _) => Some(UnmatchedNames::Nxdomain),
        (text, span) => {
            report.unknown(&span, "value of `unmatched`", text, &["synthesize", "nxdomain"]);
            None
        }
    }
}

pub(super) fn session(top: &Reader<'_, '_>, report: &mut Report<'_>) {
    if let Some(r) = top.table("session", report) {
        r.only("`session`", &[], &["ttl", "requests", "upload"], report);
    }
}

/// Sockets behind which something runs, resolves or opens things for whoever connects.
const DANGEROUS_SOCKETS: &[&str] = &[
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "podman.sock",
    "system_bus_socket",
    "io.systemd.Resolve",
    "systemd/private",
    "nscd/socket",
    "ssh-agent",
    "gnupg",
];

/// `[local]`: ports of loopback, and absolute paths of Unix sockets, checked.
pub(super) fn local(top: &Reader<'_, '_>, report: &mut Report<'_>) -> Local {
    let Some(r) = top.table("local", report) else { return Local::default() };
    r.only("`local`", &["connect", "listen", "unix"], &[], report);
    Local {
        connect: local_ports(&r, "connect", report),
        listen: local_ports(&r, "listen", report),
        unix: unix_paths(&r, report),
    }
}

fn local_ports(r: &Reader<'_, '_>, key: &str, report: &mut Report<'_>) -> Vec<u16> {
    let what = format!("each of `{key}`");
    let mut ports = Vec::new();
    for value in r.list(key, report).unwrap_or_default() {
        let port = integer_of(value, &what, 1..=65535, report).and_then(|n| u16::try_from(n).ok());
        if port == Some(53) {
            report.error(&value.span(), "port 53 is answered by egret, whatever resolver is meant");
        } else {
            ports.extend(port);
        }
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn unix_paths(r: &Reader<'_, '_>, report: &mut Report<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for text in r.texts("unix", report).unwrap_or_default() {
        match unix_path(text.0) {
            Ok(()) => {
                warn_of_socket(&text, report);
                out.push(text.0.to_owned());
            }
            Err(why) => report.error(&text.1, why),
        }
    }
    out
}

fn unix_path(text: &str) -> Result<(), String> {
    if text == "/**" {
        return Err("`/**` is every socket of the machine".into());
    }
    let folder = text.strip_suffix("/**").unwrap_or(text);
    let Some(rest) = folder.strip_prefix('/') else {
        return Err("a socket's path is absolute, as in /run/postgresql/**".into());
    };
    if rest.contains('*') {
        return Err("only a trailing `/**` stands for several sockets".into());
    }
    if rest.split('/').any(|s| s.is_empty() || s == "." || s == "..") {
        return Err("a socket's path has no empty, `.` or `..` part".into());
    }
    let protected = ["/run/egret", "/var/run/egret", "/proc", "/sys", "/dev", "/run", "/var/run"];
    let inside =
        protected[..5].iter().any(|p| folder == *p || folder.starts_with(&format!("{p}/")));
    if inside || (text.ends_with("/**") && protected.contains(&folder)) {
        return Err(format!("`{text}` would open what egret must keep closed"));
    }
    Ok(())
}

fn warn_of_socket((text, span): &Text<'_>, report: &mut Report<'_>) {
    if let Some(which) = DANGEROUS_SOCKETS.iter().find(|s| text.contains(**s)) {
        let why =
            format!("`{which}` acts on behalf of who connects: the agent can leave through it");
        report.lint(span, why);
    }
}

//! Pure: the shorthands of the command line.

use crate::policy::parse::parse_resolve_target;
use crate::policy::{
    Action, CredentialKind, CredentialSpec, HostName, HostPattern, Limits, MethodSet, OnCanary,
    PathPattern, Policy, Protocol, ResolveTo, Rule,
};
use crate::secrets::SecretRef;

/// Ports whose protocol is known not to be HTTP: a shorthand for them needs a scheme.
const NOT_HTTP: &[u16] = &[
    21, 22, 23, 25, 53, 110, 143, 389, 465, 587, 636, 993, 995, 1433, 3306, 3389, 5432, 5672, 6379,
    9092, 11211, 27017,
];

/// `[METHODS ][SCHEME://]HOST[:PORT][/PATH]`, METHODS separated by commas, SCHEME one of https
/// (the default; http for port 80), http, tls and tcp.
///
/// # Errors
/// Says what is wrong.
pub fn parse_allow(text: &str) -> Result<Rule, String> {
    let (methods, rest) = match text.trim().split_once(char::is_whitespace) {
        Some((methods, rest)) => (Some(methods), rest.trim_start()),
        None => (None, text.trim()),
    };
    let methods = methods
        .map(|m| MethodSet::new(m.split(',')))
        .transpose()
        .map_err(|(_, why)| format!("{why}; write METHODS HOST, as in 'GET,HEAD x.test'"))?;
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, rest),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_port(authority)?;
    let hosts = vec![HostPattern::parse(host).map_err(|e| e.to_string())?];
    let protocol = match scheme {
        Some(s) => Protocol::parse(s)
            .ok_or_else(|| format!("`{}` is not https, http, tls or tcp", s.escape_debug()))?,
        None => match port {
            Some(80) => Protocol::Http,
            Some(p) if NOT_HTTP.contains(&p) => {
                return Err(format!(
                    "port {p} is usually not https: write tcp://{host}:{p} to let it pass \
                     unopened, or https://{host}:{p}"
                ));
            }
            _ => Protocol::Https,
        },
    };
    let port = port
        .or(protocol.default_port())
        .ok_or_else(|| format!("tcp has no usual port: write tcp://{host}:PORT"))?;
    let paths = match path {
        "" => None,
        path => Some(vec![PathPattern::parse(path)?]),
    };
    if matches!(protocol, Protocol::Tls | Protocol::Tcp) && (methods.is_some() || paths.is_some()) {
        return Err(format!("a {} connection has no methods and no path", protocol.as_str()));
    }
    Ok(Rule {
        name: format!("--allow {}", text.trim()).into(),
        action: Action::Allow,
        hosts,
        ports: Some(vec![port]),
        protocol: Some(protocol),
        methods,
        paths,
        credentials: Vec::new(),
        limits: Limits::default(),
        reason: None,
        origin: String::new(),
    })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => match authority.matches(':').count() {
            0 => (authority, ""),
            1 => authority.split_at(authority.find(':').unwrap_or(authority.len())),
            _ => return Err("put an IPv6 address in brackets, as in [2001:db8::1]".into()),
        },
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
            .parse()
            .ok()
            .filter(|&p| p != 0)
            .map(|p| (host, Some(p)))
            .ok_or_else(|| format!("`{digits}` is not a port")),
        _ => Err(format!("`{}` is not HOST or HOST:PORT", authority.escape_debug())),
    }
}

/// `HOST=SECRET-REF`. The agent finds the placeholder in the variable that an `env:` reference
/// names.
///
/// # Errors
/// Says what is wrong; never repeats what stands after the `=`, which may be a secret.
pub fn parse_bearer(text: &str) -> Result<CredentialSpec, String> {
    let (host, secret) = text
        .split_once('=')
        .ok_or("write HOST=SECRET-REF, as in api.github.com=env:GITHUB_TOKEN")?;
    let pattern = HostPattern::parse(host).map_err(|e| e.to_string())?;
    if !pattern.is_name() {
        return Err("a credential is bound to a host name, not to an address".into());
    }
    let scheme = secret.split_once(':').map_or("", |(s, _)| s);
    let secret = SecretRef::parse(secret).map_err(|e| {
        if matches!(scheme, "env" | "file" | "exec") {
            format!("the secret reference of {host} is not valid: {}", e.why)
        } else {
            format!(
                "the secret of {host} must be env:NAME, file:/path or exec:COMMAND, never itself"
            )
        }
    })?;
    let env = match &secret {
        SecretRef::Env(name) => Some(name.clone()),
        _ => None,
    };
    Ok(CredentialSpec {
        name: format!("bearer {host}").into(),
        secret,
        hosts: vec![pattern],
        kind: CredentialKind::Bearer,
        env,
        shape: None,
        on_canary: OnCanary::Deny,
    })
}

/// `NAME=ADDR[:PORT]`.
///
/// # Errors
/// Says what is wrong.
pub fn parse_resolve(text: &str) -> Result<(HostName, ResolveTo), String> {
    let (name, target) =
        text.split_once('=').ok_or("write NAME=ADDR[:PORT], as in api.test=127.0.0.1:8443")?;
    Ok((HostName::parse(name).map_err(|e| e.to_string())?, parse_resolve_target(target)?))
}

/// Adds `rule` to a policy, after its own rules; a repeated flag counts once.
pub(super) fn add_allow(policy: &mut Policy, rule: Rule) {
    if !policy.rules.iter().any(|r| r.name == rule.name) {
        policy.rules.push(rule);
    }
}

/// Adds `credential` to a policy and to each https allow rule that its host and the rule's hosts
/// have in common. The binding still decides at each request.
///
/// # Errors
/// When no rule allows the host, when the credential is there already, or when its variable is.
pub(super) fn add_bearer(policy: &mut Policy, credential: CredentialSpec) -> Result<(), String> {
    if policy.credential(&credential.name).is_some() {
        return Err("this host has a --bearer already".into());
    }
    if let Some(env) = &credential.env
        && let Some(other) = policy.credentials.iter().find(|c| c.env.as_ref() == Some(env))
    {
        return Err(format!("the credential `{}` already uses the variable `{env}`", other.name));
    }
    let meets = |rule: &Rule| {
        rule.action == Action::Allow
            && rule.protocol == Some(Protocol::Https)
            && rule
                .hosts
                .iter()
                .any(|h| credential.hosts.iter().any(|bound| bound.covers(h) || h.covers(bound)))
    };
    let mut granted = false;
    for rule in policy.rules.iter_mut().filter(|r| meets(r)) {
        rule.credentials.push(credential.name.clone());
        granted = true;
    }
    if !granted {
        let host = credential.hosts.first().map_or(String::new(), ToString::to_string);
        return Err(format!("no rule allows {host} over https: add --allow {host}"));
    }
    policy.credentials.push(credential);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allow_shorthands() {
        for (text, protocol, host, port, methods, path) in [
            ("x.test", "https", "x.test", 443, None, None),
            ("GET,HEAD x.test/a/**", "https", "x.test", 443, Some("GET, HEAD"), Some("/a/**")),
            ("  GET   x.test:8443/ ", "https", "x.test", 8443, Some("GET"), Some("/")),
            ("*.x.test", "https", "*.x.test", 443, None, None),
            ("x.test:80", "http", "x.test", 80, None, None),
            ("http://x.test", "http", "x.test", 80, None, None),
            ("tls://x.test", "tls", "x.test", 443, None, None),
            ("tcp://db.test:5432", "tcp", "db.test", 5432, None, None),
            ("[::1]:8443", "https", "::1", 8443, None, None),
            ("https://x.test:22", "https", "x.test", 22, None, None),
        ] {
            let rule = parse_allow(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(rule.protocol.unwrap().as_str(), protocol, "{text}");
            assert_eq!(rule.hosts[0].to_string(), host, "{text}");
            assert_eq!(rule.ports, Some(vec![port]), "{text}");
            assert_eq!(rule.methods.map(|m| m.to_string()).as_deref(), methods, "{text}");
            assert_eq!(rule.paths.map(|p| p[0].to_string()).as_deref(), path, "{text}");
        }
        for bad in [
            "",
            "*",
            "x.test:22",
            "tcp://x.test",
            "ftp://x.test",
            "get x.test",
            "CONNECT x.test",
            "GET tcp://x.test:1",
            "tls://x.test/a",
            "x.test:0",
            "x.test:99999",
            "::1",
            "127.1",
            "x.test/a?b",
            "x.test/../a",
            "u@x.test",
            "GET,x.test",
            "GET POST x.test",
        ] {
            assert!(parse_allow(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bearer_shorthands_keep_what_may_be_a_secret_to_themselves() {
        let c = parse_bearer("x.test=env:TOKEN").unwrap();
        assert_eq!((c.env.as_deref(), c.kind), (Some("TOKEN"), CredentialKind::Bearer));
        for bad in [
            "x.test=ghp_canary",
            "x.test=evn:ghp_canary",
            "x.test=env:$ghp_canary",
            "10.0.0.1=env:A",
            "x.test",
            "=env:A",
        ] {
            let e = parse_bearer(bad).unwrap_err();
            assert!(!e.contains("canary"), "{e}");
        }
    }

    #[test]
    fn a_bearer_goes_to_the_rules_of_its_host() {
        let mut policy = Policy::deny_all("t");
        for allow in ["x.test", "other.test", "http://x.test", "*.test:8443"] {
            add_allow(&mut policy, parse_allow(allow).unwrap());
        }
        add_bearer(&mut policy, parse_bearer("x.test=env:A").unwrap()).unwrap();
        let granted: Vec<bool> = policy.rules.iter().map(|r| !r.credentials.is_empty()).collect();
        assert_eq!(granted, [true, false, false, true]);
        assert!(add_bearer(&mut policy, parse_bearer("x.test=env:B").unwrap()).is_err(), "twice");
        assert!(add_bearer(&mut policy, parse_bearer("other.test=env:A").unwrap()).is_err(), "env");
        assert!(add_bearer(&mut policy, parse_bearer("none.x=env:C").unwrap()).is_err(), "no rule");
    }

    #[test]
    fn resolve_shorthands() {
        let (name, to) = parse_resolve("api.test=127.0.0.1:8443").unwrap();
        assert_eq!(
            (name.as_str(), to.socket(443).to_string().as_str()),
            ("api.test", "127.0.0.1:8443")
        );
        assert_eq!(parse_resolve("a.test=::1").unwrap().1.socket(443).to_string(), "[::1]:443");
        assert_eq!(parse_resolve("a.test=[::1]:1").unwrap().1.port, Some(1));
        for bad in ["a.test", "a.test=b.test", "a.test=1.2.3.4:0", "1.2.3.4=1.2.3.4", "a.test="] {
            assert!(parse_resolve(bad).is_err(), "{bad}");
        }
    }
}

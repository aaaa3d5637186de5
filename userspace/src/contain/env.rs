//! Pure: the environment of the command: the operator's, without what is secret, with what
//! stands for it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Variables that lead out of the agent's world or change how egret's own additions are read:
/// sockets of services that act for the user, and proxies that would be asked first.
const REMOVED: &[&str] = &[
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "WAYLAND_DISPLAY",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
];

/// Builds the environment. `inherited` loses the variables of [`REMOVED`], those that begin with
/// `EGRET_`, those in `secret` (they hold what the agent must not see) and every one whose value
/// contains one of `secret_values`. Then `set` is laid over it, the last of one name winning.
pub fn build(
    inherited: impl IntoIterator<Item = (OsString, OsString)>,
    secret: &[&str],
    secret_values: &[&[u8]],
    set: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let leaks = |value: &OsStr| {
        let value = value.as_bytes();
        secret_values.iter().any(|s| !s.is_empty() && memchr::memmem::find(value, s).is_some())
    };
    let removed = |name: &OsStr| {
        REMOVED.iter().chain(secret).any(|r| name == *r) || name.as_bytes().starts_with(b"EGRET_")
    };
    let mut env: Vec<(OsString, OsString)> =
        inherited.into_iter().filter(|(name, value)| !removed(name) && !leaks(value)).collect();
    for (name, value) in set {
        env.retain(|(n, _)| *n != name);
        env.push((name, value));
    }
    env
}

/// The value of `name` in an environment as [`build`] makes it.
pub fn get<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    #[test]
    fn secrets_go_placeholders_come_and_the_rest_stays() {
        let inherited = pairs(&[
            ("PATH", "/bin"),
            ("GITHUB_TOKEN", "hunter2-real"),
            ("COPY", "url?token=hunter2-real&x"),
            ("SSH_AUTH_SOCK", "/tmp/s"),
            ("EGRET_POLICY", "p.toml"),
            ("https_proxy", "http://p"),
            ("LANG", "C"),
        ]);
        let set = pairs(&[("GITHUB_TOKEN", "ghp_placeholder"), ("LANG", "C.UTF-8")]);
        let env = build(inherited, &["GITHUB_TOKEN"], &[b"hunter2-real", b""], set);
        assert_eq!(
            env,
            pairs(&[("PATH", "/bin"), ("GITHUB_TOKEN", "ghp_placeholder"), ("LANG", "C.UTF-8")])
        );
        assert_eq!(get(&env, "LANG").unwrap(), "C.UTF-8");
        assert_eq!(get(&env, "COPY"), None);
    }
}

//! What a machine has. A test names its needs; one that is missing skips the test by name, and
//! the skip is counted.

use std::path::Path;
use std::process::{Command, Stdio};

/// Something a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Bash,
    Curl,
    Dig,
    Dnspython,
    Git,
    Go,
    /// musl's C library and a compiler for it.
    Musl,
    Node,
    Openssl,
    Python,
    /// An SSH client and server.
    Ssh,
    /// util-linux's `script`, which gives a command a terminal.
    Script,
    /// Network namespaces joined by a veth pair.
    Veth,
    Ipv6,
    /// systemd as pid 1 with cgroup v2 alone, and no unit of egret: tests install their own.
    FreshSystemd,
    SystemdAnalyze,
}

impl Need {
    /// Whether this machine has it, found out by trying.
    pub fn is_met(self) -> bool {
        match self {
            Self::Bash => starts("bash", &["--version"]),
            Self::Curl => starts("curl", &["--version"]),
            Self::Dig => starts("dig", &["-v"]),
            Self::Dnspython => starts("/usr/bin/python3", &["-c", "import dns.resolver"]),
            Self::Git => starts("git", &["--version"]),
            Self::Go => starts("go", &["version"]),
            Self::Musl => starts("musl-gcc", &["--version"]),
            Self::Ssh => starts("ssh", &["-V"]) && Path::new("/usr/sbin/sshd").exists(),
            Self::Node => starts("node", &["--version"]),
            Self::Openssl => starts("openssl", &["version"]),
            Self::Python => starts("python3", &["--version"]),
            Self::Script => starts("script", &["--version"]),
            Self::Veth => has_veth(),
            Self::FreshSystemd => has_fresh_systemd(),
            Self::SystemdAnalyze => starts("systemd-analyze", &["--version"]),
            Self::Ipv6 => Path::new("/proc/net/if_inet6").exists(),
        }
    }
}

fn starts(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .env("PATH", crate::fixtures::agent::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

fn has_fresh_systemd() -> bool {
    let pid_1 = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    pid_1.trim() == "systemd"
        && Path::new("/run/systemd/system").is_dir()
        && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
        && !Path::new("/etc/systemd/system/egret.service").exists()
        && !Path::new("/usr/lib/systemd/system/egret.service").exists()
}

fn has_veth() -> bool {
    let name = format!("e2e-n{}", std::process::id());
    let peer = format!("e2e-m{}", std::process::id());
    let made = starts("ip", &["link", "add", &name, "type", "veth", "peer", "name", &peer]);
    made && starts("ip", &["link", "del", &name])
}

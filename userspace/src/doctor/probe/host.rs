//! The machine around egret: memory, time, names, certificates, systemd.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::facts::{Host, Layout, NotSeen, Seen, Systemd};
use super::super::parse;
use super::read;
use crate::forward::resolve::Resolver;
use crate::sys::memory;
use crate::tls::upstream::system_roots;

pub(super) fn probe(layout: Option<&Layout>) -> Host {
    Host {
        swap: read("/proc/swaps").map(|text| parse::swaps(&text)),
        lock: memory::guard(&[0_u8; 64]).map_err(|e| e.to_string()),
        clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        ipv6: Path::new("/proc/net/if_inet6").exists(),
        systemd: systemd(layout),
        roots: system_roots().len(),
        resolver: resolver(),
    }
}

/// systemd, if it is what runs this machine (sd_booted(3)).
fn systemd(layout: Option<&Layout>) -> Option<Systemd> {
    if !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    Some(Systemd { version: version(), slices: slices(layout) })
}

fn version() -> Option<String> {
    let mut command = Command::new("systemctl");
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let answer = command.output().ok()?;
    String::from_utf8_lossy(&answer.stdout).lines().next().map(str::to_owned)
}

/// Every systemd has `init.scope` and `system.slice`.
fn slices(layout: Option<&Layout>) -> Seen<bool> {
    let layout = layout.ok_or(NotSeen::Without("the list of mounts"))?;
    let Some(root) = &layout.root else { return Ok(false) };
    Ok(["system.slice", "init.scope"].iter().any(|name| root.join(name).is_dir()))
}

fn resolver() -> Result<Vec<String>, String> {
    Resolver::system().check().map_err(|e| e.to_string())?;
    Ok(read("/etc/resolv.conf").map(|text| parse::name_servers(&text)).unwrap_or_default())
}

//! Ways out that know no proxy. Each probe runs twice outside egret's reach as a control, then
//! inside as root and as an ordinary user: no packet may cross the link that leads out.

use anyhow::{Result, ensure};

use super::Case;
use crate::fixtures::agent::outside;
use crate::fixtures::link::Link;
use crate::fixtures::{Bench, World};
use crate::needs::Need;

const LINK: &[Need] = &[Need::Python, Need::Veth];
const LINK6: &[Need] = &[Need::Python, Need::Veth, Need::Ipv6];

pub(super) const CASES: &[Case] = &[
    Case { name: "tcp_to_a_literal_address", needs: LINK, run: |b| wall(b, "tcp", Target::Tcp4) },
    Case {
        name: "tcp_to_a_literal_ipv6_address",
        needs: LINK6,
        run: |b| wall(b, "tcp", Target::Tcp6),
    },
    Case {
        name: "tcp_to_a_mapped_address",
        needs: LINK6,
        run: |b| wall(b, "mapped", Target::Tcp4),
    },
    Case { name: "udp_datagram", needs: LINK, run: |b| wall(b, "udp", Target::Udp4) },
    Case { name: "udp_datagram_ipv6", needs: LINK6, run: |b| wall(b, "udp", Target::Udp6) },
    Case { name: "udp_connected", needs: LINK, run: |b| wall(b, "udp_connected", Target::Udp4) },
    Case { name: "raw_icmp_socket", needs: LINK, run: |b| wall(b, "raw", Target::Udp4) },
    Case { name: "packet_socket", needs: LINK, run: |b| wall(b, "packet", Target::Device) },
    Case { name: "routing_header", needs: LINK6, run: |b| wall(b, "rthdr", Target::Udp6) },
    Case {
        name: "bind_to_device",
        needs: LINK,
        run: |b| wall(b, "bindtodevice", Target::Udp4Device),
    },
    Case { name: "packet_info", needs: LINK, run: |b| wall(b, "pktinfo", Target::Udp4Device) },
    Case { name: "multicast", needs: LINK, run: |b| wall(b, "multicast", Target::Udp4Device) },
    Case { name: "only_loopback_exists", needs: &[], run: only_loopback },
    Case { name: "the_hosts_loopback_is_out_of_reach", needs: &[Need::Python], run: host_loopback },
    Case { name: "leaving_the_cgroup_and_namespace_fails", needs: &[], run: leaving },
    Case { name: "egret_is_neither_seen_nor_signalled", needs: &[], run: unseen },
];

#[derive(Clone, Copy)]
enum Target {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    Udp4Device,
    Device,
}

fn wall(bench: &Bench, probe: &str, target: Target) -> Result<()> {
    let world = World::new(bench)?;
    let link = Link::up()?;
    let (address, device) = match target {
        Target::Tcp4 => (link.canary4.tcp, false),
        Target::Tcp6 => (link.canary6.tcp, false),
        Target::Udp4 => (link.canary4.udp, false),
        Target::Udp6 => (link.canary6.udp, false),
        Target::Udp4Device | Target::Device => (link.canary4.udp, true),
    };
    let file = world.probe();
    let mut words = vec!["python3".to_owned(), file, probe.to_owned()];
    if matches!(target, Target::Device) {
        words.extend([link.device.clone(), "0".to_owned()]);
    } else {
        words.extend([address.ip().to_string(), address.port().to_string()]);
        words.extend(device.then(|| link.device.clone()));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let control = outside(words[0], &words[1..])?;
    link.must_not_be_silent(probe).map_err(|e| e.context(control.text()))?;
    let reached = link.canary4.reached() + link.canary6.reached();
    for user in ["root", &bench.user] {
        let ended = world.egret()?.user(user).run(&words)?;
        ended.hides("answered")?;
        link.must_be_silent().map_err(|e| e.context(format!("{probe} as {user}")))?;
    }
    let now = link.canary4.reached() + link.canary6.reached();
    ensure!(now == reached, "{probe} reached a canary {} times", now - reached);
    Ok(())
}

fn only_loopback(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = world.egret()?.run(&["cat", "/proc/net/dev"])?.expect(0)?;
    let names: Vec<&str> = ended
        .stdout
        .lines()
        .skip(2)
        .filter_map(|l| Some(l.split_once(':')?.0.trim()))
        .filter(|n| *n != "lo")
        .collect();
    ensure!(names.is_empty(), "the agent has {names:?}");
    Ok(())
}

fn host_loopback(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let canary = crate::fixtures::canary::Canary::start(std::net::Ipv4Addr::LOCALHOST.into(), 0)?;
    let port = canary.tcp.port().to_string();
    let words = ["python3", &world.probe(), "tcp", "127.0.0.1", &port];
    outside(words[0], &words[1..])?.expect(0)?;
    ensure!(canary.reached() == 1, "the control did not reach the canary");
    for user in ["root", &bench.user] {
        world.egret()?.user(user).run(&words)?.hides("answered")?;
    }
    ensure!(canary.reached() == 1, "the host's loopback was reached");
    Ok(())
}

fn leaving(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script = "for f in $(find /sys/fs/cgroup -maxdepth 2 -name cgroup.procs 2>/dev/null); do \
                  echo $$ > $f && echo \"MOVED $f\"; done; \
                  nsenter -t 1 -n true && cat /proc/net/dev | tail -n +3 | grep -v lo: && echo ENTERED; \
                  unshare -n true && echo UNSHARED; \
                  mount -t tmpfs none shared && echo MOUNTED && umount shared; true";
    for user in ["root", &bench.user] {
        let ended = world.egret()?.user(user).sh(script)?.expect(0)?;
        for word in ["MOVED", "ENTERED", "UNSHARED", "MOUNTED"] {
            ensure!(!ended.stdout.contains(word), "as {user}: {}", ended.text());
        }
    }
    Ok(())
}

fn unseen(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for user in ["root", &bench.user] {
        let pid = world.shared(&format!("pid-{user}"));
        let script = format!(
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done; \
             while ! test -s {0}; do sleep 0.1; done; kill -9 $(cat {0}); sleep 0.5; exit 9",
            pid.display()
        );
        let running = world.egret()?.user(user).spawn(&["sh", "-c", &script])?;
        std::fs::write(&pid, running.pid().to_string())?;
        let ended = running.wait()?.expect(9)?;
        let needle = format!("run --policy {}", world.folder().display());
        ended.hides(&needle)?;
        ended.hides("systemd")?;
    }
    Ok(())
}

//! A link of the stand-in host with what the attacks meet at its far end: the resolver, addresses
//! that must not be dialled, servers of DNS tunnels; and at its near end, processes to aim at.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use super::kinds::Who;
use super::machine::Victim;
use super::nameserver::Nameserver;
use super::tunnels::Tunnels;
use crate::fixtures::agent::eventually;
use crate::fixtures::host::Host;
use crate::fixtures::link::Link;
use crate::fixtures::netns::within;
use crate::fixtures::{Ended, Running, World};

/// The resolver's address.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);

/// Where the servers of two DNS tunnels listen.
pub(super) const IODINE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
pub(super) const DNS2TCP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 55);

/// Where names lead that must not be dialled: all routed to the link, clouds' metadata services
/// among them.
const LURES4: &[&str] = &[
    "93.184.215.77",
    "10.77.0.1",
    "172.16.77.1",
    "192.168.77.1",
    "100.64.77.1",
    "169.254.77.7",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
];
const LURES6: &[&str] = &["64:ff9b::c633:6401", "2002:c633:6401::1", "fd77::1", "fd00:ec2::254"];

/// A link of its own for the controls and one for each mode: what is left of the first, late
/// answers among it, is never counted for another. Fields are dropped in order.
pub(super) struct Side {
    victims: Vec<(Who, Victim)>,
    _tunnels: Tunnels,
    _nameserver: Nameserver,
    pub(super) link: Link,
    pub(super) far_scoped: String,
    pub(super) index: u32,
}

impl Side {
    pub(super) fn new(host: &Host, world: &World, has_ipv6: bool) -> Result<Self> {
        let near = host.network_namespace();
        let link = Link::out_of(Some(near.name()))?;
        if has_ipv6 {
            settled(near.name(), &link)?;
        }
        for address in addresses4() {
            ip_far(&link, &["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        for address in LURES6.iter().filter(|_| has_ipv6) {
            ip_far(&link, &["addr", "add", &format!("{address}/128"), "dev", "lo"])?;
        }
        let nameserver = within(link.namespace(), || Nameserver::start(RESOLVER.into()))?;
        let mut victims = Vec::new();
        for who in Who::ALL {
            victims.push((who, Victim::start(near, who, &link)?));
        }
        let far_scoped = scoped(&link).filter(|_| has_ipv6).unwrap_or_else(|| "fe80::1".into());
        let device = link.device.clone();
        let index = near.within(move || Ok(nix::net::if_::if_nametoindex(device.as_str())?))?;
        let tunnels = Tunnels::start(world, &link);
        Ok(Self { victims, _tunnels: tunnels, _nameserver: nameserver, link, far_scoped, index })
    }

    /// Lead the lures and the resolver over this link.
    pub(super) fn lead(&self, has_ipv6: bool) -> Result<()> {
        let via = self.link.far4.to_string();
        for address in addresses4() {
            self.link.ip(&["route", "replace", &address, "via", &via, "dev", &self.link.device])?;
        }
        let via = self.link.far6.to_string();
        for lure in LURES6.iter().filter(|_| has_ipv6) {
            let device = &self.link.device;
            self.link.ip(&["-6", "route", "replace", lure, "via", &via, "dev", device])?;
        }
        Ok(())
    }

    /// A process of the machine of that user, which holds a socket to the canary as fd 3.
    pub(super) fn victim(&self, who: Who) -> Option<u32> {
        self.victims.iter().find(|(of, _)| *of == who).map(|(_, victim)| victim.0.id())
    }
}

fn addresses4() -> impl Iterator<Item = String> {
    let own = [RESOLVER, IODINE, DNS2TCP].map(|address| address.to_string());
    LURES4.iter().map(|lure| (*lure).to_owned()).chain(own)
}

fn ip_far(link: &Link, args: &[&str]) -> Result<()> {
    crate::fixtures::netns::ip(&[&["-n", link.namespace()], args].concat())
}

fn shown(args: &[&str]) -> Result<Ended> {
    let mut command = Command::new("ip");
    command.args(args);
    Running::start(command)?.wait()
}

/// Wait until both ends may use their link-local addresses.
fn settled(near: &str, link: &Link) -> Result<()> {
    let tentative = |namespace: &str| {
        let args = ["-n", namespace, "-6", "-o", "addr", "show", "tentative"];
        shown(&args).is_ok_and(|ended| !ended.stdout.is_empty())
    };
    eventually("the link's addresses are no longer tentative", || {
        !tentative(link.namespace()) && !tentative(near)
    })
}

/// The link-local address at the far end.
fn scoped(link: &Link) -> Option<String> {
    let args = ["-n", link.namespace(), "-6", "-o", "addr", "show", "scope", "link"];
    let text = shown(&args).ok()?.stdout;
    let word = text.split_whitespace().find(|w| w.starts_with("fe80:"))?;
    Some(word.split('/').next()?.to_owned())
}

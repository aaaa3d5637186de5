//! What the attacks are played on: a stand-in for the host with links that lead out, a resolver
//! behind each, canaries, upstreams with good and bad certificates, services of the machine, and
//! processes to aim at.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kinds::{Mode, Who};
use super::machine::{Service, open_ping_groups, services};
use super::policy;
use super::side::{RESOLVER, Side};
use crate::fixtures::canary::Canary;
use crate::fixtures::host::Host;
use crate::fixtures::pki::Pki;
use crate::fixtures::upstream::Upstream;
use crate::fixtures::{Bench, Egret, Running, World};
use crate::needs::Need;

const FILES: &[(&str, &str)] = &[
    ("attack.py", include_str!("../probes/attack.py")),
    ("attack_around.py", include_str!("../probes/attack_around.py")),
    ("attack_flows.py", include_str!("../probes/attack_flows.py")),
    ("attack_hosts.py", include_str!("../probes/attack_hosts.py")),
    ("attack_names.py", include_str!("../probes/attack_names.py")),
    ("attack_parts.py", include_str!("../probes/attack_parts.py")),
    ("attack_slow.py", include_str!("../probes/attack_slow.py")),
    ("attack_sockets.py", include_str!("../probes/attack_sockets.py")),
    ("attack_system.py", include_str!("../probes/attack_system.py")),
    ("attack_tickets.py", include_str!("../probes/attack_tickets.py")),
    ("attack_tls.py", include_str!("../probes/attack_tls.py")),
    ("attack_uring.py", include_str!("../probes/attack_uring.py")),
];

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Where {
    /// Ungoverned, as a control.
    Outside,
    /// As an agent of this mode.
    Inside(Mode),
}

/// One run of a batch.
pub(super) struct Place {
    pub(super) at: Where,
    pub(super) who: Who,
    pub(super) number: usize,
}

impl Place {
    /// What an upstream finds in the path of this probe's request.
    pub(super) fn mark(&self, id: &str) -> String {
        format!("/mark-{}-{id}-", self.number)
    }
}

/// Fields are dropped in order.
pub(super) struct Scene {
    pki: Pki,
    pub(super) world: World,
    policies: BTreeMap<Mode, PathBuf>,
    others: Vec<(&'static str, Upstream)>,
    services: Vec<Service>,
    /// On every address of the host.
    pub(super) host: Canary,
    /// On the one port of loopback that an attached agent may dial.
    pub(super) local: Canary,
    sides: BTreeMap<Where, Side>,
    pub(super) machine: Rc<Host>,
    /// A program that runs what it is given as root.
    pub(super) setuid: PathBuf,
    pub(super) has_ipv6: bool,
    /// Seconds: what a probe waits for an answer, between two probes, and for a probe.
    pub(super) timeout: f64,
    pub(super) settle: f64,
    pub(super) patience: f64,
}

/// What stands inside the stand-in's network.
struct Inner {
    pki: Pki,
    world: World,
    others: Vec<(&'static str, Upstream)>,
    services: Vec<Service>,
    host: Canary,
    local: Canary,
}

impl Scene {
    pub(super) fn new(bench: &Bench, modes: &[Mode]) -> Result<Self> {
        let has_ipv6 = Need::Ipv6.is_met();
        let network = Host::network()?;
        let for_inner = bench.clone();
        let inner = network.within(move || Inner::new(&for_inner, has_ipv6))?;
        let Inner { pki, world, others, services, host, local } = inner;
        for (name, text) in FILES {
            world.write(name, text)?;
        }
        let resolv_conf = world.write(
            "resolv.conf",
            &format!("nameserver {RESOLVER}\noptions attempts:1 timeout:1\n"),
        )?;
        let machine = Rc::new(Host::new(network, &resolv_conf)?);
        let setuid = world.path("as-root");
        std::fs::copy("/usr/bin/env", &setuid)?;
        std::fs::set_permissions(&setuid, PermissionsExt::from_mode(0o4755))?;
        let mut policies = BTreeMap::new();
        let mut sides = BTreeMap::new();
        sides.insert(Where::Outside, Side::new(&machine, &world, has_ipv6)?);
        for mode in modes {
            let policy = policy::main(&world, *mode, &others, local.tcp.port())?;
            policies.insert(*mode, policy);
            sides.insert(Where::Inside(*mode), Side::new(&machine, &world, has_ipv6)?);
        }
        // An emulated CPU takes ten times as long.
        let slow = if speed() > Duration::from_millis(800) { 5.0 } else { 1.0 };
        if let Some(policy) = policies.get(&Mode::Run) {
            // The state folder is there from now on; and where egret cannot run, it says why here.
            Running::start(Egret::new(&world, policy).command(&["true"]))?.wait()?.expect(0)?;
        }
        Ok(Self {
            pki,
            world,
            policies,
            others,
            services,
            host,
            local,
            sides,
            machine,
            setuid,
            has_ipv6,
            timeout: 0.6 * slow,
            settle: 0.03 * slow,
            patience: 15.0 * slow,
        })
    }

    /// The side on which something runs.
    pub(super) fn side(&self, at: Where) -> &Side {
        &self.sides[&at]
    }

    /// Lead the lures and the resolver over one side's link.
    pub(super) fn lead(&self, at: Where) -> Result<()> {
        self.side(at).lead(self.has_ipv6)
    }

    /// The policy of the agent there; outside, where it only names a file, any.
    pub(super) fn policy(&self, at: Where) -> &Path {
        let of = match at {
            Where::Inside(mode) => self.policies.get(&mode),
            Where::Outside => self.policies.values().next(),
        };
        of.map_or(Path::new("/dev/null"), PathBuf::as_path)
    }

    /// The targets of all requests that any upstream saw.
    pub(super) fn marks(&self) -> Vec<String> {
        let all = self.others.iter().map(|(_, u)| u).chain([&self.world.https, &self.world.http]);
        all.flat_map(Upstream::seen).map(|s| s.target).collect()
    }

    /// Where the upstream of this name is.
    pub(super) fn upstream(&self, host: &str) -> SocketAddr {
        let other = self.others.iter().find(|(name, _)| *name == host);
        other.map_or(self.world.https.address, |(_, u)| u.address)
    }

    /// A server that a policy of the scene trusts.
    pub(super) fn good_server(&self, names: &[&str]) -> Result<Arc<rustls::ServerConfig>> {
        self.pki.other(names, false)
    }

    pub(super) fn service(&self, at: usize) -> Result<String> {
        Ok(self.services.get(at).context("a service")?.name.clone())
    }
}

impl Inner {
    /// In the calling thread's network namespace.
    fn new(bench: &Bench, has_ipv6: bool) -> Result<Self> {
        let world = World::new(bench)?;
        let pki = Pki::new(&["api.test"])?;
        world.write("more-ca.pem", &pki.ca_pem)?;
        // Early data, which the control must see accepted.
        let mut early = rustls::ServerConfig::clone(&*pki.other(&["early.test"], false)?);
        early.max_early_data_size = 16 << 10;
        // A session's CA has its key in memory only; this one has its name.
        let own = Pki::named(&format!("egret {}", world.name), "egret", &["own.test"])?;
        let files = world.path("files");
        let mut others = Vec::new();
        for (name, config) in [
            ("expired.test", pki.other(&["expired.test"], true)?),
            ("wrong.test", pki.other(&["another.test"], false)?),
            ("odd.test", pki.other(&["odd.test"], false)?),
            ("early.test", Arc::new(early)),
            ("unknown.test", Pki::new(&["unknown.test"])?.server()),
            ("own.test", own.server()),
        ] {
            others.push((name, Upstream::start(Some(config), files.clone())?));
        }
        let any: IpAddr =
            if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let host = Canary::start(any, 0)?;
        let local = Canary::start(Ipv4Addr::LOCALHOST.into(), 0)?;
        open_ping_groups();
        let services = services(&world);
        Ok(Self { pki, world, others, services, host, local })
    }
}

/// How long this machine takes to start a Python.
fn speed() -> Duration {
    let started = std::time::Instant::now();
    let _ = Command::new("python3").args(["-c", "import ssl, json"]).status();
    started.elapsed()
}

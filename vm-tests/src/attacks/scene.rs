//! What the attacks are played on: a link that leads out, a resolver behind it, canaries, upstreams
//! with good and bad certificates, services of the machine, and processes to aim at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::machine::{PingGroups, Service, Victim, services};
use super::nameserver::Nameserver;
use super::{Setup, Who};
use crate::fixtures::agent::eventually;
use crate::fixtures::canary::Canary;
use crate::fixtures::link::{Link, ip, within};
use crate::fixtures::pki::Pki;
use crate::fixtures::upstream::Upstream;
use crate::fixtures::{Bench, Egret, Running, World};
use crate::needs::Need;

const FILES: &[(&str, &str)] = &[
    ("attack.py", include_str!("../probes/attack.py")),
    ("attack_around.py", include_str!("../probes/attack_around.py")),
    ("attack_names.py", include_str!("../probes/attack_names.py")),
    ("attack_parts.py", include_str!("../probes/attack_parts.py")),
    ("attack_sockets.py", include_str!("../probes/attack_sockets.py")),
    ("attack_system.py", include_str!("../probes/attack_system.py")),
    ("attack_tls.py", include_str!("../probes/attack_tls.py")),
    ("attack_uring.py", include_str!("../probes/attack_uring.py")),
];

/// The resolver's address, and where names lead that must not be dialled: all routed to the link.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
const LURES4: &[&str] =
    &["93.184.215.77", "10.77.0.1", "172.16.77.1", "192.168.77.1", "100.64.77.1", "169.254.77.7"];
const LURES6: &[&str] = &["64:ff9b::c633:6401", "2002:c633:6401::1", "fd77::1"];

/// Where the agent listens when somebody knocks.
const KNOCKED: u16 = 47_011;

/// One run of a batch.
pub(super) struct Place {
    pub(super) inside: bool,
    pub(super) who: Who,
    pub(super) number: usize,
}

impl Place {
    /// What an upstream finds in the path of this probe's request.
    pub(super) fn mark(&self, id: &str) -> String {
        format!("/mark-{}-{id}-", self.number)
    }
}

/// A link of its own for the controls and another for the attacks: what is left of the first, late
/// answers among it, is never counted for the second. Fields are dropped in order.
pub(super) struct Side {
    victims: Vec<(Who, Victim)>,
    _nameserver: Nameserver,
    pub(super) link: Link,
    far_scoped: String,
    index: u32,
}

impl Side {
    fn new(has_ipv6: bool) -> Result<Self> {
        let link = Link::up()?;
        if has_ipv6 {
            settled(&link)?;
        }
        let nameserver = nameserver(&link, has_ipv6)?;
        let mut victims = Vec::new();
        for who in Who::ALL {
            victims.push((who, Victim::start(who, &link)?));
        }
        let far_scoped = scoped(&link).filter(|_| has_ipv6).unwrap_or_else(|| "fe80::1".into());
        let index = nix::net::if_::if_nametoindex(link.device.as_str())?;
        Ok(Self { victims, _nameserver: nameserver, link, far_scoped, index })
    }
}

/// Fields are dropped in order.
pub(super) struct Scene {
    pub(super) world: World,
    policy: PathBuf,
    others: Vec<(&'static str, Upstream)>,
    services: Vec<Service>,
    /// On every address of the host.
    pub(super) host: Canary,
    outside: Side,
    inside: Side,
    _pings: PingGroups,
    pub(super) has_ipv6: bool,
    /// Seconds: what a probe waits for an answer, between two probes, and for a probe.
    pub(super) timeout: f64,
    pub(super) settle: f64,
    pub(super) patience: f64,
}

impl Scene {
    pub(super) fn new(bench: &Bench) -> Result<Self> {
        let world = World::new(bench)?;
        for (name, text) in FILES {
            world.write(name, text)?;
        }
        let has_ipv6 = Need::Ipv6.is_met();
        world.write(
            "resolv.conf",
            &format!("nameserver {RESOLVER}\noptions attempts:1 timeout:1\n"),
        )?;
        let pki = Pki::new(&["api.test"])?;
        let files = world.path("files");
        let mut others = Vec::new();
        for (name, config) in [
            ("expired.test", pki.other(&["expired.test"], true)?),
            ("wrong.test", pki.other(&["another.test"], false)?),
            ("odd.test", pki.other(&["odd.test"], false)?),
            ("unknown.test", Pki::new(&["unknown.test"])?.server()),
        ] {
            others.push((name, Upstream::start(Some(config), files.clone())?));
        }
        let policy = policy(&world, &others, &pki.ca_pem)?;
        let any: IpAddr =
            if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let host = Canary::start(any, 0)?;
        let services = services(&world);
        // An emulated CPU takes ten times as long.
        let slow = if speed() > Duration::from_millis(800) { 5.0 } else { 1.0 };
        // The state folder is there from now on; and where egret cannot run, it says why here.
        Running::start(Egret::new(&world, &policy).command(&["true"]))?.wait()?.expect(0)?;
        Ok(Self {
            world,
            policy,
            others,
            services,
            host,
            outside: Side::new(has_ipv6)?,
            inside: Side::new(has_ipv6)?,
            _pings: PingGroups::open(),
            has_ipv6,
            timeout: 0.6 * slow,
            settle: 0.03 * slow,
            patience: 15.0 * slow,
        })
    }

    /// The side on which a probe runs.
    pub(super) fn side(&self, inside: bool) -> &Side {
        if inside { &self.inside } else { &self.outside }
    }

    /// Lead the lures and the resolver over one side's link; they go with its device.
    pub(super) fn lead(&self, inside: bool) -> Result<()> {
        let link = &self.side(inside).link;
        let (via, resolver) = (link.far4.to_string(), RESOLVER.to_string());
        for lure in LURES4.iter().copied().chain([resolver.as_str()]) {
            let route = ["route", "replace", lure, "via", &via, "dev", &link.device];
            ip(&route)?;
        }
        let via = link.far6.to_string();
        for lure in LURES6.iter().filter(|_| self.has_ipv6) {
            ip(&["-6", "route", "replace", lure, "via", &via, "dev", &link.device])?;
        }
        Ok(())
    }

    /// `egret run` with the scene's policy.
    pub(super) fn egret(&self, who: Who, setup: Setup) -> Egret<'_> {
        let uid = who.uid();
        let egret = Egret::new(&self.world, &self.policy)
            .user(&format!("{uid}:{uid}"))
            .env("ATTACK_TIMEOUT", &self.timeout.to_string());
        if setup == Setup::Uring { egret.option("--allow-io-uring") } else { egret }
    }

    /// The targets of all requests that any upstream saw.
    pub(super) fn marks(&self) -> Vec<String> {
        let all = self.others.iter().map(|(_, u)| u).chain([&self.world.https, &self.world.http]);
        all.flat_map(Upstream::seen).map(|s| s.target).collect()
    }

    /// A word of a probe's arguments.
    pub(super) fn word(&self, word: &str, place: &Place, id: &str) -> Result<String> {
        let Some(name) = word.strip_prefix('$') else { return Ok(word.to_owned()) };
        let side = self.side(place.inside);
        let link = &side.link;
        if let Some(host) = name.strip_prefix("dial:") {
            return Ok(if place.inside { "-".into() } else { self.upstream(host)?.to_string() });
        }
        if let Some(service) = name.strip_prefix("service:") {
            let at = service.parse::<usize>()?;
            return Ok(self.services.get(at).context("a service")?.name.clone());
        }
        if let Some((host, port)) = name.split_once(':') {
            let host = self.word(&format!("${host}"), place, id)?;
            return Ok(format!("{host}:{}", self.word(port, place, id)?));
        }
        Ok(match name {
            "far4" => link.far4.to_string(),
            "far6" => link.far6.to_string(),
            "tcp4" => link.canary4.tcp.port().to_string(),
            "udp4" => link.canary4.udp.port().to_string(),
            "tcp6" => link.canary6.tcp.port().to_string(),
            "udp6" => link.canary6.udp.port().to_string(),
            "broadcast" => Ipv4Addr::from(u32::from(link.far4) + 1).to_string(),
            "dev" => link.device.clone(),
            "index" => side.index.to_string(),
            "scoped" => side.far_scoped.clone(),
            "host" => self.host.tcp.port().to_string(),
            "knocked" => KNOCKED.to_string(),
            "resolver" => RESOLVER.to_string(),
            "mark" => place.mark(id),
            "victim" => {
                let of = side.victims.iter().find(|(who, _)| *who == place.who);
                of.context("a victim")?.1.0.id().to_string()
            }
            "policy" => self.policy.display().to_string(),
            "state" => self.world.state().display().to_string(),
            "beside-egret" => format!("{}.attack", self.world.bench.egret.display()),
            _ => bail!("the scene has no ${name}"),
        })
    }

    fn upstream(&self, host: &str) -> Result<SocketAddr> {
        let other = self.others.iter().find(|(name, _)| *name == host);
        Ok(other.map_or(self.world.https.address, |(_, u)| u.address))
    }

    /// Somebody far away who wants to talk to the agent, until it is dropped.
    pub(super) fn knock(&self, inside: bool) -> Knocking {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, near) = (stop.clone(), self.side(inside).link.near4);
        let namespace = self.side(inside).link.namespace().to_owned();
        let thread = std::thread::spawn(move || {
            let _ = within(&namespace, move || {
                let to = SocketAddr::new(near.into(), KNOCKED);
                while !stopped.load(Ordering::SeqCst) {
                    let _ = TcpStream::connect_timeout(&to, Duration::from_millis(200));
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
        });
        Knocking { stop, thread: Some(thread) }
    }
}

/// Ends when it is dropped.
pub(super) struct Knocking {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long this machine takes to start a Python.
fn speed() -> Duration {
    let started = std::time::Instant::now();
    let _ = Command::new("python3").args(["-c", "import ssl, json"]).status();
    started.elapsed()
}

/// The resolver at the far end, and there the lures, which answer that nobody listens.
fn nameserver(link: &Link, has_ipv6: bool) -> Result<Nameserver> {
    let (ns, resolver) = (link.namespace(), RESOLVER.to_string());
    for address in LURES4.iter().copied().chain([resolver.as_str()]) {
        ip(&["-n", ns, "addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    for address in LURES6.iter().filter(|_| has_ipv6) {
        ip(&["-n", ns, "addr", "add", &format!("{address}/128"), "dev", "lo"])?;
    }
    within(ns, || Nameserver::start(RESOLVER.into()))
}

/// Wait until both ends may use their link-local addresses.
fn settled(link: &Link) -> Result<()> {
    let tentative = |args: &[&str]| {
        let end = ["-6", "-o", "addr", "show", "tentative"];
        let out = Command::new("ip").args(args).args(end).output();
        out.is_ok_and(|out| !out.stdout.is_empty())
    };
    eventually("the link's addresses are no longer tentative", || {
        !tentative(&["-n", link.namespace()]) && !tentative(&[])
    })
}

/// The link-local address at the far end.
fn scoped(link: &Link) -> Option<String> {
    let args = ["-n", link.namespace(), "-6", "-o", "addr", "show", "scope", "link"];
    let out = Command::new("ip").args(args).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let words = text.split_whitespace().find(|w| w.starts_with("fe80:"))?;
    Some(words.split('/').next()?.to_owned())
}

fn policy(world: &World, others: &[(&str, Upstream)], ca: &str) -> Result<PathBuf> {
    let more = world.write("more-ca.pem", ca)?;
    let resolve: Vec<String> =
        others.iter().map(|(name, u)| format!("\"{name}\" = \"{}\"", u.address)).collect();
    let usual = world.resolve();
    let usual = usual.trim().trim_end_matches('}');
    let https = world.https.address;
    let rule = |name: &str, hosts: &str, more: &str| {
        format!("[[rule]]\nname = \"{name}\"\naction = \"allow\"\nhosts = [{hosts}]\n{more}\n\n")
    };
    let text = format!(
        "version = 1\nname = \"{}\"\n\n{}\n\
         [credentials.bad]\nsecret = \"env:E2E_TOKEN\"\nbearer = true\n\
         hosts = [\"expired.test\", \"wrong.test\", \"unknown.test\"]\n\n{}{}{}{}{}\
         [upstream]\nca = [\"{}\", \"{}\"]\n{usual}, {}, \"pass.test\" = \"{https}\" }}\n",
        world.name,
        world.rules(),
        rule("lures", "\"*.lure.test\"", "protocol = \"http\""),
        rule("wild", "\"**.wild.test\"", "protocol = \"https\""),
        rule("pass", "\"pass.test\"", "protocol = \"tls\""),
        rule("odd", "\"odd.test\"", "protocol = \"https\""),
        rule(
            "bad certificates",
            "\"expired.test\", \"wrong.test\", \"unknown.test\"",
            "protocol = \"https\"\ncredentials = [\"bad\"]"
        ),
        world.path("ca.pem").display(),
        more.display(),
        resolve.join(", "),
    );
    world.write("attacks.toml", &text)
}

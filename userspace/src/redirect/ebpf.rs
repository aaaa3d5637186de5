//! The kernel programs, loaded: their maps, their links, their counters.
//!
//! Who keeps them alive: a link lives as long as its descriptor. When `run` dies its links go with
//! it, and what then stays closed is the agent's network namespace, which has nothing but loopback.
//! The daemon pins instead, so that its death changes nothing until the lease ends.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_ebpf::abi::{
    AgentEntry, FlowKey, Hook, Lease, MAX_FLOWS, MAX_NETNS, Origin, STAT_EVENTS_DROPPED,
    STAT_FLOWS_LOST,
};
use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use nix::time::{ClockId, clock_gettime};

pub use agent_ebpf::abi::{AgentFlags, ListenerPorts};

pub use super::attachment::Attachment;
use super::cgroup::CgroupError;
use super::events::KernelEvent;
use super::load::{self, Loaded, Source};
use super::orig_dst::KernelFlow;
use super::pins::{MapPins, PinError, Pins};
use crate::identify::{CgroupId, NetnsCookie};
use crate::sys::bpf;

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// How long one [`Kernel::beat`] lets agents connect. Beat several times in this time.
    pub lease: Duration,
    /// How many connections may wait for the interceptor; None: the object's own limit.
    pub max_flows: Option<u32>,
    /// A folder on bpffs (see [`super::bpffs`]) in which maps and links are pinned, to be adopted by
    /// the next egret.
    pub pin_dir: Option<PathBuf>,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(3), max_flows: None, pin_dir: None }
    }
}

/// Why the kernel side does not work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "the kernel does not let this process use BPF: egret must run as root, outside of containers that forbid bpf(2)"
    )]
    NotPermitted(#[source] io::Error),
    #[error("the kernel programs cannot be loaded: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the kernel does not accept the program `{program}` (egret needs Linux 5.15 or RHEL 9.2): {source}\n{log}"
    )]
    Program {
        program: &'static str,
        source: io::Error,
        /// What the verifier said.
        log: String,
    },
    #[error("the kernel object lacks `{0}`: it was not built from this source")]
    Missing(&'static str),
    #[error("the program `{program}` cannot be attached to {cgroup}: {source}")]
    Attach { program: &'static str, cgroup: PathBuf, source: io::Error },
    #[error("the program `{program}` cannot be replaced in place: {source}")]
    Replace { program: &'static str, source: io::Error },
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error(transparent)]
    Cgroup(CgroupError),
    #[error("the clock cannot be read: {0}")]
    Clock(#[source] nix::errno::Errno),
    #[error("the kernel map `{map}` does not answer: {source}")]
    Map { map: &'static str, source: io::Error },
}

/// The loaded programs and maps. Every method takes `&self` and may be called from any thread.
pub struct Kernel {
    programs: Vec<(Hook, OwnedFd)>,
    agents: OwnedFd,
    listeners: OwnedFd,
    flows: OwnedFd,
    lease: OwnedFd,
    events: Mutex<RingBuf<MapData>>,
    stats: PerCpuArray<MapData, u64>,
    lease_limit: Duration,
    pins: Option<Pins>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("programs", &self.programs.len()).finish_non_exhaustive()
    }
}

/// How often each program ran, and what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    runs: BTreeMap<&'static str, u64>,
    /// Refusals that did not fit in the ring: they happened, without a record of each.
    pub events_dropped: u64,
    /// Connections whose flow found no room after `connect` had passed; the interceptor refused.
    pub flows_lost: u64,
}

impl KernelStats {
    /// How often a program ran, on all CPUs together.
    pub fn runs(&self, hook: Hook) -> u64 {
        self.runs.get(hook.name()).copied().unwrap_or(0)
    }
}

impl Kernel {
    /// Loads every program and map. Nothing is attached, and no agent is known. With a `pin_dir` the
    /// maps are pinned there.
    ///
    /// # Errors
    /// Names the program or map that the kernel does not accept; [`PinError::AlreadyPinned`] when
    /// there are maps to adopt.
    pub fn load(options: &KernelOptions) -> Result<Self, KernelError> {
        let pins = options.pin_dir.clone().map(Pins::new);
        if let Some(pins) = &pins {
            pins.clear_for_new_maps()?;
            pins.prepare()?;
        }
        let loaded = load::load(options, pins.as_ref().map_or(Source::Own, Source::Pin))?;
        let kernel = Self::new(loaded, options, pins)?;
        kernel.beat()?;
        Ok(kernel)
    }

    /// Loads every program onto the maps that an earlier egret pinned: all of them, or none.
    /// Follow it with [`Kernel::adopt_attachments`]. The lease is not renewed: that is for the part
    /// of egret that serves, once it does.
    ///
    /// # Errors
    /// Names the map that is missing or that has another layout.
    pub fn adopt(options: &KernelOptions) -> Result<Self, KernelError> {
        let pins = Pins::new(options.pin_dir.clone().ok_or(PinError::NotPinned)?);
        pins.require_maps()?;
        pins.prepare()?;
        let loaded = load::load(options, Source::Adopt(&pins))?;
        let kernel = Self::new(loaded, options, Some(pins))?;
        kernel.forget_listeners()?;
        Ok(kernel)
    }

    /// [`Kernel::adopt`] when every map is pinned, [`Kernel::load`] otherwise: how a daemon starts.
    ///
    /// # Errors
    /// As those two.
    pub fn load_or_adopt(options: &KernelOptions) -> Result<Self, KernelError> {
        match options.pin_dir.clone().map(|dir| Pins::new(dir).maps()).transpose()? {
            Some(MapPins::Complete) => Self::adopt(options),
            Some(_) | None => Self::load(options),
        }
    }

    fn new(
        loaded: Loaded,
        options: &KernelOptions,
        pins: Option<Pins>,
    ) -> Result<Self, KernelError> {
        let Loaded { mut maps, programs } = loaded;
        Ok(Self {
            programs,
            agents: map_fd(&mut maps, "AGENTS")?,
            listeners: map_fd(&mut maps, "LISTENERS")?,
            flows: map_fd(&mut maps, "FLOWS")?,
            lease: map_fd(&mut maps, "LEASE")?,
            events: Mutex::new(typed(&mut maps, "EVENTS", Map::RingBuf)?),
            stats: typed(&mut maps, "STATS", Map::PerCpuArray)?,
            lease_limit: options.lease,
            pins,
        })
    }

    /// The program of a hook.
    pub(super) fn program(&self, hook: Hook) -> Result<BorrowedFd<'_>, KernelError> {
        let found = self.programs.iter().find(|(h, _)| *h == hook);
        found.map(|(_, fd)| fd.as_fd()).ok_or(KernelError::Missing(hook.name()))
    }

    /// Where the maps and links are pinned.
    ///
    /// # Errors
    /// When they are not.
    pub fn pins(&self) -> Result<&Pins, PinError> {
        self.pins.as_ref().ok_or(PinError::NotPinned)
    }

    /// Lets an agent reach its interceptor. Until this, its cgroup is refused everything.
    ///
    /// # Errors
    /// When the map is full or gone.
    pub fn set_agent(&self, agent: CgroupId, flags: AgentFlags) -> Result<(), KernelError> {
        let entry = AgentEntry { flags, pad: 0 };
        bpf::map_set(self.agents.as_fd(), &agent.0, &entry).map_err(at("AGENTS"))
    }

    /// Forgets an agent: from now on it is refused everything.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn remove_agent(&self, agent: CgroupId) -> Result<(), KernelError> {
        bpf::map_remove(self.agents.as_fd(), &agent.0).map(drop).map_err(at("AGENTS"))
    }

    /// Says where the interceptor of a network namespace listens.
    ///
    /// # Errors
    /// When the map is full or gone.
    pub fn set_listeners(&self, ns: NetnsCookie, ports: ListenerPorts) -> Result<(), KernelError> {
        bpf::map_set(self.listeners.as_fd(), &ns.0, &ports).map_err(at("LISTENERS"))
    }

    /// Forgets the interceptor of a network namespace.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn remove_listeners(&self, ns: NetnsCookie) -> Result<(), KernelError> {
        bpf::map_remove(self.listeners.as_fd(), &ns.0).map(drop).map_err(at("LISTENERS"))
    }

    /// The listeners of an egret that died died with it, and anybody may have their ports now.
    fn forget_listeners(&self) -> Result<(), KernelError> {
        for _ in 0..MAX_NETNS {
            let first = bpf::map_next_key::<u64>(self.listeners.as_fd(), None);
            let Some(cookie) = first.map_err(at("LISTENERS"))? else { break };
            self.remove_listeners(NetnsCookie(cookie))?;
        }
        Ok(())
    }

    /// Takes the flow of an accepted connection. The second caller gets None: an entry speaks for
    /// one connection only. See [`super::orig_dst::flow_key`].
    ///
    /// A connection that was reset before it was accepted can share its addresses with a later one:
    /// after this call, ask the socket for its peer and drop it if there is none.
    ///
    /// # Errors
    /// When the map is gone; treat it as "no flow".
    pub fn take_flow(&self, key: &FlowKey) -> Result<Option<KernelFlow>, KernelError> {
        let origin: Option<Origin> = bpf::map_take(self.flows.as_fd(), key).map_err(at("FLOWS"))?;
        Ok(origin.as_ref().map(KernelFlow::from))
    }

    /// Removes flows that nobody took within `age`, and answers how many. Call it now and then: a
    /// client that closed before it was accepted leaves its flow behind if it never is.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn sweep_flows(&self, age: Duration) -> Result<usize, KernelError> {
        let oldest = nanos(now(ClockId::CLOCK_BOOTTIME)?.saturating_sub(age));
        let flows = self.flows.as_fd();
        let mut stale = Vec::new();
        let mut key = bpf::map_next_key::<FlowKey>(flows, None).map_err(at("FLOWS"))?;
        // Entries that come and go meanwhile can make the walk start over, so it is bounded by what
        // the map can hold.
        for _ in 0..MAX_FLOWS {
            let Some(current) = key else { break };
            let origin: Option<Origin> = bpf::map_get(flows, &current).map_err(at("FLOWS"))?;
            if origin.is_some_and(|o| o.time < oldest) {
                stale.push(current);
            }
            key = bpf::map_next_key(flows, Some(&current)).map_err(at("FLOWS"))?;
        }
        for key in &stale {
            bpf::map_remove(flows, key).map_err(at("FLOWS"))?;
        }
        Ok(stale.len())
    }

    /// Renews the lease. Call it from the part of egret whose health it stands for.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn beat(&self) -> Result<(), KernelError> {
        let beat = nanos(now(ClockId::CLOCK_MONOTONIC)?).max(1);
        self.set_lease(Lease { beat, limit: nanos(self.lease_limit) })
    }

    /// Ends the lease at once: every agent is refused until the next [`Kernel::beat`].
    ///
    /// # Errors
    /// When the map is gone.
    pub fn expire(&self) -> Result<(), KernelError> {
        self.set_lease(Lease::default())
    }

    fn set_lease(&self, lease: Lease) -> Result<(), KernelError> {
        bpf::map_set(self.lease.as_fd(), &0u32, &lease).map_err(at("LEASE"))
    }

    /// Takes every refusal that is waiting, oldest first. Nobody is woken for one: call it on a
    /// timer, and once more at the end.
    pub fn events(&self) -> Vec<KernelEvent> {
        let mut ring = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        while let Some(entry) = ring.next() {
            events.extend(KernelEvent::parse(&entry));
        }
        events
    }

    /// The counters, summed over all CPUs.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn stats(&self) -> Result<KernelStats, KernelError> {
        let counter = |index: u32| {
            self.stats
                .get(&index, 0)
                .map(|per_cpu| per_cpu.iter().sum())
                .map_err(|e| KernelError::Map { map: "STATS", source: io::Error::other(e) })
        };
        let mut stats = KernelStats {
            events_dropped: counter(STAT_EVENTS_DROPPED)?,
            flows_lost: counter(STAT_FLOWS_LOST)?,
            ..KernelStats::default()
        };
        for hook in Hook::ALL {
            stats.runs.insert(hook.name(), counter(*hook as u32)?);
        }
        Ok(stats)
    }

    /// The map of listeners, for the self-test, whose child writes it from inside its namespace.
    pub(super) fn listeners_fd(&self) -> BorrowedFd<'_> {
        self.listeners.as_fd()
    }

    /// The map of flows, for the self-test.
    pub(super) fn flows_fd(&self) -> BorrowedFd<'_> {
        self.flows.as_fd()
    }
}

/// The kernel's number of each hook (`enum bpf_attach_type` in include/uapi/linux/bpf.h).
pub(crate) const fn attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::Egress => 1,
        Hook::SockCreate => 2,
        Hook::SockOps => 3,
        Hook::Bind4 => 8,
        Hook::Bind6 => 9,
        Hook::Connect4 => 10,
        Hook::Connect6 => 11,
        Hook::Sendmsg4 => 14,
        Hook::Sendmsg6 => 15,
        Hook::Recvmsg4 => 19,
        Hook::Recvmsg6 => 20,
        Hook::Getpeername4 => 29,
        Hook::Getpeername6 => 30,
        Hook::SockRelease => 34,
    }
}

type Maps = HashMap<String, MapData>;

fn map_fd(maps: &mut Maps, name: &'static str) -> Result<OwnedFd, KernelError> {
    let data = maps.remove(name).ok_or(KernelError::Missing(name))?;
    data.fd().as_fd().try_clone_to_owned().map_err(at(name))
}

fn typed<T: TryFrom<Map>>(
    maps: &mut Maps,
    name: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<T, KernelError> {
    let data = maps.remove(name).ok_or(KernelError::Missing(name))?;
    T::try_from(kind(data)).map_err(|_| KernelError::Missing(name))
}

fn at(map: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Map { map, source }
}

fn now(clock: ClockId) -> Result<Duration, KernelError> {
    clock_gettime(clock).map(Duration::from).map_err(KernelError::Clock)
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

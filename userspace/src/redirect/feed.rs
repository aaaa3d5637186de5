//! What serving agents needs of the kernel, and nothing more: the flows to take, the lease to renew,
//! the refusals and the counters to read. The process that reads what agents send holds these four
//! descriptors and cannot attach, detach or name an agent.
//!
//! Only commands of bpf(2) on descriptors are used (lookup, update, delete, next key, lookup and
//! delete, information) and mmap(2) of the ring. Linux lets a process without any capability do that
//! since 5.19; before, only where `kernel.unprivileged_bpf_disabled` is 0.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_ebpf::abi::{
    FlowKey, Hook, Lease, MAX_FLOWS, Origin, STAT_EVENTS_DROPPED, STAT_FLOWS_LOST,
};
use aya::maps::{Map, MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};

use super::ebpf::{KernelError, at};
use super::events::KernelEvent;
use super::orig_dst::KernelFlow;
use super::pins::PinError;
use crate::sys::bpf;
use crate::sys::bpf_object::{self, MapShape};

// Map types of include/uapi/linux/bpf.h.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const RING: u32 = 27;

/// The maps in the order in which their descriptors travel, each with its shape, so that none can
/// be taken for another.
const PARTS: [(&str, MapShape); 4] = [
    ("FLOWS", shape(HASH, size_of::<FlowKey>(), size_of::<Origin>())),
    ("LEASE", shape(ARRAY, size_of::<u32>(), size_of::<Lease>())),
    ("EVENTS", shape(RING, 0, 0)),
    ("STATS", shape(PER_CPU_ARRAY, size_of::<u32>(), size_of::<u64>())),
];

const fn shape(kind: u32, key: usize, value: usize) -> MapShape {
    MapShape { kind, key_size: key as u32, value_size: value as u32 }
}

/// The maps of the serving side. Every method takes `&self` and may be called from any thread.
pub struct Feed {
    flows: OwnedFd,
    lease: OwnedFd,
    ring: OwnedFd,
    stats: OwnedFd,
    events: Mutex<RingBuf<MapData>>,
    limit: Duration,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("limit", &self.limit).finish_non_exhaustive()
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

impl Feed {
    /// From the descriptors that [`Feed::fds`] has in the process that loaded the programs. `lease`
    /// is how long one [`Feed::beat`] lets agents connect; beat several times in this time.
    ///
    /// # Errors
    /// When one of them is not the map that stands at its place.
    pub fn from_fds(fds: [OwnedFd; 4], lease: Duration) -> Result<Self, KernelError> {
        for (fd, (name, expected)) in fds.iter().zip(PARTS) {
            let found = bpf_object::map_shape(fd.as_fd()).map_err(at(name))?;
            if found != expected {
                return Err(PinError::Layout { role: name }.into());
            }
        }
        let [flows, lease_map, ring, stats] = fds;
        let events = Mutex::new(open_ring(&ring)?);
        Ok(Self { flows, lease: lease_map, ring, stats, events, limit: lease })
    }

    /// The descriptors, in the order that [`Feed::from_fds`] takes.
    pub fn fds(&self) -> [BorrowedFd<'_>; 4] {
        [self.flows.as_fd(), self.lease.as_fd(), self.ring.as_fd(), self.stats.as_fd()]
    }

    /// How long one beat is good for.
    pub fn limit(&self) -> Duration {
        self.limit
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
        self.set_lease(Lease { beat, limit: nanos(self.limit) })
    }

    /// Ends the lease at once: every agent is refused until the next [`Feed::beat`].
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
    ///
    /// One process at a time: another that has read from the same ring must not go on.
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
        let counter =
            |index: u32| bpf::map_sum_per_cpu(self.stats.as_fd(), &index).map_err(at("STATS"));
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

    /// The map of flows, for the self-test.
    pub(super) fn flows_fd(&self) -> BorrowedFd<'_> {
        self.flows.as_fd()
    }
}

/// Maps the ring into this process, which needs no more than its descriptor.
fn open_ring(fd: &OwnedFd) -> Result<RingBuf<MapData>, KernelError> {
    let fd = fd.try_clone().map_err(at("EVENTS"))?;
    let failed = |e: aya::maps::MapError| at("EVENTS")(io::Error::other(e));
    let data = MapData::from_fd(fd).map_err(failed)?;
    RingBuf::try_from(Map::RingBuf(data)).map_err(failed)
}

fn now(clock: ClockId) -> Result<Duration, KernelError> {
    clock_gettime(clock).map(Duration::from).map_err(KernelError::Clock)
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

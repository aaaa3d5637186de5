//! The maps. Userspace writes `AGENTS`, `LISTENERS`, `PORTS`, `LOCAL` and `LEASE`; the programs
//! write the rest.

use core::ffi::c_void;
use core::ptr;

use agent_ebpf::abi::{
    AgentEntry, EVENT_RING, Event, FlowKey, Lease, ListenerKey, ListenerPorts, LocalKey,
    MAX_AGENTS, MAX_FLOWS, MAX_LISTENERS, MAX_LOCAL, MAX_PORTS, Origin, PortKey,
    STATS as STATS_ENTRIES, SocketState,
};
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::btf_map;

/// Entries are allocated when used: full-size tables would cost every `run` megabytes of kernel
/// memory that it never needs.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// cgroup id → what holds for the agent.
#[btf_map]
pub(crate) static AGENTS: HashMap<u64, AgentEntry, MAX_AGENTS, ON_DEMAND> = HashMap::new();

/// Network namespace and agent → where the agent's interceptor listens.
#[btf_map]
pub(crate) static LISTENERS: HashMap<ListenerKey, ListenerPorts, MAX_LISTENERS, ON_DEMAND> =
    HashMap::new();

/// Network namespace and port → the agent whose interceptor has the port.
#[btf_map]
pub(crate) static PORTS: HashMap<PortKey, u64, MAX_PORTS, ON_DEMAND> = HashMap::new();

/// Agent and port → whether the policy opens it, in a namespace that is shared with others.
#[btf_map]
pub(crate) static LOCAL: HashMap<LocalKey, u32, MAX_LOCAL, ON_DEMAND> = HashMap::new();

/// The heartbeat of the interceptor.
#[btf_map]
pub(crate) static LEASE: Array<Lease, 1> = Array::new();

/// What was dialled on a socket. It lives with the socket, so it can neither leak nor be evicted.
#[btf_map]
pub(crate) static SOCKS: SkStorage<SocketState> = SkStorage::new();

/// The agent that bound a socket in a namespace that is shared with others, or that sends from it.
#[btf_map]
pub(crate) static OWNERS: SkStorage<u64> = SkStorage::new();

/// Connection → where it was meant to go, until the interceptor takes it.
#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, Origin, MAX_FLOWS, ON_DEMAND> = HashMap::new();

/// Refusals, for the audit log.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, EVENT_RING> = RingBuf::new();

/// Runs of each hook, then lost events and lost flows.
#[btf_map]
pub(crate) static STATS: PerCpuArray<u64, STATS_ENTRIES> = PerCpuArray::new();

/// The state of a socket, if it has any. aya's own accessor takes only the context of an address
/// hook; here `socket` is whatever the program type passes (a `bpf_sock`, or the context itself).
///
/// The memory belongs to the socket and stays valid while the program runs.
#[inline(always)]
pub(crate) fn socket_state(socket: *mut c_void) -> Option<*mut SocketState> {
    storage(&raw const SOCKS, socket, 0)
}

/// The state of a socket, made (all zero) if it has none.
#[inline(always)]
pub(crate) fn socket_state_or_new(socket: *mut c_void) -> Option<*mut SocketState> {
    storage(&raw const SOCKS, socket, BPF_SK_STORAGE_GET_F_CREATE)
}

/// Forgets what was dialled on a socket.
#[inline(always)]
pub(crate) fn forget_socket(socket: *mut c_void) {
    // SAFETY: as below. That there was nothing to forget is no failure.
    unsafe { bpf_sk_storage_delete((&raw const SOCKS).cast_mut().cast(), socket) };
}

/// Whose a socket is, if anybody's.
#[inline(always)]
pub(crate) fn owner(socket: *mut c_void) -> Option<*mut u64> {
    storage(&raw const OWNERS, socket, 0)
}

/// Whose a socket is; nobody's (0) if that was never said.
#[inline(always)]
pub(crate) fn owner_or_new(socket: *mut c_void) -> Option<*mut u64> {
    storage(&raw const OWNERS, socket, BPF_SK_STORAGE_GET_F_CREATE)
}

#[inline(always)]
fn storage<T>(map: *const SkStorage<T>, socket: *mut c_void, flags: u32) -> Option<*mut T> {
    // SAFETY: the map is a socket storage of `T`; the verifier checks `socket`.
    let value = unsafe {
        bpf_sk_storage_get(map.cast_mut().cast(), socket, ptr::null_mut(), u64::from(flags))
    };
    (!value.is_null()).then_some(value.cast())
}

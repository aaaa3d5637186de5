//! Pure: the layout of everything that crosses between the kernel programs and userspace.
//!
//! Every structure is `repr(C)` with its padding written out, because the kernel compares map
//! keys byte by byte and the verifier refuses to copy uninitialised bytes. An all-zero value
//! means "deny" wherever a value can be looked up.

use crate::address::{Address, Port};

pub use crate::hook::{Closed, Hook};

/// Raised whenever a map that is pinned changes its layout or its meaning: programs of one version
/// never meet maps of another.
pub const ABI_VERSION: u32 = 2;

pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;

/// How many flows may wait for the interceptor at once. More makes `connect` fail.
pub const MAX_FLOWS: usize = 65_536;
/// How many agents one kernel object governs.
pub const MAX_AGENTS: usize = 4_096;
/// How many pairs of an agent and a network namespace can have listeners.
pub const MAX_LISTENERS: usize = 8_192;
/// How many ports of interceptors are known, in all namespaces together.
pub const MAX_PORTS: usize = 4 * MAX_LISTENERS;
/// How many ports policies can open on shared loopback, for all agents together.
pub const MAX_LOCAL: usize = 65_536;
/// Size of the ring of events, in bytes. A power of two and a multiple of the page size.
pub const EVENT_RING: usize = 256 * 1024;
/// An agent's root lies at most this deep below the root of the hierarchy (which is level 0).
/// Deeper groups that an agent makes for itself are governed all the same.
pub const MAX_AGENT_LEVEL: u32 = 32;

/// Value of `AGENTS`, whose key is a cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentEntry {
    pub flags: AgentFlags,
    pub pad: u32,
}

/// What holds for an agent. Zero denies.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentFlags(pub u32);

impl AgentFlags {
    /// The agent may reach its interceptor.
    pub const ACTIVE: Self = Self(1);
    /// Its network namespace has nothing but loopback and nobody else in it, so loopback is its
    /// own.
    pub const PRIVATE_NETNS: Self = Self(2);

    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Key of `LISTENERS`. Each agent has listeners of its own in each namespace, so that a DNS query is
/// known by the socket on which it arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// The cookie of a network namespace.
    pub netns: u64,
    /// The cgroup of an agent.
    pub agent: u64,
}

/// Value of `LISTENERS`: where the interceptor and the DNS server listen for an agent, on
/// `127.0.0.1` and `::1` of a namespace. Zero: not there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerPorts {
    pub tcp4: Port,
    pub tcp6: Port,
    pub dns_udp4: Port,
    pub dns_udp6: Port,
    pub dns_tcp4: Port,
    pub dns_tcp6: Port,
    pub pad: [u8; 4],
}

impl ListenerPorts {
    /// Whether a port (not zero) is one of ours.
    #[inline(always)]
    pub const fn holds(&self, port: Port) -> bool {
        let p = port.network();
        p != 0
            && (p == self.tcp4.network()
                || p == self.tcp6.network()
                || p == self.dns_udp4.network()
                || p == self.dns_udp6.network()
                || p == self.dns_tcp4.network()
                || p == self.dns_tcp6.network())
    }
}

/// Key of `PORTS`, whose value is the agent that an interceptor's port serves: nobody else may dial
/// or bind it either.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortKey {
    pub netns: u64,
    pub port: Port,
    pub pad: [u8; 6],
}

impl PortKey {
    #[inline(always)]
    pub const fn new(netns: u64, port: Port) -> Self {
        Self { netns, port, pad: [0; 6] }
    }
}

/// Key of `LOCAL`: what an agent may do in a namespace that it shares with others. The value is not
/// zero where it may.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalKey {
    pub agent: u64,
    pub port: Port,
    pub protocol: u8,
    /// [`LOCAL_CONNECT`] or [`LOCAL_LISTEN`].
    pub purpose: u8,
    pub pad: [u8; 4],
}

/// Dialling a port on loopback.
pub const LOCAL_CONNECT: u8 = 1;
/// Binding a port where others than loopback see it.
pub const LOCAL_LISTEN: u8 = 2;

impl LocalKey {
    #[inline(always)]
    pub const fn new(agent: u64, purpose: u8, protocol: u8, port: Port) -> Self {
        Self { agent, port, protocol, purpose, pad: [0; 4] }
    }
}

/// The only value of `LEASE`, in nanoseconds of CLOCK_MONOTONIC. Zero denies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// When the interceptor was last heard from.
    pub beat: u64,
    /// How long one beat is good for.
    pub limit: u64,
}

/// Who made a flow and where it was meant to go: what the hooks know and userspace cannot forge.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// CLOCK_BOOTTIME in nanoseconds, comparable with a process's start time in /proc.
    pub time: u64,
    /// Cookie of the network namespace of the socket.
    pub netns: u64,
    /// The agent: the deepest governed cgroup that holds the process.
    pub agent: u64,
    /// The cgroup of the process itself.
    pub cgroup: u64,
    /// Cookie of the socket.
    pub socket: u64,
    /// The address that was dialled.
    pub dst: Address,
    /// The process (`tgid`) and the thread (`pid`), in the initial PID namespace.
    pub tgid: u32,
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub comm: [u8; 16],
    /// The port that was dialled.
    pub port: Port,
    pub protocol: u8,
    pub pad: [u8; 5],
}

/// Value of `SOCKS`, which lives and dies with its socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketState {
    pub origin: Origin,
    /// The key under which the flow was published, so that its end can take it away.
    pub key: FlowKey,
    /// Where the flow was sent instead: loopback of the same family, and this port.
    pub via: Port,
    /// 1 once `key` is in `FLOWS`.
    pub published: u8,
    pub pad: [u8; 5],
}

/// Key of `FLOWS`: the connection as the interceptor sees it when it accepts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub netns: u64,
    pub src: Address,
    pub dst: Address,
    pub src_port: Port,
    pub dst_port: Port,
    pub protocol: u8,
    pub pad: [u8; 3],
}

impl FlowKey {
    /// The key of a connection that was accepted: the client's address, then the listener's.
    pub const fn tcp(netns: u64, src: (Address, Port), dst: (Address, Port)) -> Self {
        Self {
            netns,
            src: src.0,
            dst: dst.0,
            src_port: src.1,
            dst_port: dst.1,
            protocol: IPPROTO_TCP,
            pad: [0; 3],
        }
    }

    /// A key that no connection has (its protocol is 0): it holds a place in `FLOWS` from `connect`
    /// until the source port is known, so that a full table makes `connect` fail.
    #[inline(always)]
    pub const fn reservation(socket: u64) -> Self {
        Self {
            netns: socket,
            src: Address([0; 4]),
            dst: Address([0; 4]),
            src_port: Port::from_network(0),
            dst_port: Port::from_network(0),
            protocol: 0,
            pad: [0; 3],
        }
    }
}

/// One refusal, as the ring carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `socket` is 0 where the hook cannot know it; so are the process facts for packets, which
    /// may leave outside the context of their process.
    pub origin: Origin,
    /// Only for packets: the interface by which one tried to leave.
    pub ifindex: u32,
    /// Only for sockets that were refused: address family and socket type.
    pub family: u16,
    pub socket_type: u16,
    /// A [`crate::decide::Denied`].
    pub denied: u8,
    /// A [`Hook`].
    pub hook: u8,
    pub pad: [u8; 6],
}

/// Index in `STATS` of the events that did not fit in the ring.
pub const STAT_EVENTS_DROPPED: u32 = 14;
/// Index in `STATS` of the flows that found the table full after `connect` had a place.
pub const STAT_FLOWS_LOST: u32 = 15;
/// Entries of `STATS`: the hooks, then the two above.
pub const STATS: usize = 16;

// The layout is a contract between two compilations: it may not drift.
const _: () = {
    assert!(Hook::ALL.len() == STAT_EVENTS_DROPPED as usize);
    assert!(STAT_FLOWS_LOST as usize + 1 == STATS);
    assert!(size_of::<AgentEntry>() == 8);
    assert!(size_of::<ListenerKey>() == 16);
    assert!(size_of::<ListenerPorts>() == 16);
    assert!(size_of::<PortKey>() == 16);
    assert!(size_of::<LocalKey>() == 16);
    assert!(size_of::<Lease>() == 16);
    assert!(size_of::<Origin>() == 96);
    assert!(size_of::<FlowKey>() == 48);
    assert!(size_of::<SocketState>() == 152);
    assert!(size_of::<Event>() == 112);
};

/// A structure that may cross as bytes.
///
/// # Safety
/// `repr(C)`, no padding of its own, valid for every pattern of bits.
#[expect(unsafe_code, reason = "the promise is about layout, which the compiler cannot check")]
pub unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($name:ty: $size:literal = $($field:ty)+;)*) => {$(
        // No padding: the sizes of the fields add up to the size of the whole.
        const _: () = assert!($(size_of::<$field>() +)+ 0 == $size && size_of::<$name>() == $size);
        #[expect(unsafe_code, reason = "the assertion above proves that there is no padding")]
        // SAFETY: repr(C), every field is an integer or an array of integers, no padding.
        unsafe impl Plain for $name {}
    )*};
}

plain! {
    u32: 4 = u32;
    u64: 8 = u64;
    AgentEntry: 8 = u32 u32;
    ListenerKey: 16 = u64 u64;
    ListenerPorts: 16 = [Port; 6] [u8; 4];
    PortKey: 16 = u64 Port [u8; 6];
    LocalKey: 16 = u64 Port u8 u8 [u8; 4];
    Lease: 16 = u64 u64;
    Origin: 96 = [u64; 5] Address [u32; 4] [u8; 16] Port u8 [u8; 5];
    FlowKey: 48 = u64 Address Address Port Port u8 [u8; 3];
    SocketState: 152 = Origin FlowKey Port u8 [u8; 5];
    Event: 112 = Origin u32 u16 u16 u8 u8 [u8; 6];
}

/// The bytes of a value, as a map takes them.
#[cfg(not(target_arch = "bpf"))]
#[expect(unsafe_code, reason = "a view of plain data as bytes")]
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` has no padding, so every byte is initialised; the borrow keeps it alive.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The bytes of a value, to be filled from a map.
#[cfg(not(target_arch = "bpf"))]
#[expect(unsafe_code, reason = "a view of plain data as bytes")]
pub fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: `Plain` has no padding and is valid for every pattern of bits that may be written.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// A value from the bytes of a map or of the ring; None if there are too few.
#[cfg(not(target_arch = "bpf"))]
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    bytes_of_mut(&mut value).copy_from_slice(bytes.get(..size_of::<T>())?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cross_as_bytes_and_come_back() {
        let key = FlowKey::tcp(
            7,
            (Address::LOOPBACK_V4, Port::new(40_000)),
            (Address::LOOPBACK_V6, Port::new(15_001)),
        );
        assert_eq!(bytes_of(&key).len(), 48);
        assert_eq!(from_bytes::<FlowKey>(bytes_of(&key)), Some(key));
        assert_eq!(from_bytes::<FlowKey>(&bytes_of(&key)[..47]), None);
    }

    #[test]
    fn a_reservation_is_no_connection() {
        let real =
            FlowKey::tcp(9, (Address([0; 4]), Port::new(0)), (Address([0; 4]), Port::new(0)));
        assert_ne!(FlowKey::reservation(9), real);
    }

    #[test]
    fn only_named_ports_are_held_and_zero_never_is() {
        let ports =
            ListenerPorts { tcp4: Port::new(1), dns_tcp6: Port::new(6), ..Default::default() };
        for (port, held) in [(1, true), (6, true), (0, false), (2, false)] {
            assert_eq!(ports.holds(Port::new(port)), held, "{port}");
        }
    }
}

//! Pure: what each hook answers, from plain values. Everything unknown is refused.

use crate::abi::{AgentEntry, AgentFlags, IPPROTO_TCP, IPPROTO_UDP, Lease, ListenerPorts};
use crate::address::{Address, Port};

/// Linux's loopback interface has this index in every network namespace
/// (`LOOPBACK_IFINDEX` in include/net/flow.h).
pub const LOOPBACK_IFINDEX: u32 = 1;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// Why a hook refused. The numbers travel in events.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// Neither TCP nor UDP over IPv4 or IPv6.
    SocketFamily = 1,
    /// UDP to a port other than DNS.
    UdpRefused = 2,
    /// A packet on its way to an interface other than loopback.
    NotLoopback = 3,
    /// The interceptor's own ports, bound or dialled.
    InterceptorPort = 4,
    /// The network namespace has no interceptor.
    NoListener = 5,
    /// The interceptor has not been heard from.
    LeaseExpired = 6,
    /// No room to remember the flow.
    FlowMapFull = 7,
    /// The process belongs to no agent, though its socket does.
    AgentUnknown = 8,
    /// Loopback in a namespace that is shared with others.
    SharedLoopback = 9,
    /// The kernel could not give what the decision needs.
    Unavailable = 10,
    /// A port where others than loopback would see it, in a namespace that is shared with others.
    SharedListen = 11,
}

impl Denied {
    pub const ALL: &'static [Self] = &[
        Self::SocketFamily,
        Self::UdpRefused,
        Self::NotLoopback,
        Self::InterceptorPort,
        Self::NoListener,
        Self::LeaseExpired,
        Self::FlowMapFull,
        Self::AgentUnknown,
        Self::SharedLoopback,
        Self::Unavailable,
        Self::SharedListen,
    ];

    /// The refusal with this number, as events carry it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|d| *d as u8 == code)
    }
}

/// A destination as the agent gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    pub protocol: u8,
    pub dst: Address,
    pub port: Port,
}

/// Where a flow may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// As dialled: the agent's own loopback.
    Own,
    /// As dialled, if [`shared`] lets it: loopback that others use as well.
    Shared,
    /// To the interceptor or the DNS server, on loopback of the dialled family.
    Redirect { port: Port, v4: bool },
}

/// The sockets that can be governed: TCP and UDP over IPv4 and IPv6. Raw, ping, MPTCP, UDP-Lite,
/// SCTP, DCCP and everything else is refused.
#[inline(always)]
pub const fn socket(family: u32, socket_type: u32, protocol: u32) -> Result<(), Denied> {
    let inet = family == AF_INET || family == AF_INET6;
    let tcp = socket_type == SOCK_STREAM && protocol == IPPROTO_TCP as u32;
    let udp = socket_type == SOCK_DGRAM && protocol == IPPROTO_UDP as u32;
    if inet && (tcp || udp) { Ok(()) } else { Err(Denied::SocketFamily) }
}

/// Whether the interceptor was heard from within its lease. A beat from the future is not a beat.
#[inline(always)]
pub const fn lease(now: u64, lease: Lease) -> Result<(), Denied> {
    if lease.beat != 0 && now >= lease.beat && now - lease.beat <= lease.limit {
        Ok(())
    } else {
        Err(Denied::LeaseExpired)
    }
}

/// Whether an entry of the table of agents lets its agent do anything at all.
#[inline(always)]
pub const fn agent(entry: AgentEntry) -> Result<AgentFlags, Denied> {
    if entry.flags.contains(AgentFlags::ACTIVE) {
        Ok(entry.flags)
    } else {
        Err(Denied::AgentUnknown)
    }
}

/// Where a connection or a datagram may go. What stays on loopback must be [`free`] besides.
#[inline(always)]
pub const fn route(dial: Dial, agent: AgentFlags, ports: ListenerPorts) -> Result<Route, Denied> {
    let tcp = dial.protocol == IPPROTO_TCP;
    if !tcp && dial.protocol != IPPROTO_UDP {
        return Err(Denied::SocketFamily);
    }
    let v4 = dial.dst.is_v4();
    if dial.port.network() == Port::DNS.network() {
        // Whatever resolver was meant, and a loopback one too: names are answered by egret.
        let port = match (tcp, v4) {
            (true, true) => ports.dns_tcp4,
            (true, false) => ports.dns_tcp6,
            (false, true) => ports.dns_udp4,
            (false, false) => ports.dns_udp6,
        };
        return to_listener(port, v4);
    }
    if dial.dst.is_loopback() {
        if ports.holds(dial.port) {
            return Err(Denied::InterceptorPort);
        }
        return if agent.contains(AgentFlags::PRIVATE_NETNS) {
            Ok(Route::Own)
        } else {
            Ok(Route::Shared)
        };
    }
    if !tcp {
        return Err(Denied::UdpRefused);
    }
    to_listener(if v4 { ports.tcp4 } else { ports.tcp6 }, v4)
}

#[inline(always)]
const fn to_listener(port: Port, v4: bool) -> Result<Route, Denied> {
    if port.is_zero() { Err(Denied::NoListener) } else { Ok(Route::Redirect { port, v4 }) }
}

/// Whether a port on loopback may be dialled or bound: not if it is `taken` by an interceptor in this
/// namespace, whoever's it is, alive or dead.
#[inline(always)]
pub const fn free(taken: bool) -> Result<(), Denied> {
    if taken { Err(Denied::InterceptorPort) } else { Ok(()) }
}

/// Whether loopback that others use as well may be dialled: where the policy opens the port, or
/// where the agent's own socket waits. 0 is nobody.
#[inline(always)]
pub const fn shared(opened: bool, owner: u64, agent: u64) -> Result<(), Denied> {
    if opened || (owner != 0 && owner == agent) { Ok(()) } else { Err(Denied::SharedLoopback) }
}

/// What binding a local address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Nobody else is there.
    Own,
    /// On loopback that others use as well, or on a port that the kernel chooses.
    Shared,
    /// Where others see it, if [`listen`] lets it.
    Seen,
}

/// What binding an address means, if its port is [`free`]. A listener that the world can reach leaks
/// nothing, since its answers never leave by another interface than loopback; but where others
/// live, the port that it takes may be theirs.
#[inline(always)]
pub const fn bind(local: Dial, agent: AgentFlags) -> Bind {
    if agent.contains(AgentFlags::PRIVATE_NETNS) {
        return Bind::Own;
    }
    let loopback = local.dst.is_loopback() && !local.dst.is_unspecified();
    if loopback || local.port.is_zero() { Bind::Shared } else { Bind::Seen }
}

/// Whether a port may be bound where others see it: where the policy opens it.
#[inline(always)]
pub const fn listen(opened: bool) -> Result<(), Denied> {
    if opened { Ok(()) } else { Err(Denied::SharedListen) }
}

/// Whether a packet may pass: only by loopback. The interface decides and not the address, because
/// routing headers, SO_BINDTODEVICE and packet information send a loopback address elsewhere.
#[inline(always)]
pub const fn packet(ifindex: u32) -> Result<(), Denied> {
    if ifindex == LOOPBACK_IFINDEX { Ok(()) } else { Err(Denied::NotLoopback) }
}

// States of include/net/tcp_states.h.
const TCP_FIN_WAIT1: u32 = 4;
const TCP_FIN_WAIT2: u32 = 5;
const TCP_CLOSE: u32 = 7;
const TCP_CLOSING: u32 = 11;

/// Whether a change of a TCP connection's state means that nobody will ask for its flow: it failed
/// or was reset. A client that connects, sends and closes at once ends in an orderly way, possibly
/// before it is accepted; its flow waits, and userspace sweeps what waits too long.
#[inline(always)]
pub const fn flow_ends(old: u32, new: u32) -> bool {
    new == TCP_CLOSE && old != TCP_FIN_WAIT1 && old != TCP_FIN_WAIT2 && old != TCP_CLOSING
}

/// Whether an address that the kernel is about to show the agent is the one egret put in place of
/// the dialled one (so that the dialled one must be shown).
#[inline(always)]
pub const fn is_substitute(shown: Address, shown_port: Port, via: Port) -> bool {
    !via.is_zero() && shown_port.network() == via.network() && shown.is_loopback()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

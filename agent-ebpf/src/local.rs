//! Loopback in a network namespace that is shared with others: what the policy opens there, and which
//! sockets are the agent's own.

use core::ffi::c_void;

use agent_ebpf::abi::{IPPROTO_TCP, LOCAL_CONNECT, LocalKey, PortKey};
use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide::{self, Dial};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use aya_ebpf::programs::SockAddrContext;

use crate::agent::Agent;
use crate::connect::loopback;
use crate::context::{self, Destination, field};
use crate::error::Error;
use crate::maps::{self, LOCAL, PORTS};

/// Whether a port is an interceptor's, of this agent or of another one in the same namespace.
#[inline(always)]
pub(crate) fn taken(netns: u64, port: Port) -> bool {
    PORTS.get_ptr(PortKey::new(netns, port)).is_some()
}

/// Whether the policy opens a port.
#[inline(always)]
pub(crate) fn opened(agent: &Agent, purpose: u8, dial: &Dial) -> bool {
    let key = LocalKey::new(agent.id, purpose, dial.protocol, dial.port);
    // SAFETY: a word, copied at once.
    unsafe { LOCAL.get(key) }.is_some_and(|value| *value != 0)
}

/// Marks a socket as the agent's own, so that the agent may dial it.
#[inline(always)]
pub(crate) fn own(socket: *mut c_void, agent: &Agent) -> Result<(), Error> {
    let owner = maps::owner_or_new(socket).ok_or(Error::NoStorage)?;
    // SAFETY: the socket's own storage, valid while the program runs.
    unsafe { *owner = agent.id };
    Ok(())
}

/// `connect()` on shared loopback. The kernel shows a connected UDP socket's datagrams to no hook, and
/// the port can change hands meanwhile: only the policy opens it to those, as it does to whoever
/// has the port.
#[inline(always)]
pub(crate) fn connect(
    ctx: &SockAddrContext,
    destination: &Destination,
    agent: &Agent,
) -> Result<(), Error> {
    dial(ctx, destination, agent, destination.dial.protocol == IPPROTO_TCP)
}

/// A datagram on shared loopback.
#[inline(always)]
pub(crate) fn send(
    ctx: &SockAddrContext,
    destination: &Destination,
    agent: &Agent,
) -> Result<(), Error> {
    dial(ctx, destination, agent, true)
}

/// The verdict on a destination on shared loopback. `0.0.0.0` and `::` become the address that they
/// stand for: from a socket that is bound to another address of this machine, the kernel would
/// take them for that.
#[inline(always)]
fn dial(
    ctx: &SockAddrContext,
    destination: &Destination,
    agent: &Agent,
    own_will_do: bool,
) -> Result<(), Error> {
    let mut dial = destination.dial;
    if dial.dst.is_unspecified() {
        dial.dst = loopback(dial.dst.is_v4());
    }
    let opened = opened(agent, LOCAL_CONNECT, &dial);
    let owner = if own_will_do && !opened { owner_of(ctx, &dial) } else { 0 };
    decide::shared(opened, owner, agent.id)?;
    let socket = context::socket(ctx);
    // The answer to a datagram comes back to a port that was never bound by name.
    if dial.protocol != IPPROTO_TCP && maps::owner(socket).is_none() {
        own(socket, agent)?;
    }
    destination.replace(ctx, dial.dst, dial.port);
    Ok(())
}

/// The agent whose socket waits at an address of this network namespace, or 0.
#[inline(always)]
fn owner_of(ctx: &SockAddrContext, dial: &Dial) -> u64 {
    let found = lookup(ctx, dial);
    if found.is_null() {
        return 0;
    }
    // SAFETY: the storage is read before the socket is let go.
    let owner = maps::owner(found.cast()).map_or(0, |owner| unsafe { *owner });
    // SAFETY: the reference that the lookup has taken.
    unsafe { bpf_sk_release(found.cast()) };
    owner
}

/// The socket that would receive this. The kernel's own search decides, so that one bound to every
/// address is found too.
#[inline(always)]
fn lookup(ctx: &SockAddrContext, dial: &Dial) -> *mut bpf_sock {
    let socket: *mut bpf_sock = context::socket(ctx).cast();
    let tcp = dial.protocol == IPPROTO_TCP;
    // A connected UDP socket is found by its peer only, and that is us. A TCP connection does not
    // exist yet.
    let sport = if tcp { 0 } else { Port::new(field!(socket, src_port) as u16).network() };
    let dport = dial.port.network();
    if dial.dst.is_v4() {
        let bound = field!(socket, src_ip4);
        let saddr = if bound == 0 { Address::LOOPBACK_V4.0[3] } else { bound };
        let daddr = dial.dst.0[3];
        let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 { saddr, daddr, sport, dport };
        return search(ctx, tcp, (&raw mut tuple).cast(), size_of_val(&tuple));
    }
    let bound = Address([
        field!(socket, src_ip6[0]),
        field!(socket, src_ip6[1]),
        field!(socket, src_ip6[2]),
        field!(socket, src_ip6[3]),
    ]);
    let saddr = if bound.is_unspecified() { Address::LOOPBACK_V6.0 } else { bound.0 };
    let daddr = dial.dst.0;
    let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 { saddr, daddr, sport, dport };
    search(ctx, tcp, (&raw mut tuple).cast(), size_of_val(&tuple))
}

#[inline(always)]
fn search(
    ctx: &SockAddrContext,
    tcp: bool,
    tuple: *mut bpf_sock_tuple,
    size: usize,
) -> *mut bpf_sock {
    let (ctx, size, here) = (ctx.as_ptr(), size as u32, BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: the tuple is live and of this size, and stands for its family by it.
    unsafe {
        if tcp {
            bpf_sk_lookup_tcp(ctx, tuple, size, here, 0)
        } else {
            bpf_sk_lookup_udp(ctx, tuple, size, here, 0)
        }
    }
}

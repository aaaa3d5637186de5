//! Every packet of every socket of an agent, last before the wire: only loopback.

use agent_ebpf::abi::{IPPROTO_TCP, IPPROTO_UDP, MAX_AGENT_LEVEL};
use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide::{self, Dial};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id};
use aya_ebpf::programs::SkBuffContext;

use crate::agent;
use crate::error::Error;
use crate::events::{Packet, Subject};

#[inline(always)]
pub(crate) fn check(ctx: &SkBuffContext) -> Result<(), Error> {
    Ok(decide::packet(ifindex(ctx))?)
}

/// The agent that a packet's socket belongs to, or 0.
#[inline(always)]
pub(crate) fn agent(ctx: &SkBuffContext) -> u64 {
    agent_of(ctx.skb.skb, cgroup(ctx))
}

/// The cgroup of a packet's socket, or 0.
#[inline(always)]
fn cgroup(ctx: &SkBuffContext) -> u64 {
    // SAFETY: a helper that reads the context that it is given.
    unsafe { bpf_skb_cgroup_id(ctx.skb.skb) }
}

#[inline(always)]
fn ifindex(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the kernel's context is valid while the program runs.
    unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() }
}

/// What a dropped packet was. What cannot be read stays zero: it is dropped all the same.
#[inline(always)]
pub(crate) fn subject(ctx: &SkBuffContext) -> Subject {
    let (dial, family) = headers(ctx);
    let cgroup = cgroup(ctx);
    let packet = Packet { ifindex: ifindex(ctx), agent: agent_of(ctx.skb.skb, cgroup), cgroup };
    Subject { dial, family, socket_type: 0, packet: Some(packet) }
}

#[inline(always)]
fn headers(ctx: &SkBuffContext) -> (Dial, u16) {
    let first: u8 = ctx.load(0).unwrap_or(0);
    let (dst, protocol, length, family) = if first >> 4 == 6 {
        let dst = Address([
            ctx.load(24).unwrap_or(0),
            ctx.load(28).unwrap_or(0),
            ctx.load(32).unwrap_or(0),
            ctx.load(36).unwrap_or(0),
        ]);
        (dst, ctx.load(6).unwrap_or(0), 40, 10)
    } else {
        let length = usize::from(first & 0x0f) * 4;
        (Address::v4(ctx.load(16).unwrap_or(0)), ctx.load(9).unwrap_or(0), length, 2)
    };
    let ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
    let port = if ports { ctx.load(length + 2).unwrap_or(0) } else { 0 };
    (Dial { protocol, dst, port: Port::from_network(port) }, family)
}

/// The deepest agent that the packet's socket belongs to, or 0. A function of its own, so that
/// the verifier forgets at its end which way it took.
#[inline(never)]
fn agent_of(skb: *mut __sk_buff, cgroup: u64) -> u64 {
    if agent::is_agent(cgroup) {
        return cgroup;
    }
    for up in 0..MAX_AGENT_LEVEL {
        let level = (MAX_AGENT_LEVEL - up) as i32;
        // SAFETY: a helper that reads the context; 0 means that there is no such ancestor.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level) };
        if id != 0 && agent::is_agent(id) {
            return id;
        }
    }
    0
}

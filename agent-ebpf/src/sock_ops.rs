//! A TCP connection has its source port: publish the flow before the first packet leaves, and take
//! it away when the connection ends.
//!
//! The moment matters: TCP_CONNECT_CB comes before the SYN, so that the flow is there when the
//! interceptor accepts. (ACTIVE_ESTABLISHED_CB comes after the SYN-ACK and can lose that race.)

use agent_ebpf::abi::{FlowKey, STAT_FLOWS_LOST, SocketState};
use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
};
use aya_ebpf::programs::SockOpsContext;

use crate::connect;
use crate::events;
use crate::maps::{self, FLOWS};

macro_rules! field {
    ($ops:expr, $($field:tt)+) => {
        // SAFETY: the kernel's context is valid while the program runs; volatile keeps the accesses
        // apart, each at the width that the verifier expects.
        unsafe { (&raw const (*$ops).$($field)+).read_volatile() }
    };
}

#[inline(always)]
pub(crate) fn follow(ctx: &SockOpsContext) {
    let ops = ctx.ops;
    let op = field!(ops, op);
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_STATE_CB {
        return;
    }
    let socket = field!(ops, __bindgen_anon_2.sk);
    if socket.is_null() {
        return;
    }
    // A socket without state was not redirected: it is the agent's own affair.
    let Some(state) = maps::socket_state(socket.cast()) else { return };
    // SAFETY: the socket's own storage; the kernel holds the socket's lock here.
    let state = unsafe { &mut *state };
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        publish(ctx, ops, state);
        return;
    }
    let (old, new) = (field!(ops, __bindgen_anon_1.args[0]), field!(ops, __bindgen_anon_1.args[1]));
    if state.published != 0 && decide::flow_ends(old, new) {
        // The interceptor may have taken it long ago.
        let _ = FLOWS.remove(&state.key);
        state.published = 0;
    }
}

#[inline(always)]
fn publish(ctx: &SockOpsContext, ops: *mut bpf_sock_ops, state: &mut SocketState) {
    let v4 = state.origin.dst.is_v4();
    let source = if v4 {
        Address::v4(field!(ops, local_ip4))
    } else {
        Address([
            field!(ops, local_ip6[0]),
            field!(ops, local_ip6[1]),
            field!(ops, local_ip6[2]),
            field!(ops, local_ip6[3]),
        ])
    };
    // `local_port` is in host order.
    let source_port = Port::new(field!(ops, local_port) as u16);
    let to = (connect::loopback(v4), state.via);
    state.key = FlowKey::tcp(state.origin.netns, (source, source_port), to);
    let _ = FLOWS.remove(FlowKey::reservation(state.origin.socket));
    if FLOWS.insert(&state.key, &state.origin, 0).is_ok() {
        state.published = 1;
    } else {
        // Another connection took the freed place. The interceptor will find no flow, and refuse.
        events::count(STAT_FLOWS_LOST);
    }
    // Without the callback at its end the entry would stay until the same addresses and ports come
    // again. It cannot fail for this flag on a full socket; if it did, the flow must not stay.
    if ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_err() && state.published != 0 {
        let _ = FLOWS.remove(&state.key);
        state.published = 0;
    }
}

//! `connect()`: remember where the flow was meant to go, and send it to the interceptor. And what
//! follows from that: the agent is shown the address it dialled, and a socket that goes away takes
//! its place in `FLOWS` with it.

use agent_ebpf::abi::{FlowKey, IPPROTO_TCP, ListenerPorts};
use agent_ebpf::address::{Address, Port};
use agent_ebpf::decide::{self, Denied, Dial, Route};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::programs::{SockAddrContext, SockContext};

use crate::agent::{self, Agent};
use crate::context::{self, Destination};
use crate::error::Error;
use crate::local;
use crate::maps::{self, FLOWS};

#[inline(always)]
pub(crate) fn connect(ctx: &SockAddrContext, destination: &Destination) -> Result<(), Error> {
    let place = place(ctx)?;
    match place.route(&destination.dial)? {
        Route::Own => {
            place.free(&destination.dial)?;
            maps::forget_socket(context::socket(ctx));
            Ok(())
        }
        Route::Shared => {
            place.free(&destination.dial)?;
            local::connect(ctx, destination, &place.agent)?;
            maps::forget_socket(context::socket(ctx));
            Ok(())
        }
        Route::Redirect { port, v4 } => {
            remember(ctx, &destination.dial, &place, port)?;
            destination.replace(ctx, loopback(v4), port);
            Ok(())
        }
    }
}

/// Who asks, and where from.
pub(crate) struct Place {
    pub(crate) agent: Agent,
    pub(crate) netns: u64,
    pub(crate) ports: ListenerPorts,
}

/// The facts from which destinations are judged.
#[inline(always)]
pub(crate) fn place(ctx: &SockAddrContext) -> Result<Place, Error> {
    agent::check_lease()?;
    let agent = agent::current()?;
    // SAFETY: a helper that reads the context that it is given.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let ports = agent::listeners(netns, agent.id)?;
    Ok(Place { agent, netns, ports })
}

impl Place {
    /// The verdict on a destination.
    #[inline(always)]
    pub(crate) fn route(&self, dial: &Dial) -> Result<Route, Denied> {
        decide::route(*dial, self.agent.flags, self.ports)
    }

    /// Whether no interceptor has the port.
    #[inline(always)]
    pub(crate) fn free(&self, dial: &Dial) -> Result<(), Denied> {
        decide::free(local::taken(self.netns, dial.port))
    }
}

#[inline(always)]
pub(crate) fn loopback(v4: bool) -> Address {
    if v4 { Address::LOOPBACK_V4 } else { Address::LOOPBACK_V6 }
}

/// Writes the flow into the socket's own storage, and for TCP takes a place in `FLOWS`.
#[inline(always)]
pub(crate) fn remember(
    ctx: &SockAddrContext,
    dial: &Dial,
    place: &Place,
    via: Port,
) -> Result<(), Error> {
    let Some(state) = maps::socket_state_or_new(context::socket(ctx)) else {
        return Err(Error::NoStorage);
    };
    // SAFETY: the socket's own storage, valid while the program runs. Its socket is locked during
    // `connect`; two senders on one unconnected UDP socket can only mix their own destinations.
    let state = unsafe { &mut *state };
    // SAFETY: a helper that reads the context that it is given.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    agent::describe_dial(&mut state.origin, dial);
    agent::describe_process(&mut state.origin);
    state.origin.netns = place.netns;
    state.origin.agent = place.agent.id;
    state.origin.socket = cookie;
    state.via = via;
    if dial.protocol != IPPROTO_TCP {
        return Ok(());
    }
    state.published = 0;
    FLOWS.insert(FlowKey::reservation(cookie), &state.origin, 0).map_err(|_| Error::FlowsFull)
}

/// Where the kernel is about to show the substitute, shows what was dialled.
#[inline(always)]
pub(crate) fn show_dialled(ctx: &SockAddrContext, shown: &Destination) {
    let Some(state) = maps::socket_state(context::socket(ctx)) else { return };
    // SAFETY: the socket's own storage, valid while the program runs.
    let state = unsafe { &*state };
    if decide::is_substitute(shown.dial.dst, shown.dial.port, state.via) {
        shown.replace(ctx, state.origin.dst, state.origin.port);
    }
}

/// A socket is closed. If its connection never left, its place in `FLOWS` is still taken.
#[inline(always)]
pub(crate) fn release(ctx: &SockContext) {
    let Some(state) = maps::socket_state(ctx.as_ptr()) else { return };
    // SAFETY: the socket's own storage, valid while the program runs.
    let state = unsafe { &*state };
    if state.published == 0 && state.origin.protocol == IPPROTO_TCP {
        let _ = FLOWS.remove(FlowKey::reservation(state.origin.socket));
    }
}

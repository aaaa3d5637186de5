//! `sendto()` and `sendmsg()` with a destination: the same as `connect`, for each datagram.

use agent_ebpf::abi::IPPROTO_UDP;
use agent_ebpf::decide::{self, Route};
use aya_ebpf::programs::SockAddrContext;

use crate::connect;
use crate::context::{self, Destination};
use crate::error::Error;
use crate::local;
use crate::maps;

#[inline(always)]
pub(crate) fn sendmsg(ctx: &SockAddrContext, destination: &Destination) -> Result<(), Error> {
    let place = connect::place(ctx)?;
    // A connected IPv6 socket whose peer is v4-mapped comes here with every datagram, and with the
    // address that `connect` put in place. What was dialled is already known: keep it.
    if let Some(state) = maps::socket_state(context::socket(ctx)) {
        // SAFETY: the socket's own storage, valid while the program runs.
        let state = unsafe { &*state };
        let dial = &destination.dial;
        if state.origin.protocol == IPPROTO_UDP
            && decide::is_substitute(dial.dst, dial.port, state.via)
            // Of an interceptor that is gone, anybody may have the port.
            && place.ports.holds(state.via)
        {
            return Ok(());
        }
    }
    match place.route(&destination.dial)? {
        Route::Own => Ok(place.free(&destination.dial)?),
        Route::Shared => {
            place.free(&destination.dial)?;
            local::send(ctx, destination, &place.agent)
        }
        Route::Redirect { port, v4 } => {
            connect::remember(ctx, &destination.dial, &place, port)?;
            destination.replace(ctx, connect::loopback(v4), port);
            Ok(())
        }
    }
}

//! `bind()`: the interceptor's ports are taken, alive or dead.

use agent_ebpf::decide;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockAddrContext;

use crate::agent;
use crate::context::Destination;
use crate::error::Error;

#[inline(always)]
pub(crate) fn bind(ctx: &SockAddrContext, local: &Destination) -> Result<(), Error> {
    // SAFETY: a helper that reads the context that it is given.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    match agent::listeners(netns) {
        Ok(ports) => Ok(decide::bind(local.dial.port, ports)?),
        // No interceptor here, so no port of its own. Nothing can be reached through such a socket.
        Err(_) => Ok(()),
    }
}

//! `bind()`: an interceptor's ports are taken, alive or dead. Where others live in the same network
//! namespace, loopback is for everybody and other addresses are for whom the policy says.

use agent_ebpf::abi::LOCAL_LISTEN;
use agent_ebpf::decide::{self, Bind};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockAddrContext;

use crate::agent;
use crate::context::{self, Destination};
use crate::error::Error;
use crate::local;

#[inline(always)]
pub(crate) fn bind(ctx: &SockAddrContext, local: &Destination) -> Result<(), Error> {
    let agent = agent::current()?;
    // SAFETY: a helper that reads the context that it is given.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let ours = agent::listeners(netns, agent.id).is_ok_and(|ports| ports.holds(local.dial.port));
    let taken = ours || local::taken(netns, local.dial.port);
    decide::free(taken)?;
    match decide::bind(local.dial, agent.flags) {
        Bind::Own => return Ok(()),
        Bind::Shared => {}
        Bind::Seen => decide::listen(local::opened(&agent, LOCAL_LISTEN, &local.dial))?,
    }
    local::own(context::socket(ctx), &agent)
}

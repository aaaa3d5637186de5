//! For groups whose agent is not known yet: whoever is no agent is refused. Agents pass; the other
//! programs, attached to their own groups, judge them.

use aya_ebpf::programs::SkBuffContext;

use crate::agent;
use crate::egress;
use crate::error::Error;

/// Whether the running process belongs to an agent.
#[inline(always)]
pub(crate) fn process() -> Result<(), Error> {
    agent::current().map(drop).map_err(Error::from)
}

/// Whether a packet's socket belongs to an agent. Loopback is no exception: what was connected
/// before the group was closed would go on there.
#[inline(always)]
pub(crate) fn packet(ctx: &SkBuffContext) -> Result<(), Error> {
    agent::registered(egress::agent(ctx)).map(drop).map_err(Error::from)
}

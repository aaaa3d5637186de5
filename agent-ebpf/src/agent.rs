//! Whose operation this is, and who the process is.

use agent_ebpf::abi::{AgentFlags, Lease, ListenerKey, ListenerPorts, MAX_AGENT_LEVEL, Origin};
use agent_ebpf::decide::{self, Denied, Dial};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
};
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns, bpf_ktime_get_ns,
};

use crate::error::Error;
use crate::maps::{AGENTS, LEASE, LISTENERS};

/// An agent, as found from the cgroup of the running process.
pub(crate) struct Agent {
    pub(crate) id: u64,
    pub(crate) flags: AgentFlags,
}

/// The agent of the running process.
///
/// The process decides and not the socket: a socket handed to another agent is used under that
/// agent's policy, and one handed to a process outside of all agents is of no use to it.
#[inline(always)]
pub(crate) fn current() -> Result<Agent, Denied> {
    let id = current_id();
    Ok(Agent { id, flags: registered(id)? })
}

/// What holds for an agent that userspace has registered.
#[inline(always)]
pub(crate) fn registered(id: u64) -> Result<AgentFlags, Denied> {
    // SAFETY: the value is copied at once. If it were reused at this moment the entry would be
    // gone, and userspace removes an agent only when its cgroup is empty.
    let entry = unsafe { AGENTS.get(id) }.ok_or(Denied::AgentUnknown)?;
    decide::agent(*entry)
}

/// The cgroup of the deepest agent that the running process belongs to, or 0.
///
/// An exported function for the verifier's sake: it checks one of those by itself, once, while each
/// way out of an inlined loop is followed through the rest of every program. Loading is three times
/// faster so.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn current_id() -> u64 {
    // SAFETY: a helper without arguments.
    let id = unsafe { bpf_get_current_cgroup_id() };
    if is_agent(id) {
        return id;
    }
    // The process sits below the agent's root, in a group that the agent or systemd made.
    for up in 0..MAX_AGENT_LEVEL {
        let level = (MAX_AGENT_LEVEL - up) as i32;
        // SAFETY: a helper that takes a number; 0 means that there is no such ancestor.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id != 0 && is_agent(id) {
            return id;
        }
    }
    0
}

/// Whether a cgroup is the root of an agent. 0 never is.
#[inline(always)]
pub(crate) fn is_agent(id: u64) -> bool {
    AGENTS.get_ptr(id).is_some()
}

/// Refuses everything when the interceptor has not been heard from in time.
#[inline(always)]
pub(crate) fn check_lease() -> Result<(), Error> {
    let Some(lease) = LEASE.get_ptr(0) else { return Err(Error::NoLease) };
    // SAFETY: the pointer is to a live array entry. Userspace writes `limit` once, and a beat is
    // one aligned word.
    let lease: Lease = unsafe { lease.read_volatile() };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    Ok(decide::lease(now, lease)?)
}

/// Where an agent's interceptor listens in a network namespace.
#[inline(always)]
pub(crate) fn listeners(netns: u64, agent: u64) -> Result<ListenerPorts, Denied> {
    // SAFETY: copied at once; an entry goes away only with its interceptor.
    unsafe { LISTENERS.get(ListenerKey { netns, agent }) }.copied().ok_or(Denied::NoListener)
}

/// Writes what was dialled, and when.
#[inline(always)]
pub(crate) fn describe_dial(origin: &mut Origin, dial: &Dial) {
    // SAFETY: a helper without arguments.
    origin.time = unsafe { bpf_ktime_get_boot_ns() };
    origin.dst = dial.dst;
    origin.port = dial.port;
    origin.protocol = dial.protocol;
}

/// Writes who is running.
#[inline(always)]
pub(crate) fn describe_process(origin: &mut Origin) {
    let (ids, users) = (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid());
    origin.tgid = (ids >> 32) as u32;
    origin.pid = ids as u32;
    origin.uid = users as u32;
    origin.gid = (users >> 32) as u32;
    // SAFETY: a helper without arguments, and one that fills the 16 bytes that it is given.
    unsafe {
        origin.cgroup = bpf_get_current_cgroup_id();
        bpf_get_current_comm((&raw mut origin.comm).cast(), size_of_val(&origin.comm) as u32);
    }
}

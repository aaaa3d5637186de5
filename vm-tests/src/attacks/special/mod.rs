//! Attacks that are no single probe: egret stopped and killed, started without what it needs, full,
//! flooded and kept waiting; and for a daemon, restarted and reloaded under load.

mod control;
mod daemon;
mod ends;
mod flood;
mod flows;
mod held;
mod others;
mod slow;
mod start;

pub(super) use control::{detach_from_inside, own_authority};
pub(super) use daemon::{
    bad_reload, daemon_killed, daemon_restarted, daemon_stopped, interceptor_killed,
    interceptor_stopped, ports_of_the_dead,
};
pub(super) use ends::stopped_then_killed;
pub(super) use flood::{memory, name_flood};
#[cfg(test)]
pub(super) use flows::SHARED_TABLE;
pub(super) use flows::{another_while_full, full_table};
pub(super) use held::open_before_attach;
pub(super) use others::{anothers_port, anothers_ticket};
pub(super) use slow::{SLOW, Slow, slow_peers};
pub(super) use start::{without_bpf, without_cgroup2};

//! Beside the flow: what serves one agent, whoever assembled it: `egret run` for its one session,
//! the daemon's interceptor for each agent that is attached.
//!
//! ```text
//! Service    one agent: its interceptor, its names, its doors
//!   door     its listeners in one network namespace: connections (gate) and DNS (names)
//! watch      for all agents: the heartbeat, the kernel's refusals, stale flows
//! ```
//!
//! Each agent has an interceptor of its own, so nothing of it (upstream connections, TLS sessions,
//! synthetic addresses, budgets) can be seen or used by another.

mod gate;
pub(crate) mod kept;
mod names;
mod service;
pub(crate) mod watch;

pub(crate) use service::{Service, Shared, Sockets};

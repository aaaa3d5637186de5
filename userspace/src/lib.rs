//! egret: a transparent egress enforcer for AI agents.
//!
//! The modules stand in the order in which one connection of an agent meets them. Read this
//! list, then [`connection`], then the folders from top to bottom, and you have read the program.
//!
//! ```text
//! agent process ── kernel hooks (crate agent-ebpf) ──▶ redirect ─▶ identify ─▶ policy ─▶ tls
//!      ─▶ http ─▶ policy again ─▶ inject ─▶ audit ─▶ forward ─▶ scrub (in inject) ─▶ agent
//! ```

pub mod connection; // the spine: one call per stage
pub mod outcome; // Stage and Reason, the closed enums that every refusal uses

pub mod audit;
pub mod forward; // 7. send it on
pub mod http; // 5. read the request exactly
pub mod identify; // 2. who is speaking
pub mod inject; // 6. add what the agent must not hold
pub mod policy; // 3. may it (pure)
pub mod redirect; // 1. the traffic of an agent arrives
pub mod tls; // 4. open it // 8. write it down, once

pub mod config; // beside the flow: as written -> checked
pub mod confine; // beside the flow: what the interceptor of the daemon gives up
pub mod contain; // beside the flow: how `run` starts a command that has nowhere else to go
pub mod control; // beside the flow: how the command line and the daemon speak
pub mod daemon; // beside the flow: the privileged half of the daemon, the warden
pub mod dns; // beside the flow: names inside the agent's world
pub mod doctor; // beside the flow: what this machine can and cannot keep
pub mod intercept; // beside the flow: the other half, which holds nothing but what it needs
pub mod secrets; // beside the flow: SecretRef -> Secret
mod serve; // beside the flow: what serves one agent
pub mod session; // beside the flow: the assembly of one `run`
pub mod shutdown; // beside the flow: drain as a value
pub mod systemd; // beside the flow: units, and what holds other units under egret

pub mod cli; // the command line
pub mod sys; // the only folder with `unsafe`

//! Beside the flow: names inside the agent's world. egret answers all DNS of an agent itself.
//!
//! No query of an agent ever leaves the host, so a name cannot carry data out and a resolver
//! cannot lie to the agent. [`pool`] gives every name a stable synthetic address, so that a later
//! connection carries its name exactly; [`answer`] turns one query into one answer; [`record`]
//! keeps the audit log readable under a flood; [`serve`] moves the bytes over UDP and TCP.

pub mod answer; // pure: one query, one answer
pub mod message; // pure: the wire format's admission and the shapes of answers
pub mod pool; // pure: names and their synthetic addresses
pub mod record; // which outcomes are recorded, and how often
pub mod serve; // UDP and TCP on tokio

pub use answer::{Answer, Answered, DnsOutcome, Transport, answer};
pub use pool::{AssignError, Keep, Names, Pair, Standing, is_synthetic};
pub use record::{DnsRecord, Recorder, Sink};
pub use serve::{Handler, NameView, Server, serve};

use pool::{LOCAL_V4, LOCAL_V6};

/// What stands in /etc/resolv.conf of an agent with files of its own. With `ndots:0` every name is
/// asked for as it is: the C library would otherwise ask for `db` as `db.corp.example` first, where
/// that is the domain in the host's own name. (`search .` would say it too; musl fails on it.)
pub fn resolv_conf() -> String {
    format!(
        "# Answered by egret; nothing asked here leaves this machine.\n\
         nameserver {LOCAL_V4}\nnameserver {LOCAL_V6}\noptions ndots:0\n"
    )
}

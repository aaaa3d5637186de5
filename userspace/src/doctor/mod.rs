//! Beside the flow: what this machine lets egret promise. Probes gather facts; a pure judge turns
//! them into findings, each with what it means for the promises and what to do.
//!
//! Features are tried, never concluded from a version. As root the probes make a cgroup and a
//! network namespace for themselves, load egret's programs and prove each hook there, and take
//! everything away again. Without root they look at what there is to see and say what they could
//! not look at.

pub mod facts;
pub mod finding;
pub mod judge;
mod parse;
mod probe;

use std::path::Path;

pub use finding::{Finding, Promise, Report, Run, Status};

/// Probes this machine, with the state folder `state`, and judges what was found.
pub fn examine(state: &Path) -> Report {
    judge::judge(&probe::gather(state))
}

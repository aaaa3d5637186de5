//! The daemon under attack: what it does to what runs already, bad input, full disks and tables,
//! and processes of its own that are stopped and killed, on this kernel as root. Without root each
//! test says that it was skipped.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

#[path = "../common/wire.rs"]
mod wire;

mod attach;
mod control;
mod input;
mod limits;
mod nested;
mod probe;
mod processes;
mod reload;
mod restart;
mod world;

//! End-to-end tests of the real `egret` binary, as root on whatever kernel they run on: the
//! development machine or a VM booted by `cargo xtask vm`. One binary, so that a VM needs
//! neither cargo nor sources.
//!
//! Every test that shows something blocked has a control beside it: the same probe outside
//! egret reaches its target, so a probe that is broken cannot pass for a wall that holds.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool that reports")]

pub mod attacks; // the catalogue of attacks, as a table
pub mod cases; // what is tested, by subject
pub mod clients; // the client matrix
pub mod demo; // one screen for people
pub mod fixtures; // upstreams, canaries, links, and the driver of `egret run`
pub mod needs; // what a machine has; a test whose client is missing is skipped by name

//! Beside the flow: how systemd starts egret, and how it holds units under egret from their first
//! instruction.
//!
//! [`units`] has the files as text, [`pattern`] says for which unit names systemd can have one,
//! [`install`] writes and removes them, and [`wait`] is what a held unit runs before anything of
//! its own.

pub mod install;
pub mod pattern;
pub mod units;
pub mod wait;

pub use pattern::{Governed, Pattern, PatternError};
pub use units::{Settings, UnitFile, base, drop_in};

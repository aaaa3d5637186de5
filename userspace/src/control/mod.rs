//! Beside the flow: how the command line and the daemon speak. One request, one answer, over a
//! packet socket whose peer the kernel names.

pub mod client;
pub mod frame;
pub(crate) mod peer;
pub mod wire;

use std::path::PathBuf;

/// The folder of a daemon when nobody says otherwise.
pub const DEFAULT_RUN: &str = "/run/egret";

/// The variable that names another one.
pub const RUN_VARIABLE: &str = "EGRET_RUN";

/// The daemon's folder: as the variable says, else the default.
pub fn default_run() -> PathBuf {
    std::env::var_os(RUN_VARIABLE)
        .filter(|v| !v.is_empty())
        .map_or_else(|| DEFAULT_RUN.into(), PathBuf::from)
}

/// The name of the control socket in it.
pub const SOCKET: &str = "control.sock";

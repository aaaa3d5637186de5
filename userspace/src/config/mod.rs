//! Beside the flow: from what a person wrote (files, flags) to checked values.

/// Where the state of an egret of root is.
pub const DEFAULT_STATE: &str = "/var/lib/egret";

mod args;
mod bundle;
mod daemon;
mod gather;
mod load;
mod shorthand;
mod target_args;

pub use args::PolicyArgs;
pub use bundle::PolicyBundle;
pub use daemon::{
    AgentConfig, DaemonConfig, LoadedDaemon, is_daemon_config, load_daemon_config,
    parse_agent_name, parse_daemon_config,
};
pub use load::{LoadError, Loaded, load_policy};
pub use shorthand::{parse_allow, parse_bearer, parse_resolve};
pub use target_args::TargetArgs;

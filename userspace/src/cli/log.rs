//! Logs for the person who runs egret: what failed beside the flow, on standard error. Only egret's
//! own targets: libraries may print headers, and headers may hold secrets.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The variable that sets the level: off, error, warn, info, debug or trace.
const VARIABLE: &str = "EGRET_LOG";

/// Starts logging, once. A level that is not known means the default, `warn`.
pub(super) fn init() {
    let level = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    let own = Targets::new().with_target("egret", level.unwrap_or(LevelFilter::WARN));
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    // An error says that logging has started already.
    let _ = tracing_subscriber::registry().with(own).with(to_stderr).try_init();
}

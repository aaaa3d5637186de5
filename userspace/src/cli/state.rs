//! Where egret keeps its state when nobody says otherwise.

use std::path::PathBuf;

use nix::unistd::geteuid;

/// /var/lib/egret for root, else $XDG_STATE_HOME/egret or ~/.local/state/egret.
pub(super) fn default_dir() -> PathBuf {
    if geteuid().is_root() {
        return crate::config::DEFAULT_STATE.into();
    }
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .unwrap_or_else(|| "/var/lib".into())
        .join("egret")
}

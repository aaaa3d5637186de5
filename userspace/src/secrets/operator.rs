//! Who runs egret: whose environment and whose files secrets may come from.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

type EnvLookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// The person or service on whose authority secrets are read.
#[derive(Clone)]
pub struct Operator {
    uid: u32,
    env: Arc<EnvLookup>,
}

impl Operator {
    /// An operator with this user id and this environment.
    pub fn new(uid: u32, env: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self { uid, env: Arc::new(env) }
    }

    /// This process's environment; its effective user, or under root the user who called sudo.
    pub fn current() -> Self {
        let own = nix::unistd::geteuid().as_raw();
        let sudo = || std::env::var("SUDO_UID").ok()?.parse::<u32>().ok();
        let uid = if own == 0 { sudo().unwrap_or(0) } else { own };
        Self::new(uid, |name| std::env::var_os(name))
    }

    /// The user id whose files are accepted beside root's.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The value of a variable in the operator's environment.
    pub fn env(&self, name: &str) -> Option<OsString> {
        (self.env)(name)
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment holds secrets.
        f.debug_struct("Operator").field("uid", &self.uid).finish_non_exhaustive()
    }
}

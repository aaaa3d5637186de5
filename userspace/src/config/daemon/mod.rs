//! `egret.toml`: what the daemon enforces. It is read with every policy that it names, all or
//! nothing, so that a reload with a mistake in it changes nothing.
//!
//! ```toml
//! [daemon]
//! user  = "egret"              # who reads agents' bytes; never root
//! group = "egret"              # who may use the control socket
//! lease = "3s"                 # how long agents stay open when the daemon hangs
//!
//! [[agent]]
//! name   = "triage"
//! slice  = "agents-triage.slice"   # or unit, or cgroup: patterns, with `*` in a name
//! policy = "triage.toml"           # relative to this file
//! ```

mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bundle::{ANYONE_MAY_WRITE, PolicyBundle};
use super::gather::{anyone_may_write, gather, read_text};
use super::{LoadError, PolicyArgs};
use crate::audit::Durability;
use crate::connection::Settings;
use crate::identify::Pattern;
use crate::policy::parse::Diagnostic;

pub use written::parse_agent_name;
use written::{Written, WrittenAgent};

/// The configuration of the daemon, checked and complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Whose process reads what agents send; never root.
    pub user: String,
    /// Who may use the control socket.
    pub group: String,
    /// How long agents stay open without a heartbeat: from 1 s to 60 s.
    pub lease: Duration,
    pub durability: Durability,
    /// Connections of each agent at one time: none can use up those of another.
    pub connections: usize,
    /// In the order of the file. No two have a name or a pattern in common.
    pub agents: Vec<AgentConfig>,
}

/// One `[[agent]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    pub name: String,
    pub target: Pattern,
    /// Absolute.
    pub policy: PathBuf,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            user: "egret".into(),
            group: "egret".into(),
            lease: Duration::from_secs(3),
            durability: Durability::default(),
            connections: Settings::default().connections,
            agents: Vec::new(),
        }
    }
}

/// A configuration with all that it names.
#[derive(Clone, Debug)]
pub struct LoadedDaemon {
    pub config: DaemonConfig,
    /// One per agent, in the same order; each loads without an error.
    pub policies: Vec<PolicyBundle>,
    /// What `check` would warn of.
    pub lints: Vec<Diagnostic>,
}

/// Reads and checks an `egret.toml` and every policy that it names.
///
/// # Errors
/// Every error in it and in the policies, each with its file.
pub fn load_daemon_config(path: &Path) -> Result<LoadedDaemon, LoadError> {
    let file = path.display().to_string();
    let about = |why: String| LoadError::Invalid(vec![Diagnostic::about(&file, why)]);
    let text = read_text(path).map_err(about)?;
    let absolute =
        std::path::absolute(path).map_err(|e| about(format!("cannot be found again: {e}")))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    let (written, mut errors) = written::read(&file, &text);
    let mut lints = Vec::new();
    if anyone_may_write(path) {
        lints.push(Diagnostic::about(&file, ANYONE_MAY_WRITE));
    }
    let policies = read_policies(&written.agents, folder, &mut errors, &mut lints);
    match checked(written, folder) {
        Some(config) if errors.is_empty() => Ok(LoadedDaemon { config, policies, lints }),
        _ => Err(LoadError::Invalid(errors)),
    }
}

/// The policy of each agent. Errors of `egret.toml` come first, then those of the policies.
fn read_policies(
    agents: &[WrittenAgent],
    folder: &Path,
    errors: &mut Vec<Diagnostic>,
    lints: &mut Vec<Diagnostic>,
) -> Vec<PolicyBundle> {
    let mut policies = Vec::new();
    let mut inside = Vec::new();
    // Several agents may have one policy, which is read once.
    let mut read: BTreeMap<PathBuf, PolicyBundle> = BTreeMap::new();
    for policy in agents.iter().filter_map(|a| a.policy.as_ref()) {
        let path = folder.join(&policy.value);
        if let Some(bundle) = read.get(&path) {
            policies.push(bundle.clone());
            continue;
        }
        let bundle = gather(&PolicyArgs { policy: Some(path.clone()), ..PolicyArgs::default() });
        match (bundle.unreadable(), bundle.load()) {
            (Some(why), _) => errors.push(policy.at.say(format!("`{}`: {why}", policy.value))),
            (None, Ok(loaded)) => lints.extend(loaded.lints),
            (None, Err(e)) => inside.extend(e.diagnostics()),
        }
        policies.push(bundle.clone());
        read.insert(path, bundle);
    }
    errors.sort();
    // Two policies may use one file with an error.
    for found in inside {
        if !errors.contains(&found) {
            errors.push(found);
        }
    }
    policies
}

/// Parses `text`, which errors call `file`; the policies, which it names relative to `folder`, are
/// not looked at.
///
/// # Errors
/// Every error in the file.
pub fn parse_daemon_config(
    file: &str,
    folder: &Path,
    text: &str,
) -> Result<DaemonConfig, Vec<Diagnostic>> {
    let (written, errors) = written::read(file, text);
    checked(written, folder).filter(|_| errors.is_empty()).ok_or(errors)
}

/// Whether the file is meant to be an `egret.toml`: it has a `[daemon]` or an `[[agent]]`, and
/// nothing that only a policy has.
pub fn is_daemon_config(path: &Path) -> bool {
    read_text(path).is_ok_and(|text| written::is_meant(&text))
}

/// `None` if a value is missing, which is an error that was reported.
fn checked(written: Written, folder: &Path) -> Option<DaemonConfig> {
    let usual = DaemonConfig::default();
    let agent = |a: WrittenAgent| {
        let policy = folder.join(a.policy?.value);
        Some(AgentConfig { name: a.name?.value, target: a.target?.value, policy })
    };
    Some(DaemonConfig {
        user: written.user.unwrap_or(usual.user),
        group: written.group.unwrap_or(usual.group),
        lease: written.lease.unwrap_or(usual.lease),
        durability: written.durability.unwrap_or(usual.durability),
        connections: written.connections.unwrap_or(usual.connections),
        agents: written.agents.into_iter().map(agent).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests;

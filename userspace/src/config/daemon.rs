//! STUB
use super::{LoadError, PolicyArgs, PolicyBundle};
use crate::identify::Pattern;
use crate::policy::parse::Diagnostic;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct DaemonConfig {
    pub user: String,
    pub group: String,
    pub lease: Duration,
    pub power: bool,
    pub agents: Vec<AgentConfig>,
}
#[derive(Clone, Debug)]
pub struct AgentConfig {
    pub name: String,
    pub target: Pattern,
    pub policy: PathBuf,
}

#[derive(serde::Deserialize)]
struct F {
    #[serde(default)]
    daemon: D,
    #[serde(default)]
    agent: Vec<A>,
}
#[derive(serde::Deserialize, Default)]
struct D {
    user: Option<String>,
    group: Option<String>,
    lease: Option<u64>,
}
#[derive(serde::Deserialize)]
struct A {
    name: String,
    slice: Option<String>,
    unit: Option<String>,
    cgroup: Option<String>,
    policy: PathBuf,
}

pub fn load_daemon_config(path: &Path) -> Result<(DaemonConfig, Vec<PolicyBundle>), LoadError> {
    let bad =
        |e: String| LoadError::Invalid(vec![Diagnostic::about(&path.display().to_string(), e)]);
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let f: F = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let mut agents = vec![];
    let mut bundles = vec![];
    for a in f.agent {
        let target = match (a.slice, a.unit, a.cgroup) {
            (Some(s), _, _) => Pattern::slice(&s),
            (_, Some(u), _) => Pattern::unit(&u),
            (_, _, Some(c)) => Pattern::cgroup(&c),
            _ => return Err(bad("no target".into())),
        }
        .map_err(|e| bad(e.to_string()))?;
        let policy = path.parent().unwrap().join(a.policy);
        bundles
            .push(PolicyArgs { policy: Some(policy.clone()), ..PolicyArgs::default() }.bundle()?);
        agents.push(AgentConfig { name: a.name, target, policy });
    }
    let d = f.daemon;
    Ok((
        DaemonConfig {
            user: d.user.unwrap_or("egret".into()),
            group: d.group.unwrap_or("egret".into()),
            lease: Duration::from_secs(d.lease.unwrap_or(3)),
            power: false,
            agents,
        },
        bundles,
    ))
}

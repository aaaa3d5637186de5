//! Reading everything again: all of it is good and takes effect at once, or nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::definition::{Definition, Source, join};
use super::error::DaemonError;
use super::governor::{Governor, Now, note};
use super::records::Stage;
use super::restart::UNLISTED;
use crate::config::{DaemonConfig, LoadedDaemon, load_daemon_config};
use crate::intercept::wire::NoteKind;
use crate::outcome::Reason;
use crate::redirect::target::admits;

/// What egret.toml says, with every policy parsed and every secret obtained.
pub(super) struct Read {
    pub(super) config: DaemonConfig,
    pub(super) definitions: BTreeMap<String, Arc<Definition>>,
}

/// Reads egret.toml. `keep` gives the placeholders that an agent's processes may hold already.
pub(super) fn read(
    path: &Path,
    keep: impl Fn(&str) -> BTreeMap<String, String>,
) -> Result<Read, DaemonError> {
    let LoadedDaemon { config, policies, lints } = load_daemon_config(path)?;
    for lint in lints {
        tracing::warn!("{lint}");
    }
    let mut definitions = BTreeMap::new();
    let mut errors = Vec::new();
    for (agent, bundle) in config.agents.iter().zip(policies) {
        match Definition::new(Source::Config, bundle, &keep(&agent.name)) {
            Ok(definition) => drop(definitions.insert(agent.name.clone(), Arc::new(definition))),
            Err(why) => errors.push(format!("the agent `{}`: {why}", agent.name)),
        }
    }
    if errors.is_empty() {
        return Ok(Read { config, definitions });
    }
    Err(DaemonError::Policy { name: path.display().to_string(), why: join(errors.into_iter()) })
}

impl Governor {
    /// Reads egret.toml and every policy again.
    ///
    /// # Errors
    /// Everything is as it was before; the error is in the log.
    pub(super) fn reload(&self) -> Result<String, DaemonError> {
        let mut now = self.lock();
        let result = self.reload_locked(&mut now);
        if let Err(error) = &result {
            let why = format!("reload refused, nothing has changed: {error}");
            self.refused(NoteKind::Policy, "", Reason::ReloadRefused, &why);
        }
        result
    }

    fn reload_locked(&self, now: &mut Now) -> Result<String, DaemonError> {
        let kept =
            |name: &str| now.definitions.get(name).map(|d| d.placeholders()).unwrap_or_default();
        let read = read(&self.config_path, kept)?;
        let by_hand = self.read_attached(now)?;
        let before: BTreeMap<String, _> = now
            .agents
            .iter()
            .map(|(name, g)| (name.clone(), (g.definition.clone(), g.closed.clone())))
            .collect();
        let mut dropped = Vec::new();
        for (name, governed) in &mut now.agents {
            let new = match &governed.config {
                Some(config) => {
                    let still = read.config.agents.iter().find(|a| &a.name == config);
                    still
                        .filter(|a| admits(&a.target, &governed.path, &self.hierarchy))
                        .and_then(|a| read.definitions.get(&a.name).cloned())
                }
                None => by_hand.get(name).cloned().or_else(|| governed.definition.clone()),
            };
            match new {
                Some(new) => {
                    if governed.closed.as_deref() == Some(UNLISTED) {
                        governed.closed = None;
                    }
                    governed.definition = Some(new);
                }
                None => {
                    governed.closed = Some(UNLISTED.to_owned());
                    dropped.push(name.clone());
                }
            }
        }
        let names: Vec<String> = now.agents.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let digest: BTreeSet<String> = read.definitions.keys().cloned().collect();
        let message = format!("reload: {} agents in egret.toml", digest.len());
        let done = self
            .supervisor
            .note(note(NoteKind::Policy, Vec::new(), message))
            .map_err(DaemonError::Audit)
            .and_then(|()| self.publish(now, &names));
        if let Err(error) = done {
            for (name, (definition, closed)) in before {
                if let Some(governed) = now.agents.get_mut(&name) {
                    (governed.definition, governed.closed) = (definition, closed);
                }
            }
            // The interceptor took all or nothing; the kernel is told again what holds.
            let _ = names.iter().try_for_each(|name| self.publish_to_kernel(now, name));
            return Err(error);
        }
        now.config = Some(read.config);
        now.definitions = read.definitions;
        now.released.clear();
        now.failed.clear();
        for name in &names {
            if let Err(error) = self.write_record(now, name, Stage::Attached) {
                tracing::warn!(agent = name, %error, "its record is old");
            }
        }
        for name in &dropped {
            self.refused(NoteKind::Policy, name, Reason::AgentClosed, UNLISTED);
        }
        let (agents, closed) = (names.len(), dropped.len());
        Ok(format!(
            "reloaded: {agents} agents attached, {closed} of them closed as no longer listed"
        ))
    }

    /// The policies of agents that were attached by hand, read again.
    fn read_attached(&self, now: &Now) -> Result<BTreeMap<String, Arc<Definition>>, DaemonError> {
        let mut found = BTreeMap::new();
        for (name, governed) in &now.agents {
            let Some(definition) = &governed.definition else { continue };
            let Source::Attach(args) = &definition.source else { continue };
            let bundle = args.bundle()?;
            let source = Source::Attach(args.clone());
            let new = Definition::new(source, bundle, &definition.placeholders())
                .map_err(|why| DaemonError::Policy { name: name.clone(), why })?;
            found.insert(name.clone(), Arc::new(new));
        }
        Ok(found)
    }
}

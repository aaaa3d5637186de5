//! Reading everything again: all of it is good and takes effect at once, or nothing changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::definition::{Definition, Source, join};
use super::environment;
use super::error::DaemonError;
use super::governor::{Governor, Now, local_ports};
use super::records::Stage;
use super::restart::UNLISTED;
use crate::config::{DaemonConfig, LoadedDaemon, load_daemon_config};
use crate::intercept::wire::NoteKind;
use crate::outcome::Reason;
use crate::redirect::held::destroy_ports;
use crate::redirect::local::LocalPorts;
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
        match Definition::new(bundle, &keep(&agent.name)) {
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
        let before: BTreeMap<String, Before> =
            now.agents.keys().map(|name| (name.clone(), Before::of(now, name))).collect();
        let mut dropped = Vec::new();
        for (name, governed) in &mut now.agents {
            let new = match (&governed.source, &governed.config) {
                (Source::Config, Some(config)) => {
                    let still = read.config.agents.iter().find(|a| &a.name == config);
                    still
                        .filter(|a| admits(&a.target, &governed.path, &self.hierarchy))
                        .and_then(|a| read.definitions.get(&a.name).cloned())
                }
                (Source::Config, None) => None,
                (Source::Attach(_), _) => by_hand.get(name).cloned(),
                (Source::Run, _) => continue, // nobody can read it again
            };
            match new {
                Some(new) => {
                    governed.closed.policy = None;
                    governed.definition = Some(new);
                }
                None => {
                    governed.closed.policy = Some(UNLISTED.to_owned());
                    dropped.push(name.clone());
                }
            }
        }
        let names: Vec<String> = now.agents.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = format!("reload: {} agents in egret.toml", read.definitions.len());
        let done = self
            .announce(Vec::new(), NoteKind::Policy, message)
            .and_then(|()| self.publish(now, &names));
        if let Err(error) = done {
            for (name, Before { definition, policy, .. }) in before {
                if let Some(governed) = now.agents.get_mut(&name) {
                    (governed.definition, governed.closed.policy) = (definition, policy);
                }
            }
            // The interceptor took all or nothing; the kernel is told again what holds.
            let _ = names.iter().try_for_each(|name| self.publish_to_kernel(now, name));
            return Err(error);
        }
        for (name, Before { local, .. }) in &before {
            self.end_local(now, name, local);
        }
        for (name, definition) in &read.definitions {
            if let Err(error) = environment::publish(&self.run, name, definition) {
                tracing::warn!(agent = name, %error, "its placeholders are not published");
            }
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
            let Source::Attach(args) = &governed.source else { continue };
            let new = Definition::of_args(args, &governed.placeholders())
                .map_err(|why| DaemonError::Policy { name: name.clone(), why })?;
            found.insert(name.clone(), Arc::new(new));
        }
        Ok(found)
    }

    /// Ends connections past the interceptor, to ports of shared loopback that an agent had and has
    /// no more.
    fn end_local(&self, now: &Now, name: &str, before: &LocalPorts) {
        let Some(governed) = now.agents.get(name) else { return };
        let after = local_ports(now, name);
        let gone = |before: &[u16], after: &[u16]| -> Vec<u16> {
            before.iter().copied().filter(|port| !after.contains(port)).collect()
        };
        let connect = gone(&before.connect, &after.connect);
        let listen = gone(&before.listen, &after.listen);
        if connect.is_empty() && listen.is_empty() {
            return;
        }
        if let Err(error) = destroy_ports(&governed.cgroup, &connect, &listen) {
            let why = format!("what {name} has open on loopback was not ended: {error}");
            self.refused(NoteKind::Policy, name, Reason::ReloadRefused, &why);
        }
    }
}

/// What a reload changes of an agent.
struct Before {
    definition: Option<Arc<Definition>>,
    policy: Option<String>,
    local: LocalPorts,
}

impl Before {
    fn of(now: &Now, name: &str) -> Self {
        let governed = now.agents.get(name);
        Self {
            definition: governed.and_then(|g| g.definition.clone()),
            policy: governed.and_then(|g| g.closed.policy.clone()),
            local: local_ports(now, name),
        }
    }
}

//! What is governed now, and the one lock through which it changes.
//!
//! The order of every change is the same: what closes comes first, what opens comes last, and the
//! record of the intention is on disk before the kernel is touched. So a warden that is killed at
//! any point leaves something closed that the next one completes (`restart`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::agents::Places;
use super::definition::{Definition, Source};
use super::error::DaemonError;
use super::namespaces::Sockets;
use super::orphans::Orphan;
use super::records::{Records, Stage, Written};
use super::restart::DENIED;
use super::supervise::Supervisor;
use crate::config::DaemonConfig;
use crate::identify::SessionId;
use crate::intercept::wire::{AgentOrder, Note, NoteKind, Order};
use crate::outcome::{Decision, Reason};
use crate::policy::Local;
use crate::redirect::cgroup::{Cgroup, Hierarchy};
use crate::redirect::ebpf::{AgentFlags, Attachment, Kernel};
use crate::redirect::local::LocalPorts;
use crate::redirect::netns::Netns;

/// The warden's state.
pub(super) struct Governor {
    pub(super) kernel: Kernel,
    pub(super) hierarchy: Hierarchy,
    pub(super) supervisor: Supervisor,
    pub(super) records: Records,
    pub(super) run: PathBuf,
    pub(super) state: PathBuf,
    pub(super) config_path: PathBuf,
    /// The daemon's own network namespace, and usually the machine's.
    pub(super) netns: Netns,
    now: Mutex<Now>,
}

/// What changes.
#[derive(Default)]
pub(super) struct Now {
    pub(super) config: Option<DaemonConfig>,
    /// By the name of the `[[agent]]`.
    pub(super) definitions: BTreeMap<String, Arc<Definition>>,
    pub(super) places: Places,
    pub(super) agents: BTreeMap<String, Governed>,
    /// Attached by an egret before, without a record: closed until somebody detaches them.
    pub(super) orphans: BTreeMap<String, Orphan>,
    /// Matches of an `[[agent]]` that an operator has closed, by name, whether they are there or not.
    pub(super) denied: BTreeSet<String>,
    /// Groups that match an `[[agent]]` and were detached by hand.
    pub(super) released: BTreeSet<PathBuf>,
    /// Groups that could not be attached, so that it is said once.
    pub(super) failed: BTreeMap<PathBuf, String>,
    /// Groups above patterns, whose unknown members are refused everything.
    pub(super) guards: BTreeMap<String, PathBuf>,
}

/// An agent that is attached.
pub(super) struct Governed {
    /// Inside the hierarchy.
    pub(super) path: PathBuf,
    pub(super) cgroup: Cgroup,
    pub(super) session: SessionId,
    /// Where its policy comes from.
    pub(super) source: Source,
    /// None: nobody knows its policy, and it is closed.
    pub(super) definition: Option<Arc<Definition>>,
    /// The placeholders that its processes may hold, where nobody knows its policy.
    pub(super) placeholders: BTreeMap<String, String>,
    /// The `[[agent]]` that it is a match of.
    pub(super) config: Option<String>,
    /// None: the links are on the group of an agent above.
    pub(super) attachment: Option<Attachment>,
    pub(super) closed: Closed,
    pub(super) private: bool,
    /// What records call it, if not by its name.
    pub(super) label: Option<String>,
    pub(super) sockets: Sockets,
}

/// Why an agent is refused everything. Each reason ends by itself, and it is enforced again when
/// none is left.
#[derive(Debug, Default)]
pub(super) struct Closed {
    /// An operator wants it: `egret detach --deny`.
    pub(super) denied: bool,
    /// Its policy is not known, or not to be attached any more.
    pub(super) policy: Option<String>,
    /// A change of it was begun and could not be completed.
    pub(super) stuck: Option<String>,
}

impl Closed {
    /// The reason to tell; None: it is enforced.
    pub(super) fn why(&self) -> Option<&str> {
        let denied = self.denied.then_some(DENIED);
        denied.or(self.stuck.as_deref()).or(self.policy.as_deref())
    }
}

impl Governed {
    /// What its own policy says of it, whatever agents above say; None while it is closed.
    fn enforced(&self) -> Option<&Arc<Definition>> {
        self.definition.as_ref().filter(|_| self.closed.why().is_none())
    }

    /// The placeholders that its processes may hold, by credential.
    pub(super) fn placeholders(&self) -> BTreeMap<String, String> {
        self.definition.as_ref().map_or_else(|| self.placeholders.clone(), |d| d.placeholders())
    }
}

impl Governor {
    #[expect(clippy::too_many_arguments, reason = "each is a part, put together in one place")]
    pub(super) fn new(
        kernel: Kernel,
        hierarchy: Hierarchy,
        supervisor: Supervisor,
        records: Records,
        run: PathBuf,
        state: PathBuf,
        config_path: PathBuf,
        netns: Netns,
    ) -> Self {
        let now = Mutex::default();
        Self { kernel, hierarchy, supervisor, records, run, state, config_path, netns, now }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Now> {
        // A panic in the middle of a change leaves something closed; `egret status` shows it.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a record of something that the warden is about to do. It is not done without.
    pub(super) fn announce(
        &self,
        chain: Vec<String>,
        kind: NoteKind,
        message: String,
    ) -> Result<(), DaemonError> {
        self.supervisor.note(&note(kind, chain, message)).map_err(DaemonError::Audit)
    }

    /// Writes a record of something that was refused or has failed.
    pub(super) fn refused(&self, kind: NoteKind, name: &str, reason: Reason, message: &str) {
        tracing::warn!(agent = name, %reason, "{message}");
        let chain = if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
        let note = Note {
            decision: Decision::Deny,
            reason: Some(reason),
            ..note(kind, chain, message.to_owned())
        };
        self.supervisor.note_or_keep(note);
    }

    /// Writes what an agent's chain is to be into the kernel and the interceptor. Called with every
    /// change of the chain; an agent that is closed has an empty one.
    pub(super) fn publish(&self, now: &Now, names: &[&str]) -> Result<(), DaemonError> {
        let orders = names.iter().filter_map(|name| order(now, name)).collect();
        self.supervisor.link()?.tell(Order::Agents(orders), &[])?;
        names.iter().try_for_each(|name| self.publish_to_kernel(now, name))
    }

    /// The half of [`Self::publish`] that the kernel is told.
    pub(super) fn publish_to_kernel(&self, now: &Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else { return Ok(()) };
        let id = governed.cgroup.id();
        self.kernel.set_local(id, &local_ports(now, name))?;
        Ok(self.kernel.set_agent(id, flags(now, name))?)
    }

    /// The agent's group as an open file, if it is the one that the record means.
    pub(super) fn open_group(&self, path: &Path) -> Result<Cgroup, DaemonError> {
        Ok(self.hierarchy.open(path)?)
    }
}

/// A record in the making.
pub(super) fn note(kind: NoteKind, agent: Vec<String>, message: String) -> Note {
    Note { kind, decision: Decision::Note, reason: None, agent, session: None, message, ip: None }
}

/// What the interceptor is told of an agent.
pub(super) fn order(now: &Now, name: &str) -> Option<AgentOrder> {
    let governed = now.agents.get(name)?;
    let chain = now.places.chain(name);
    // One level that is closed closes every level below it.
    let links: Option<Vec<_>> = chain
        .iter()
        .map(|level| {
            let at = now.agents.get(*level)?;
            Some(at.enforced()?.link(at.label.as_deref().unwrap_or(level)))
        })
        .collect();
    Some(AgentOrder {
        agent: governed.cgroup.id().0,
        cgroup: governed.path.display().to_string(),
        session: governed.session.to_string(),
        synthesize: governed.private,
        chain: links.unwrap_or_default(),
    })
}

/// Zero for an agent that is closed, or that lies below one that is: found, and refused.
fn flags(now: &Now, name: &str) -> AgentFlags {
    if now.why_closed(name).is_some() {
        return AgentFlags::default();
    }
    match now.agents.get(name) {
        Some(governed) if governed.private => AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS),
        _ => AgentFlags::ACTIVE,
    }
}

/// Ports of shared loopback that every level grants.
pub(super) fn local_ports(now: &Now, name: &str) -> LocalPorts {
    let chain = now.places.chain(name);
    let levels: Option<Vec<&Local>> =
        chain.iter().map(|l| Some(&now.agents.get(*l)?.enforced()?.policy.local)).collect();
    let (connect, listen) = Local::ports_of_all(levels.unwrap_or_default());
    LocalPorts { connect, listen }
}

impl Now {
    /// Every agent at or below this one: those whose chain it is in.
    pub(super) fn affected(&self, name: &str) -> Vec<String> {
        let Some(governed) = self.agents.get(name) else { return Vec::new() };
        let below = self.places.below(&governed.path);
        std::iter::once(name).chain(below).map(str::to_owned).collect()
    }

    /// Why an agent is refused everything: for a reason of its own, or of one above it.
    pub(super) fn why_closed(&self, name: &str) -> Option<String> {
        let chain = self.places.chain(name);
        if chain.is_empty() {
            return Some("it is not attached".to_owned());
        }
        chain.iter().find_map(|level| {
            let why = match self.agents.get(*level) {
                Some(g) => {
                    g.closed.why().or(g.definition.is_none().then_some("its policy is lost"))
                }
                None => Some("it is not attached"),
            }?;
            Some(if *level == name { why.to_owned() } else { format!("{level} above it: {why}") })
        })
    }

    /// What is to be found on disk of an agent.
    pub(super) fn record(&self, name: &str, stage: Stage) -> Option<Written> {
        let governed = self.agents.get(name)?;
        Some(Written {
            name: name.to_owned(),
            path: governed.path.clone(),
            cgroup: governed.cgroup.id().0,
            session: governed.session.to_string(),
            source: governed.source.clone(),
            config: governed.config.clone(),
            stage,
            denied: governed.closed.denied,
            placeholders: governed.placeholders(),
        })
    }
}

//! Attaching and letting go, as transactions.
//!
//! ```text
//! attach   announce · record `attaching` · freeze · links (closed from here on) · interceptor ·
//!          listeners · table of agents (open from here on) · destroy old sockets · thaw · record
//! detach   announce · record `detaching` · table of agents (closed) · links of agents below, if
//!          theirs must take over · links away (free from here on) · listeners · record
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::definition::{Definition, Source};
use super::environment;
use super::error::DaemonError;
use super::governor::{Closed, Governed, Governor, Now, order};
use super::namespaces::Sockets;
use super::records::Stage;
use crate::config::PolicyArgs;
use crate::control::wire::Attached;
use crate::identify::SessionId;
use crate::intercept::wire::{NoteKind, Order};
use crate::outcome::Reason;
use crate::redirect::attach::{AttachError, How, attach_running, join_running};
use crate::redirect::attachment::Overlap;
use crate::redirect::cgroup::Cgroup;
use crate::redirect::ebpf::AgentFlags;
use crate::redirect::netns::Netns;
use crate::redirect::pins::PinError;

/// How long a group may take to come to a stop.
pub(super) const FREEZE: Duration = Duration::from_secs(5);

/// What is to be attached.
pub(super) struct Wanted {
    pub(super) name: String,
    /// Inside the hierarchy.
    pub(super) path: PathBuf,
    pub(super) source: Source,
    pub(super) definition: Arc<Definition>,
    pub(super) config: Option<String>,
}

impl Governor {
    /// Governs a group and all below it from now on.
    ///
    /// # Errors
    /// The group is as it was before, except for sockets that were destroyed already.
    pub(super) fn attach(&self, now: &mut Now, wanted: Wanted) -> Result<Attached, DaemonError> {
        let Wanted { name, path, source, definition, config } = wanted;
        if !is_name(&name) {
            return Err(DaemonError::BadName(name));
        }
        now.places.check(&name, &path)?;
        if self.kernel.pins()?.agents()?.contains(&name) {
            return Err(PinError::NameTaken(name).into());
        }
        let cgroup = self.open_group(&path)?;
        self.spare_interceptor(&cgroup)?;
        let chain: Vec<String> = now.places.holding(&path).iter().map(|n| n.to_string()).collect();
        let what = format!("attach {name} to {} with {}", path.display(), definition.policy.name);
        self.announce([chain, vec![name.clone()]].concat(), NoteKind::Admin, what)?;

        let was_frozen = is_frozen(&cgroup);
        now.places.add(&name, &path)?;
        now.agents.insert(
            name.clone(),
            Governed {
                path: path.clone(),
                cgroup,
                session: SessionId::random(),
                source,
                definition: Some(definition),
                placeholders: BTreeMap::new(),
                closed: Closed {
                    denied: config.is_some() && now.denied.contains(&name),
                    ..Closed::default()
                },
                config,
                attachment: None,
                private: false,
                label: None,
                sockets: Sockets::default(),
            },
        );
        self.write_record(now, &name, Stage::Attaching { was_frozen })
            .and_then(|()| self.attach_registered(now, &name))
            .inspect_err(|_| self.withdraw(now, &name))
    }

    /// Frozen, it could not be told of what it is to serve; governed, it would dial itself. The
    /// warden is looked for where the group is frozen.
    fn spare_interceptor(&self, cgroup: &Cgroup) -> Result<(), DaemonError> {
        let own = self.supervisor.describe().0.and_then(|pid| u32::try_from(pid).ok());
        match own {
            Some(pid) if cgroup.processes()?.contains(&pid) => {
                Err(AttachError::HoldsEgret(cgroup.path().into()).into())
            }
            _ => Ok(()),
        }
    }

    /// Attaches an agent that is in the books already.
    fn attach_registered(&self, now: &mut Now, name: &str) -> Result<Attached, DaemonError> {
        let governed = &now.agents[name];
        let (path, id) = (governed.path.clone(), governed.cgroup.id());
        let under_another = now.places.holding(&path).len() > 1;
        let below: Vec<String> =
            now.places.outermost_below(&path).iter().map(|n| n.to_string()).collect();
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        let mut sockets = Sockets::default();
        let link = self.supervisor.link()?;
        let prepare = |namespaces: &[Netns]| -> Result<(), DaemonError> {
            // The agent is known to the interceptor before the first connection can come.
            let orders = affected.iter().filter_map(|n| order(now, n)).collect();
            link.tell(Order::Agents(orders), &[])?;
            self.open_own_listeners(&link, id, &mut sockets)?;
            for netns in namespaces {
                self.open_listeners(&link, id, netns, &mut sockets)?;
            }
            affected.iter().try_for_each(|n| self.publish_to_kernel(now, n))
        };
        let group = &now.agents[name].cgroup;
        let (attachment, destroyed, foreign) = if under_another {
            let joined = join_running(group, FREEZE, prepare)?;
            (None, joined.destroyed, joined.foreign)
        } else {
            let overlap = if below.is_empty() { Overlap::Refuse } else { Overlap::Above };
            let how = How { name: Some(name), freeze: FREEZE, overlap };
            let attached = attach_running(&self.kernel, group, &how, prepare)?;
            (Some(attached.attachment), attached.destroyed, attached.foreign)
        };
        let namespaces = sockets.count();
        if let Some(governed) = now.agents.get_mut(name) {
            (governed.attachment, governed.sockets) = (attachment, sockets);
        }
        // From here on both sets of programs run below; the outer one is enough, and the inner ones
        // would see what it puts in place, and refuse.
        for inner in below {
            self.drop_links(now, &inner)?;
        }
        self.write_record(now, name, Stage::Attached)?;
        let cgroup = path.display().to_string();
        Ok(Attached { name: name.to_owned(), cgroup, destroyed, foreign, namespaces })
    }

    /// Takes back what a failed attach has done. What cannot be taken back stays closed.
    fn withdraw(&self, now: &mut Now, name: &str) {
        let Some(governed) = now.agents.get(name) else { return };
        let path = governed.path.clone();
        match self.let_go(now, name) {
            Ok(()) => {
                self.strike(now, name, &path);
                now.released.remove(&path); // the next look may try again
            }
            Err(error) => {
                let why = format!("its attaching failed, and so did taking it back: {error}");
                self.refused(NoteKind::Admin, name, Reason::AgentClosed, &why);
                self.stick(now, name, why);
            }
        }
    }

    /// Lets an agent go: from then on it is governed by the agents above it, or not at all.
    ///
    /// # Errors
    /// It is still attached then, in whole or in part, and closed if that was begun.
    pub(super) fn detach(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        if now.orphans.contains_key(name) {
            return self.detach_orphan(now, name);
        }
        let Some(governed) = now.agents.get(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        let path = governed.path.clone();
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        self.announce(chain, NoteKind::Admin, format!("detach {name} from {}", path.display()))?;
        self.write_record(now, name, Stage::Detaching)?;
        let gone = self.let_go(now, name);
        match &gone {
            Ok(()) => {
                self.strike(now, name, &path);
                if let Err(error) = self.set_denied(now, name, false) {
                    tracing::warn!(agent = name, %error, "the next group of its is closed");
                }
            }
            Err(error) => self.stick(now, name, format!("its detaching is not complete: {error}")),
        }
        gone
    }

    /// Closes an agent that was changed in part, and all below it.
    fn stick(&self, now: &mut Now, name: &str, why: String) {
        if let Some(governed) = now.agents.get_mut(name) {
            governed.closed.stuck = Some(why);
        }
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        if let Err(error) = self.publish(now, &affected) {
            tracing::error!(agent = name, %error, "its interceptor is not told that it is closed");
            let _ = affected.iter().try_for_each(|n| self.publish_to_kernel(now, n));
        }
    }

    /// Takes an agent's links away, after agents below have links of their own.
    fn let_go(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get_mut(name) else { return Ok(()) };
        let id = governed.cgroup.id();
        // Closed first: nothing of it is half open while the rest is taken away.
        self.kernel.set_agent(id, AgentFlags::default())?;
        // Perhaps a part of them, from a time before that failed.
        let links = match governed.attachment.take() {
            Some(links) => Some(links),
            None => self.find_links(name, &governed.cgroup)?,
        };
        let Some(links) = links else { return Ok(()) };
        if let Err(error) = self.hand_links_down(now, name) {
            if let Some(governed) = now.agents.get_mut(name) {
                governed.attachment = Some(links);
            }
            return Err(error);
        }
        // Closed programs, of a unit or of a guard, let pass whom the kernel knows as an agent.
        self.kernel.remove_agent(id)?;
        Ok(links.detach()?)
    }

    /// Agents below get links of their own before those of the agent above them go.
    fn hand_links_down(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else { return Ok(()) };
        let path = governed.path.clone();
        let below: Vec<String> =
            now.places.outermost_below(&path).iter().map(|n| n.to_string()).collect();
        for inner in below {
            let Some(governed) = now.agents.get_mut(&inner) else { continue };
            if governed.attachment.is_none() {
                let links = match self.find_links(&inner, &governed.cgroup)? {
                    Some(links) => links,
                    None => self.kernel.attach_pinned(&governed.cgroup, &inner, Overlap::Below)?,
                };
                governed.attachment = Some(links);
            }
        }
        Ok(())
    }

    /// Takes the links of an agent away because an agent above has them now.
    fn drop_links(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let attachment = now.agents.get_mut(name).and_then(|g| g.attachment.take());
        Ok(attachment.map_or(Ok(()), |attachment| attachment.detach())?)
    }

    /// Removes an agent from all books; its links are gone.
    pub(super) fn strike(&self, now: &mut Now, name: &str, path: &Path) {
        let affected = now.affected(name);
        let Some(mut governed) = now.agents.remove(name) else { return };
        now.places.remove(name);
        let id = governed.cgroup.id();
        if let Err(error) = self.kernel.remove_agent(id) {
            tracing::warn!(agent = name, %error, "the kernel still knows it, as closed");
        }
        if let Ok(link) = self.supervisor.link() {
            let _ = link.tell(Order::Remove { agent: id.0 }, &[]);
        }
        for cookie in governed.sockets.cookies() {
            let _ = self.close_listeners(id, cookie, &mut governed.sockets);
        }
        if governed.config.is_some() {
            now.released.insert(path.to_owned());
        }
        let others: Vec<&str> =
            affected.iter().map(String::as_str).filter(|n| *n != name).collect();
        if let Err(error) = self.publish(now, &others) {
            tracing::error!(%error, "agents below keep their old chain, which is narrower");
        }
        if let Err(error) = self.records.remove(name) {
            tracing::warn!(agent = name, %error, "its record stays behind");
        }
    }

    pub(super) fn write_record(
        &self,
        now: &Now,
        name: &str,
        stage: Stage,
    ) -> Result<(), DaemonError> {
        let Some(record) = now.record(name, stage) else { return Ok(()) };
        self.records.write(&record).map_err(DaemonError::at(&self.run.join("attached")))
    }

    /// What `egret attach` asks for.
    pub(super) fn attach_by_hand(
        &self,
        name: String,
        path: PathBuf,
        policy: PolicyArgs,
        definition: Definition,
    ) -> Result<Attached, DaemonError> {
        if name.contains(':') || !is_name(&name) {
            return Err(DaemonError::BadName(name)); // a colon is for matches of patterns
        }
        let mut now = self.lock();
        now.places.check(&name, &path)?;
        environment::publish(&self.run, &name, &definition)
            .map_err(DaemonError::at(&self.run.join("env")))?;
        now.released.remove(&path);
        let (source, definition) = (Source::Attach(policy), Arc::new(definition));
        self.attach(&mut now, Wanted { name, path, source, definition, config: None })
    }
}

pub(super) fn is_frozen(cgroup: &Cgroup) -> bool {
    std::fs::read_to_string(cgroup.path().join("cgroup.freeze")).is_ok_and(|t| t.trim() == "1")
}

/// 1 to 64 bytes; a match of a pattern is named after both.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name.split_once(':') {
        Some((config, leaf)) => {
            is_name(config) && (1..=150).contains(&leaf.len()) && leaf.bytes().all(|b| b > b' ')
        }
        None => {
            (1..=64).contains(&name.len())
                && name.bytes().all(plain)
                && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        }
    }
}

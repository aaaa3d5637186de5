//! Attaching and letting go, as transactions.
//!
//! ```text
//! attach   announce · record `attaching` · freeze · links (closed from here on) · interceptor ·
//!          listeners · table of agents (open from here on) · destroy old sockets · thaw · record
//! detach   announce · record `detaching` · table of agents (closed) · links of agents below, if
//!          theirs must take over · links away (free from here on) · listeners · record
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::definition::{Definition, Source};
use super::error::DaemonError;
use super::governor::{Governed, Governor, Now, order};
use super::namespaces::Sockets;
use super::records::Stage;
use super::restart::DENIED;
use crate::control::wire::Attached;
use crate::identify::SessionId;
use crate::intercept::wire::Order;
use crate::redirect::attach::{How, attach_running, join_running};
use crate::redirect::attachment::Overlap;
use crate::redirect::cgroup::Cgroup;
use crate::redirect::ebpf::AgentFlags;
use crate::redirect::netns::Netns;

/// How long a group may take to come to a stop.
pub(super) const FREEZE: Duration = Duration::from_secs(5);

/// What is to be attached.
pub(super) struct Wanted {
    pub(super) name: String,
    /// Inside the hierarchy.
    pub(super) path: PathBuf,
    pub(super) definition: Arc<Definition>,
    pub(super) config: Option<String>,
}

impl Governor {
    /// Governs a group and all below it from now on.
    ///
    /// # Errors
    /// The group is as it was before, except for sockets that were destroyed already.
    pub(super) fn attach(&self, now: &mut Now, wanted: Wanted) -> Result<Attached, DaemonError> {
        let Wanted { name, path, definition, config } = wanted;
        if !is_name(&name) {
            return Err(DaemonError::BadName(name));
        }
        now.places.check(&name, &path)?;
        let cgroup = self.open_group(&path)?;
        let chain: Vec<String> = now.places.holding(&path).iter().map(|n| n.to_string()).collect();
        let what = format!("attach {name} to {} with {}", path.display(), definition.policy.name);
        self.announce([chain, vec![name.clone()]].concat(), what)?;

        let was_frozen = is_frozen(&cgroup);
        let id = cgroup.id();
        now.places.add(&name, &path)?;
        now.agents.insert(
            name.clone(),
            Governed {
                path: path.clone(),
                cgroup,
                session: SessionId::random(),
                definition: Some(definition),
                config,
                attachment: None,
                closed: None,
                private: false,
                label: None,
                sockets: Sockets::default(),
            },
        );
        let result = self
            .write_record(now, &name, Stage::Attaching { was_frozen })
            .and_then(|()| self.attach_registered(now, &name));
        match result {
            Ok(attached) => Ok(attached),
            Err(error) => {
                self.withdraw(now, &name);
                debug_assert!(!now.agents.contains_key(&name));
                tracing::debug!(?id, "attaching was taken back");
                Err(error)
            }
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

    /// Takes the links of an agent away because an agent above has them now.
    fn drop_links(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let attachment = now.agents.get_mut(name).and_then(|g| g.attachment.take());
        Ok(attachment.map_or(Ok(()), |attachment| attachment.detach())?)
    }

    /// Takes back what a failed attach has done. What cannot be taken back stays closed.
    fn withdraw(&self, now: &mut Now, name: &str) {
        let affected = now.affected(name);
        let Some(governed) = now.agents.remove(name) else { return };
        now.places.remove(name);
        let id = governed.cgroup.id();
        if let Some(attachment) = governed.attachment
            && let Err(error) = attachment.detach()
        {
            tracing::error!(agent = name, %error, "stays attached in part, and closed");
        }
        let _ = self.kernel.remove_agent(id);
        for cookie in governed.sockets.cookies() {
            let _ = self.kernel.remove_listeners(cookie, id);
        }
        if let Ok(link) = self.supervisor.link() {
            let _ = link.tell(Order::Remove { agent: id.0 }, &[]);
        }
        let others: Vec<&str> =
            affected.iter().map(String::as_str).filter(|n| *n != name).collect();
        if let Err(error) = self.publish(now, &others) {
            tracing::error!(%error, "agents below are not told");
        }
        let _ = self.records.remove(name);
    }

    /// Lets an agent go: from then on it is governed by the agents above it, or not at all.
    ///
    /// # Errors
    /// It is still attached then, in whole or in part, and what is attached in part is closed.
    pub(super) fn detach(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        if let Some(orphan) = now.orphans.get_mut(name) {
            let attachment = orphan.take();
            self.announce(vec![name.to_owned()], format!("detach {name}, which was closed"))?;
            match attachment {
                Some(attachment) => attachment.detach()?,
                None => self.kernel.forget(name)?,
            }
            now.orphans.remove(name);
            return Ok(());
        }
        let Some(governed) = now.agents.get(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        let (path, id) = (governed.path.clone(), governed.cgroup.id());
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        self.announce(chain, format!("detach {name} from {}", path.display()))?;
        self.write_record(now, name, Stage::Detaching)?;
        // Closed first: nothing of it is half open while the rest is taken away.
        self.kernel.set_agent(id, AgentFlags::default())?;
        self.hand_links_down(now, name)?;
        if let Some(attachment) = now.agents.get_mut(name).and_then(|g| g.attachment.take()) {
            attachment.detach()?;
        }
        self.strike(now, name, &path);
        Ok(())
    }

    /// Agents below get links of their own before those of the agent above them go.
    fn hand_links_down(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else { return Ok(()) };
        if governed.attachment.is_none() {
            return Ok(());
        }
        let path = governed.path.clone();
        let below: Vec<String> =
            now.places.outermost_below(&path).iter().map(|n| n.to_string()).collect();
        for inner in below {
            let Some(inner_governed) = now.agents.get_mut(&inner) else { continue };
            let links =
                self.kernel.attach_pinned(&inner_governed.cgroup, &inner, Overlap::Below)?;
            inner_governed.attachment = Some(links);
        }
        Ok(())
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

    /// Refuses an agent everything; it stays attached.
    pub(super) fn close(&self, now: &mut Now, name: &str, why: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get_mut(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        governed.closed = Some(why.to_owned());
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        // The kernel first: it needs nobody's answer.
        affected.iter().try_for_each(|n| self.publish_to_kernel(now, n))?;
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        let said = self.announce(chain, format!("close {name}: {why}"));
        let told = self.publish(now, &affected);
        self.write_record(now, name, Stage::Attached)?;
        said.and(told)
    }

    /// Takes a [`Self::close`] back, where its policy is known.
    pub(super) fn reopen(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        if governed.definition.is_none() || governed.closed.as_deref() != Some(DENIED) {
            let why = governed.closed.clone().unwrap_or_else(|| "it is not closed".to_owned());
            return Err(DaemonError::StaysClosed { name: name.to_owned(), why });
        }
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        self.announce(chain, format!("open {name} again"))?;
        if let Some(governed) = now.agents.get_mut(name) {
            governed.closed = None;
        }
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        self.publish(now, &affected)?;
        self.write_record(now, name, Stage::Attached)
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
        definition: Definition,
    ) -> Result<Attached, DaemonError> {
        debug_assert!(matches!(definition.source, Source::Attach(_)));
        let mut now = self.lock();
        now.released.remove(&path);
        let definition = Arc::new(definition);
        self.attach(&mut now, Wanted { name, path, definition, config: None })
    }
}

fn is_frozen(cgroup: &Cgroup) -> bool {
    std::fs::read_to_string(cgroup.path().join("cgroup.freeze")).is_ok_and(|t| t.trim() == "1")
}

/// 1 to 64 bytes; a match of a pattern is named after both.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name.split_once(':') {
        Some((config, leaf)) => {
            is_name(config) && (1..=150).contains(&leaf.len()) && leaf.bytes().all(|b| b > b' ')
        }
        None => (1..=64).contains(&name.len()) && name.bytes().all(plain),
    }
}

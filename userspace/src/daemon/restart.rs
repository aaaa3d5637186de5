//! A daemon that starts finds what the one before left: links and maps that are pinned, and a
//! record of each agent. Everything is found again or stays closed; what was half done is
//! completed, in the direction in which it was going.

use std::sync::Arc;

use super::attach::{FREEZE, is_frozen};
use super::definition::{Definition, Source};
use super::error::DaemonError;
use super::governor::{Closed, Governed, Governor, Now, order};
use super::namespaces::Sockets;
use super::records::{Stage, Written};
use super::supervise::names_folder;
use crate::identify::{CgroupId, SessionId};
use crate::intercept::wire::{NoteKind, Order};
use crate::outcome::Reason;
use crate::redirect::attach::{join_running, namespaces};
use crate::redirect::attachment::Overlap;
use crate::redirect::cgroup::Cgroup;
use crate::redirect::ebpf::{AgentFlags, Attachment, KernelError};
use crate::redirect::pins::PinError;

impl Governor {
    /// Takes over every agent that was attached. Nothing is served yet: the lease is over, and the
    /// interceptor is told at the end.
    pub(super) fn take_over(&self, now: &mut Now) -> Result<(), DaemonError> {
        let (mut written, damaged) =
            self.records.all().map_err(DaemonError::at(&self.run.join("attached")))?;
        for file in damaged {
            let why = format!("{} cannot be read; its agent is closed", file.display());
            self.refused(NoteKind::Admin, "", Reason::AgentClosed, &why);
        }
        now.denied = self.records.denied().map_err(DaemonError::at(&self.run.join("attached")))?;
        // Outer ones first, so that links are looked for where they belong.
        written.sort_by_key(|w| w.path.components().count());
        let mut unfinished = Vec::new();
        for record in written {
            let (name, stage, path) = (record.name.clone(), record.stage, record.path.clone());
            match self.find_again(now, record) {
                Ok(true) => unfinished.push((name, stage)),
                Ok(false) => {}
                Err(error) => {
                    let why = format!("{name} stays closed: {error}");
                    self.refused(NoteKind::Admin, &name, Reason::AgentClosed, &why);
                    if let (Stage::Attaching { was_frozen: false }, Ok(cgroup)) =
                        (stage, self.open_group(&path))
                    {
                        let _ = cgroup.thaw(); // whoever made it stand still is dead
                    }
                }
            }
        }
        self.find_orphans(now)?;
        for name in self.normalise(now) {
            // It was free, so what it has open is nobody's decision.
            let was_frozen = now.agents.get(&name).is_some_and(|g| is_frozen(&g.cgroup));
            unfinished.push((name, Stage::Attaching { was_frozen }));
        }
        self.forget_names(now);
        self.serve_again(now)?;
        for (name, stage) in unfinished {
            self.finish(now, &name, stage);
        }
        Ok(())
    }

    /// Removes what was kept of sessions that are over.
    fn forget_names(&self, now: &Now) {
        let folder = names_folder(&self.state, &self.run);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            if !now.agents.values().any(|g| *g.session.0 == *name.to_string_lossy()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Puts an agent into the books again. False: its group is gone, and so is the agent.
    fn find_again(&self, now: &mut Now, record: Written) -> Result<bool, DaemonError> {
        let name = record.name.clone();
        if self.is_gone(&record.path, record.cgroup) {
            self.forget_pins(&name, CgroupId(record.cgroup))?;
            self.kernel.remove_agent(CgroupId(record.cgroup))?;
            let _ = self.records.remove(&name);
            return Ok(false);
        }
        let cgroup = self.open_group(&record.path)?;
        let attachment = self.find_links(&name, &cgroup)?;
        // Closed until its policy is there.
        self.kernel.set_agent(cgroup.id(), AgentFlags::default())?;
        let (definition, policy) = match self.define(now, &record) {
            Ok(definition) => (Some(definition), None),
            Err(why) => (None, Some(why)),
        };
        let closed = Closed { denied: record.denied, policy, stuck: None };
        if let Some(why) = closed.why() {
            self.refused(NoteKind::Policy, &name, Reason::AgentClosed, why);
        }
        now.places.add(&name, &record.path)?;
        now.agents.insert(
            name,
            Governed {
                path: record.path,
                cgroup,
                session: SessionId(record.session.into()),
                private: matches!(record.source, Source::Run),
                source: record.source,
                definition,
                placeholders: record.placeholders,
                config: record.config,
                attachment,
                closed,
                label: None,
                sockets: Sockets::default(),
            },
        );
        Ok(true)
    }

    /// The links of an agent, completed where some are missing. None: it has none of its own.
    pub(super) fn find_links(
        &self,
        name: &str,
        cgroup: &Cgroup,
    ) -> Result<Option<Attachment>, DaemonError> {
        match self.kernel.adopt_attachment(name) {
            Ok(attachment) => Ok(Some(attachment)),
            // A folder without a link, or of a group that was made anew since.
            Err(KernelError::Pins(
                PinError::Half { cgroup: None, .. } | PinError::CgroupGone(_),
            )) => {
                self.kernel.forget(name)?;
                Ok(None)
            }
            Err(KernelError::Pins(PinError::Half { .. })) => {
                Ok(Some(self.kernel.repair(name, cgroup)?))
            }
            Err(KernelError::Pins(PinError::Unknown(_))) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn define(&self, now: &Now, record: &Written) -> Result<Arc<Definition>, String> {
        match (&record.source, &record.config) {
            (Source::Config, Some(config)) => {
                now.definitions.get(config).cloned().ok_or_else(|| UNLISTED.to_owned())
            }
            (Source::Attach(args), _) => {
                Definition::of_args(args, &record.placeholders).map(Arc::new)
            }
            (Source::Config, None) => Err(UNLISTED.to_owned()),
            (Source::Run, _) => Err("its secrets went with the daemon that had them".to_owned()),
        }
    }

    /// Links are on outermost groups only: gives them to those that lack them and takes them from
    /// those that have them below others. Answers who got some.
    pub(super) fn normalise(&self, now: &mut Now) -> Vec<String> {
        let names: Vec<String> = now.agents.keys().cloned().collect();
        let mut attached = Vec::new();
        for name in &names {
            let outermost = now.places.chain(name).first() == Some(&name.as_str());
            let Some(governed) = now.agents.get_mut(name) else { continue };
            if !outermost || governed.attachment.is_some() {
                continue;
            }
            match self.kernel.attach_pinned(&governed.cgroup, name, Overlap::Above) {
                Ok(attachment) => {
                    governed.attachment = Some(attachment);
                    attached.push(name.clone());
                }
                Err(error) => {
                    let why = format!("its programs cannot be attached: {error}");
                    governed.closed.stuck = Some(why.clone());
                    self.refused(NoteKind::Admin, name, Reason::AttachRefused, &why);
                }
            }
        }
        for name in &names {
            let chain = now.places.chain(name);
            let outermost = chain.first().map(|n| n.to_string());
            let covered = outermost.as_deref() != Some(name)
                && outermost
                    .is_some_and(|o| now.agents.get(&o).is_some_and(|g| g.attachment.is_some()));
            let Some(governed) = now.agents.get_mut(name) else { continue };
            if covered
                && let Some(attachment) = governed.attachment.take()
                && let Err(error) = attachment.detach()
            {
                tracing::error!(agent = name, %error, "has links below those of another");
            }
        }
        attached
    }

    /// Tells a new interceptor everything, and the kernel what became of it.
    pub(super) fn serve_again(&self, now: &mut Now) -> Result<(), DaemonError> {
        let link = self.supervisor.link()?;
        let names: Vec<String> = now.agents.keys().cloned().collect();
        let orders = names.iter().filter_map(|n| order(now, n)).collect();
        link.tell(Order::Agents(orders), &[])?;
        for name in &names {
            let Some(governed) = now.agents.get_mut(name) else { continue };
            let id = governed.cgroup.id();
            governed.sockets.pass_all(&link, id)?;
            if governed.sockets.count() == 0 && !governed.private {
                self.open_own_listeners(&link, id, &mut governed.sockets)?;
                match namespaces(&governed.cgroup) {
                    Ok(found) => {
                        for netns in &found {
                            self.open_listeners(&link, id, netns, &mut governed.sockets)?;
                        }
                    }
                    // The next look at its namespaces finds them.
                    Err(error) => tracing::warn!(agent = name, %error, "not served yet"),
                }
            }
        }
        names.iter().try_for_each(|name| self.publish_to_kernel(now, name))
    }

    /// Completes what an earlier daemon had begun with an agent.
    pub(super) fn finish(&self, now: &mut Now, name: &str, stage: Stage) {
        let result = match stage {
            Stage::Attached => return,
            Stage::Attaching { was_frozen } => self.finish_attaching(now, name, was_frozen),
            Stage::Detaching => self.detach(now, name),
        };
        if let Err(error) = result {
            let why = format!("{name} was being changed when the daemon died: {error}");
            self.refused(NoteKind::Admin, name, Reason::AgentClosed, &why);
        }
    }

    /// What was open before it was attached goes, and the group goes on.
    fn finish_attaching(
        &self,
        now: &mut Now,
        name: &str,
        was_frozen: bool,
    ) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else { return Ok(()) };
        let nothing = |_: &[crate::redirect::netns::Netns]| Ok::<_, DaemonError>(());
        join_running(&governed.cgroup, FREEZE, nothing)?;
        if !was_frozen {
            governed.cgroup.thaw()?;
        }
        self.write_record(now, name, Stage::Attached)
    }

    /// Removes the pins of an agent whose group is gone.
    pub(super) fn forget_pins(&self, name: &str, gone: CgroupId) -> Result<(), DaemonError> {
        match self.kernel.forget_gone(name, gone) {
            Err(KernelError::Pins(PinError::Unknown(_))) => Ok(()),
            other => Ok(other?),
        }
    }
}

pub(super) const DENIED: &str = "closed by `egret detach --deny`";
pub(super) const UNLISTED: &str =
    "no longer in egret.toml: closed; `egret detach` lets it go, or put it back and reload";

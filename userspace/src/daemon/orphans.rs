//! What was attached and has no record: nobody knows under which policy. It is closed and named in
//! the status until an operator lets it go, or its group is gone.
//!
//! An agent below another has no links of its own; only the kernel knows it still, by its group,
//! and so it is named by the path of that.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::error::DaemonError;
use super::governor::{Governor, Now};
use crate::identify::CgroupId;
use crate::intercept::wire::NoteKind;
use crate::outcome::Reason;
use crate::redirect::ebpf::{AgentFlags, Attachment, KernelError};
use crate::redirect::pins::PinError;

/// One of them.
#[derive(Debug)]
pub(super) enum Orphan {
    Linked(Attachment),
    /// Its links could not be found again, or were let go of in part.
    Stuck,
    /// Without links of its own.
    Below(CgroupId),
}

impl Governor {
    /// Finds and closes them.
    pub(super) fn find_orphans(&self, now: &mut Now) -> Result<(), DaemonError> {
        for name in self.kernel.pins()?.agents()? {
            if now.agents.contains_key(&name) {
                continue;
            }
            let orphan = match self.adopt_orphan(&name) {
                Ok(None) => continue,
                Ok(Some(links)) => Orphan::Linked(links),
                Err(error) => {
                    tracing::warn!(agent = name, %error, "what is attached of it stays closed");
                    Orphan::Stuck
                }
            };
            self.add_orphan(now, name, orphan);
        }
        let groups = self.groups();
        for id in self.kernel.known_agents()? {
            let linked = |o: &Orphan| matches!(o, Orphan::Linked(links) if links.cgroup() == id);
            if now.agents.values().any(|g| g.cgroup.id() == id) || now.orphans.values().any(linked)
            {
                continue;
            }
            match groups.get(&id) {
                Some(path) => {
                    self.kernel.set_agent(id, AgentFlags::default())?;
                    self.add_orphan(now, path.display().to_string(), Orphan::Below(id));
                }
                None => self.kernel.remove_agent(id)?,
            }
        }
        self.forget_damaged(now);
        Ok(())
    }

    fn add_orphan(&self, now: &mut Now, name: String, orphan: Orphan) {
        let why = format!("{name} is attached and nobody knows its policy: closed");
        self.refused(NoteKind::Admin, &name, Reason::AgentClosed, &why);
        now.orphans.insert(name, orphan);
    }

    /// The links of one, all of them, and their group closed. None: there was nothing to it.
    fn adopt_orphan(&self, name: &str) -> Result<Option<Attachment>, DaemonError> {
        let attachment = match self.kernel.adopt_attachment(name) {
            Ok(attachment) => attachment,
            Err(KernelError::Pins(PinError::Unknown(_))) => return Ok(None),
            Err(KernelError::Pins(
                PinError::CgroupGone(_) | PinError::Half { cgroup: None, .. },
            )) => {
                self.kernel.forget(name)?;
                return Ok(None);
            }
            Err(KernelError::Pins(half @ PinError::Half { cgroup: Some(id), .. })) => {
                let groups = self.groups();
                let path = groups.get(&id).ok_or(half)?;
                self.kernel.repair(name, &self.open_group(path)?)?
            }
            Err(error) => return Err(error.into()),
        };
        self.kernel.set_agent(attachment.cgroup(), AgentFlags::default())?;
        Ok(Some(attachment))
    }

    /// Every group by its id.
    fn groups(&self) -> BTreeMap<CgroupId, PathBuf> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![PathBuf::from("/")];
        while let Some(group) = waiting.pop() {
            let at = self.hierarchy.root().join(group.strip_prefix("/").unwrap_or(&group));
            for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    let path = group.join(entry.file_name());
                    found.insert(CgroupId(meta.ino()), path.clone());
                    waiting.push(path);
                }
            }
        }
        found
    }

    /// Lets one go: from then on it is governed by the agents above it, or not at all.
    pub(super) fn detach_orphan(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        self.announce(vec![name.to_owned()], NoteKind::Admin, format!("detach {name}"))?;
        let links = match now.orphans.insert(name.to_owned(), Orphan::Stuck) {
            Some(Orphan::Below(id)) => {
                self.kernel.remove_agent(id)?;
                None
            }
            Some(Orphan::Linked(links)) => Some(links),
            Some(Orphan::Stuck) | None => self.adopt_orphan(name)?,
        };
        if let Some(links) = links {
            self.kernel.remove_agent(links.cgroup())?;
            links.detach()?;
        }
        now.orphans.remove(name);
        self.records.remove(name).map_err(DaemonError::at(&self.records.path(name)))?;
        self.forget_damaged(now);
        Ok(())
    }

    /// Forgets those whose group is gone.
    pub(super) fn forget_gone_orphans(&self, now: &mut Now) {
        if now.orphans.is_empty() {
            return;
        }
        let groups = self.groups();
        now.orphans.retain(|name, orphan| match orphan {
            Orphan::Below(id) => groups.contains_key(id) || self.kernel.remove_agent(*id).is_err(),
            Orphan::Linked(_) | Orphan::Stuck => self.kernel.forget(name).is_err(),
        });
        self.forget_damaged(now);
    }

    /// Records that cannot be read mean somebody as long as there is somebody without a record.
    fn forget_damaged(&self, now: &Now) {
        if now.orphans.is_empty()
            && let Err(error) = self.records.remove_damaged()
        {
            tracing::warn!(%error, "a damaged record stays behind");
        }
    }
}

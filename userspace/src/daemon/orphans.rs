//! Links without a record: somebody attached them and nobody knows under which policy. They are
//! closed and named in the status until an operator lets them go, or their group is gone.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::DaemonError;
use super::governor::{Governor, Now};
use crate::identify::CgroupId;
use crate::intercept::wire::NoteKind;
use crate::outcome::Reason;
use crate::redirect::cgroup::Cgroup;
use crate::redirect::ebpf::{AgentFlags, Attachment, KernelError};
use crate::redirect::pins::PinError;

impl Governor {
    /// Finds and closes them.
    pub(super) fn find_orphans(&self, now: &mut Now) -> Result<(), DaemonError> {
        for name in self.kernel.pins()?.agents()? {
            if now.agents.contains_key(&name) {
                continue;
            }
            let attachment = match self.adopt_orphan(&name) {
                Ok(None) => continue,
                Ok(attachment) => attachment,
                Err(error) => {
                    tracing::warn!(agent = name, %error, "what is attached of it stays closed");
                    None
                }
            };
            let why = format!("{name} is attached and nobody knows its policy: closed");
            self.refused(NoteKind::Admin, &name, Reason::AgentClosed, &why);
            now.orphans.insert(name, attachment);
        }
        Ok(())
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
            Err(KernelError::Pins(PinError::Half { cgroup: Some(id), .. })) => {
                let cgroup = self.group_with(id)?;
                self.kernel.repair(name, &cgroup)?
            }
            Err(error) => return Err(error.into()),
        };
        self.kernel.set_agent(attachment.cgroup(), AgentFlags::default())?;
        Ok(Some(attachment))
    }

    /// The group with this id, wherever it is.
    fn group_with(&self, id: CgroupId) -> Result<Cgroup, DaemonError> {
        let mut waiting = vec![PathBuf::from("/")];
        while let Some(group) = waiting.pop() {
            let at = self.hierarchy.root().join(group.strip_prefix("/").unwrap_or(&group));
            for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                let below = group.join(entry.file_name());
                if entry.metadata().is_ok_and(|m| m.ino() == id.0) {
                    return self.open_group(&below);
                }
                waiting.push(below);
            }
        }
        Err(DaemonError::at(Path::new("its cgroup"))(std::io::ErrorKind::NotFound.into()))
    }

    /// Lets one go.
    pub(super) fn detach_orphan(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        self.announce(
            vec![name.to_owned()],
            NoteKind::Admin,
            format!("detach {name}, which was closed"),
        )?;
        let known = now.orphans.get_mut(name).and_then(Option::take);
        let found = match known {
            Some(attachment) => Some(attachment),
            None => self.adopt_orphan(name)?,
        };
        if let Some(attachment) = found {
            let id = attachment.cgroup();
            attachment.detach()?;
            self.kernel.remove_agent(id)?;
        }
        // One that could not be read.
        self.records.remove(name).map_err(DaemonError::at(&self.records.path(name)))?;
        now.orphans.remove(name);
        Ok(())
    }

    /// Forgets those whose group is gone.
    pub(super) fn forget_gone_orphans(&self, now: &mut Now) {
        now.orphans.retain(|name, _| self.kernel.forget(name).is_err());
    }
}

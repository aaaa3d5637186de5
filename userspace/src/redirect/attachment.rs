//! The programs on one cgroup: attached, pinned, found again, replaced, detached.
//!
//! The hook that drops packets is attached first and detached last, so whatever a process that dies
//! on the way leaves behind is closed to the wire, never half open.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use agent_ebpf::abi::Hook;

use super::cgroup::Cgroup;
use super::ebpf::{Kernel, KernelError, attach_type};
use super::pins::{PinError, Pins, at, remove_pin};
use crate::identify::CgroupId;
use crate::sys::{bpf, bpf_object};

/// The programs, attached to one cgroup. Dropping it detaches them, unless they are pinned: then
/// [`Attachment::detach`] is the only way out.
///
/// Attach only to the outermost group of an agent and its delegates: programs of nested groups run
/// one after the other, and the second would see the address that the first put in place.
#[derive(Debug)]
pub struct Attachment {
    /// In the order of [`closing_first`].
    links: Vec<(Hook, OwnedFd)>,
    /// The agent's name and the folder of its pins.
    pinned: Option<(String, PathBuf)>,
    cgroup: CgroupId,
}

impl Attachment {
    /// The group.
    pub fn cgroup(&self) -> CgroupId {
        self.cgroup
    }

    /// The agent, if the links are pinned.
    pub fn name(&self) -> Option<&str> {
        self.pinned.as_ref().map(|(name, _)| name.as_str())
    }

    /// Detaches every program and removes its pin. It stops at the first failure, and the hook that
    /// drops packets goes last: what is left is closed, and is found by name as attached in part.
    ///
    /// Under a guard, or with the closed programs on it, a group is closed again only if the agent
    /// was removed before ([`Kernel::remove_agent`]).
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach(mut self) -> Result<(), KernelError> {
        while let Some((hook, link)) = self.links.pop() {
            if let Some((_, folder)) = &self.pinned {
                remove_pin(&folder.join(hook.name()))?;
            }
            drop(link);
        }
        if let Some((_, folder)) = &self.pinned {
            remove_folder(folder)?;
        }
        Ok(())
    }
}

/// What may be attached already around a group that is about to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Neither the group, nor one above it, nor one below it.
    #[default]
    Refuse,
    /// Groups below it, whose place it takes: detach them afterwards. Until then their connections
    /// are refused, since both sets of programs see them; in [`super::attach::while_frozen`] nobody
    /// notices.
    Above,
    /// A group above it, of whose place it takes a part: detach that one afterwards, in the same
    /// way.
    Below,
}

/// The order in which hooks are attached.
fn closing_first() -> impl Iterator<Item = Hook> {
    let rest = Hook::ALL.iter().copied().filter(|hook| *hook != Hook::Egress);
    std::iter::once(Hook::Egress).chain(rest)
}

impl Kernel {
    /// Attaches every program to a cgroup, or none. Nothing is pinned.
    ///
    /// # Errors
    /// Names the program that could not be attached.
    pub fn attach(&self, cgroup: &Cgroup) -> Result<Attachment, KernelError> {
        let mut links = Vec::with_capacity(Hook::ALL.len());
        for hook in closing_first() {
            links.push((hook, self.link(hook, cgroup.as_fd(), cgroup.path())?));
        }
        Ok(Attachment { links, pinned: None, cgroup: cgroup.id() })
    }

    /// Attaches every program to a cgroup, and pins each under the agent's name.
    ///
    /// # Errors
    /// When the name or the group is taken, or a program cannot be attached or pinned. What had
    /// been attached is detached again.
    pub fn attach_pinned(
        &self,
        cgroup: &Cgroup,
        name: &str,
        overlap: Overlap,
    ) -> Result<Attachment, KernelError> {
        let pins = self.pins()?;
        let folder = pins.agent(name)?;
        refuse_overlap(pins, cgroup, overlap)?;
        fs::create_dir(&folder).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => PinError::NameTaken(name.into()),
            _ => at(&folder)(e),
        })?;
        let mut attachment = Attachment {
            links: Vec::with_capacity(Hook::ALL.len()),
            pinned: Some((name.into(), folder.clone())),
            cgroup: cgroup.id(),
        };
        for hook in closing_first() {
            match self.link_pinned(hook, cgroup, &folder) {
                Ok(link) => attachment.links.push((hook, link)),
                Err(error) => {
                    if let Err(stuck) = attachment.detach() {
                        tracing::warn!(%stuck, agent = name, "stays attached in part, and closed");
                    }
                    return Err(error);
                }
            }
        }
        Ok(attachment)
    }

    /// Finds a pinned attachment again and puts these programs in the place of its own.
    ///
    /// # Errors
    /// When a link is missing ([`PinError::Half`], see [`Kernel::repair`]), its group is gone
    /// ([`PinError::CgroupGone`], see [`Kernel::forget`]), or it is not what its name says.
    pub fn adopt_attachment(&self, name: &str) -> Result<Attachment, KernelError> {
        let attachment = self.open_attachment(name)?;
        self.replace(&attachment)?;
        Ok(attachment)
    }

    /// Finds every pinned attachment again, all or an error that names what is missing, and only
    /// then replaces their programs.
    ///
    /// # Errors
    /// As [`Kernel::adopt_attachment`].
    pub fn adopt_attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        let names = self.pins()?.agents()?;
        let found: Vec<_> =
            names.iter().map(|name| self.open_attachment(name)).collect::<Result<_, _>>()?;
        found.iter().try_for_each(|attachment| self.replace(attachment))?;
        Ok(found)
    }

    /// Completes an attachment that a daemon left half done: first the hooks that are missing, then
    /// these programs in place of those that are there.
    ///
    /// # Errors
    /// When the rest is attached to another group. What could be attached stays attached.
    pub fn repair(&self, name: &str, cgroup: &Cgroup) -> Result<Attachment, KernelError> {
        let pins = self.pins()?;
        let folder = pins.agent(name)?;
        let mut found = pins.links(name)?;
        match group_of(name, &folder, &found)? {
            Some(id) if id != cgroup.id() => return Err(PinError::Overlap(name.into()).into()),
            Some(_) => {}
            None => refuse_overlap(pins, cgroup, Overlap::Refuse)?,
        }
        let mut links = Vec::with_capacity(Hook::ALL.len());
        let mut old = Vec::new();
        for hook in closing_first() {
            let there = found.iter_mut().find(|(h, _)| *h == hook).and_then(|(_, l)| l.take());
            if there.is_some() {
                old.push(hook);
            }
            let link = there.map_or_else(|| self.link_pinned(hook, cgroup, &folder), Ok)?;
            links.push((hook, link));
        }
        let pinned = Some((name.to_owned(), folder));
        let attachment = Attachment { links, pinned, cgroup: cgroup.id() };
        self.replace_only(&attachment, |hook| old.contains(&hook))?;
        Ok(attachment)
    }

    /// Removes what is pinned of an agent whose group is gone; there is nothing left to close.
    ///
    /// # Errors
    /// When the group is still there, so that this would open it.
    pub fn forget(&self, name: &str) -> Result<(), KernelError> {
        let pins = self.pins()?;
        let folder = pins.agent(name)?;
        let links = pins.links(name)?;
        match group_of(name, &folder, &links) {
            Err(PinError::CgroupGone(_)) => {}
            Err(other) => return Err(other.into()),
            // A folder that never got its first link.
            Ok(None) => {}
            Ok(Some(_)) => return Err(PinError::NameTaken(name.into()).into()),
        }
        for (hook, _) in &links {
            remove_pin(&folder.join(hook.name()))?;
        }
        Ok(remove_folder(&folder)?)
    }

    /// Puts these programs in the place of those of an attachment, each in one step, so that no
    /// packet finds a hook empty.
    ///
    /// # Errors
    /// Names the program that could not be replaced; those before it have been.
    pub fn replace(&self, attachment: &Attachment) -> Result<(), KernelError> {
        self.replace_only(attachment, |_| true)
    }

    fn replace_only(
        &self,
        attachment: &Attachment,
        which: impl Fn(Hook) -> bool,
    ) -> Result<(), KernelError> {
        for (hook, link) in attachment.links.iter().filter(|(hook, _)| which(*hook)) {
            bpf::link_update(link.as_fd(), self.program(*hook)?)
                .map_err(|source| KernelError::Replace { program: hook.name(), source })?;
        }
        Ok(())
    }

    fn open_attachment(&self, name: &str) -> Result<Attachment, KernelError> {
        let pins = self.pins()?;
        let folder = pins.agent(name)?;
        let mut found = pins.links(name)?;
        let cgroup = group_of(name, &folder, &found)?;
        let mut links = Vec::with_capacity(found.len());
        for hook in closing_first() {
            let link = found.iter_mut().find(|(h, _)| *h == hook).and_then(|(_, l)| l.take());
            let missing = || PinError::Half { name: name.into(), missing: hook.name(), cgroup };
            links.push((hook, link.ok_or_else(missing)?));
        }
        let cgroup = cgroup.ok_or_else(|| PinError::CgroupGone(name.into()))?;
        Ok(Attachment { links, pinned: Some((name.into(), folder)), cgroup })
    }

    fn link_pinned(
        &self,
        hook: Hook,
        cgroup: &Cgroup,
        folder: &Path,
    ) -> Result<OwnedFd, KernelError> {
        let link = self.link(hook, cgroup.as_fd(), cgroup.path())?;
        let path = folder.join(hook.name());
        bpf_object::pin(link.as_fd(), &path).map_err(at(&path))?;
        Ok(link)
    }

    fn link(&self, hook: Hook, to: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, KernelError> {
        bpf::link_create(self.program(hook)?, to, attach_type(hook)).map_err(|source| {
            KernelError::Attach { program: hook.name(), cgroup: path.into(), source }
        })
    }
}

/// The one group that all of these links are on; None if there are no links.
pub(super) fn group_of(
    name: &str,
    folder: &Path,
    links: &[(Hook, Option<OwnedFd>)],
) -> Result<Option<CgroupId>, PinError> {
    let mut group = None;
    for (hook, link) in links {
        let Some(link) = link else { continue };
        let path = folder.join(hook.name());
        let foreign = || PinError::Foreign { path: path.clone(), hook: hook.name() };
        let info = bpf_object::cgroup_link(link.as_fd()).map_err(|_| foreign())?;
        if info.attach_type != attach_type(*hook)
            || *group.get_or_insert(info.cgroup) != info.cgroup
        {
            return Err(foreign());
        }
    }
    match group {
        Some(0) => Err(PinError::CgroupGone(name.into())),
        other => Ok(other.map(CgroupId)),
    }
}

/// Programs of nested groups run one after the other, so at most one of a group and those above and
/// below it has them.
fn refuse_overlap(pins: &Pins, cgroup: &Cgroup, overlap: Overlap) -> Result<(), KernelError> {
    let mut related = BTreeSet::from([cgroup.id()]);
    if overlap != Overlap::Above {
        related.extend(cgroup.subtree().map_err(KernelError::Cgroup)?);
    }
    if overlap != Overlap::Below {
        related.extend(cgroup.above().map_err(KernelError::Cgroup)?);
    }
    for name in pins.agents()? {
        match group_of(&name, &pins.agent(&name)?, &pins.links(&name)?) {
            Ok(Some(id)) if related.contains(&id) => return Err(PinError::Overlap(name).into()),
            Ok(_) | Err(PinError::CgroupGone(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), PinError> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(folder)(e)),
        _ => Ok(()),
    }
}

//! Closed before the agent is known: programs that refuse whoever is no agent.
//!
//! They are pinned by hook, so that a systemd unit can carry them (`BPFProgram=egress:<path>` and so
//! on) and is closed from its first instruction; and they can guard a parent group, so that a group
//! that comes into being below it is closed until the daemon has attached it.
//!
//! An agent passes them for as long as it is registered; the programs attached to its own group judge
//! it. So whoever lets go of one removes the agent first ([`Kernel::remove_agent`]), and then detaches.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use agent_ebpf::abi::{Closed, Hook};

use super::attachment::{group_of, remove_folder};
use super::cgroup::Cgroup;
use super::ebpf::{Kernel, KernelError, attach_type};
use super::pins::{PinError, Pins, at, open_pin, remove_pin};
use crate::identify::CgroupId;
use crate::sys::{bpf, bpf_object};

/// A group that is closed to all but agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub name: String,
    /// None when the group is gone, or nothing was attached before a daemon died:
    /// [`Kernel::unguard`] removes what is left.
    pub cgroup: Option<CgroupId>,
    /// Whether every program is there; if not, [`Kernel::guard`] completes it.
    pub complete: bool,
}

impl Kernel {
    /// Pins the programs where units find them, in the place of those that an earlier egret pinned,
    /// and answers the folder. There is no moment without one.
    ///
    /// # Errors
    /// When a program cannot be pinned.
    pub fn pin_closed(&self) -> Result<PathBuf, KernelError> {
        let folder = self.pins()?.closed();
        for closed in Closed::ALL {
            let path = folder.join(closed.hook().name());
            let next = folder.join(format!("{}_next", closed.hook().name()));
            remove_pin(&next)?;
            bpf_object::pin(self.closed_program(*closed)?, &next).map_err(at(&next))?;
            fs::rename(&next, &path).map_err(at(&path))?;
        }
        Ok(folder)
    }

    /// Closes a group, and all below it, to whoever is no agent. A guard of this name that is there
    /// already is completed, and these programs take the place of its own.
    ///
    /// # Errors
    /// When the name guards another group, when egret itself is in this one, or a program cannot be
    /// attached or pinned. What could be attached stays.
    pub fn guard(&self, cgroup: &Cgroup, name: &str) -> Result<(), KernelError> {
        let pins = self.pins()?;
        let folder = pins.guard(name)?;
        if cgroup.processes().map_err(KernelError::Cgroup)?.contains(&std::process::id()) {
            return Err(KernelError::HoldsEgret(cgroup.path().into()));
        }
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(at(&folder)(e).into()),
            _ => {}
        }
        match group_of(name, &folder, &links(&folder)?) {
            Ok(Some(id)) if id != cgroup.id() => {
                return Err(PinError::GuardTaken(name.into()).into());
            }
            Ok(_) => {}
            Err(PinError::CgroupGone(_)) => remove_links(&folder)?,
            Err(other) => return Err(other.into()),
        }
        for closed in Closed::ALL {
            let path = folder.join(closed.hook().name());
            match open_pin(&path)? {
                Some(link) => self.replace_closed(*closed, &link)?,
                None => self.attach_closed(*closed, cgroup, &path)?,
            }
        }
        Ok(())
    }

    /// The guards that are pinned, in the order of their names.
    ///
    /// # Errors
    /// When a pin cannot be read, or is not what its name says.
    pub fn guards(&self) -> Result<Vec<Guard>, KernelError> {
        let pins = self.pins()?;
        pins.guards()?.into_iter().map(|name| Ok(find(pins, name)?)).collect()
    }

    /// Finds the guards again that an earlier egret left, and puts these programs in the place of
    /// theirs. The names answer as [`Kernel::guards`] does.
    ///
    /// # Errors
    /// As [`Kernel::guards`], or names the program that could not be replaced.
    pub fn adopt_guards(&self) -> Result<Vec<Guard>, KernelError> {
        let guards = self.guards()?;
        for guard in guards.iter().filter(|guard| guard.cgroup.is_some()) {
            let folder = self.pins()?.guard(&guard.name)?;
            for closed in Closed::ALL {
                if let Some(link) = open_pin(&folder.join(closed.hook().name()))? {
                    self.replace_closed(*closed, &link)?;
                }
            }
        }
        Ok(guards)
    }

    /// Opens a group again: the programs are detached, the one that drops packets last.
    ///
    /// # Errors
    /// When there is no such guard, or a pin cannot be removed.
    pub fn unguard(&self, name: &str) -> Result<(), KernelError> {
        let folder = self.pins()?.guard(name)?;
        if !fs::exists(&folder).map_err(at(&folder))? {
            return Err(PinError::UnknownGuard(name.into()).into());
        }
        remove_links(&folder)?;
        Ok(remove_folder(&folder)?)
    }

    fn replace_closed(&self, closed: Closed, link: &OwnedFd) -> Result<(), KernelError> {
        bpf::link_update(link.as_fd(), self.closed_program(closed)?)
            .map_err(|source| KernelError::Replace { program: closed.name(), source })
    }

    fn attach_closed(
        &self,
        closed: Closed,
        cgroup: &Cgroup,
        path: &Path,
    ) -> Result<(), KernelError> {
        let (program, kind) = (self.closed_program(closed)?, attach_type(closed.hook()));
        let link = bpf::link_create(program, cgroup.as_fd(), kind).map_err(|source| {
            KernelError::Attach { program: closed.name(), cgroup: cgroup.path().into(), source }
        })?;
        Ok(bpf_object::pin(link.as_fd(), path).map_err(at(path))?)
    }
}

fn find(pins: &Pins, name: String) -> Result<Guard, PinError> {
    let folder = pins.guard(&name)?;
    let links = links(&folder)?;
    let complete = links.iter().all(|(_, link)| link.is_some());
    let cgroup = match group_of(&name, &folder, &links) {
        Err(PinError::CgroupGone(_)) => None,
        other => other?,
    };
    Ok(Guard { name, cgroup, complete })
}

/// The links of a guard that are there, by hook.
fn links(folder: &Path) -> Result<Vec<(Hook, Option<OwnedFd>)>, PinError> {
    let hooks = Closed::ALL.iter().map(|closed| closed.hook());
    hooks.map(|hook| Ok((hook, open_pin(&folder.join(hook.name()))?))).collect()
}

fn remove_links(folder: &Path) -> Result<(), PinError> {
    let mut last_first = Closed::ALL.iter().rev();
    last_first.try_for_each(|closed| remove_pin(&folder.join(closed.hook().name())))
}

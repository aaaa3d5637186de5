//! Landlock: the files and folders that the process may open, whoever owns them. It holds also
//! where mounts and modes do not: for files of uid 0, for named pipes, for mounts that nobody
//! thought of.
//!
//! A kernel without it is reported, not refused: mounts, user and filter stand without it.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    PathFdError, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

use super::{ConfineError, Confinement};

/// The newest version whose rights on files are known here; of an older kernel's, all. The UDP
/// ports of version 10 stay free: name servers are asked from any.
const FILES: ABI = ABI::V9;

/// What the rules name, held open until the process ends. Files of /proc have no life of their
/// own: forgotten by the kernel and looked up again they would be others, that no rule names.
static HELD: Mutex<Vec<PathFd>> = Mutex::new(Vec::new());

/// The rules, made while every path can be opened.
pub(super) struct Rules {
    ruleset: RulesetCreated,
    absent: Vec<PathBuf>,
}

impl Rules {
    pub(super) fn prepare(c: &Confinement) -> Result<Self, ConfineError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = AccessFs::from_all(FILES) & !never();
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(FILES))?
            // An outgoing connection has any port; nobody else's port is taken.
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?
            .add_rule(NetPort::new(0, AccessNet::BindTcp))?;
        let mut absent = Vec::new();
        let readable = c.readable.iter().map(|p| (p, read));
        for (path, rights) in readable.chain(c.writable.iter().map(|p| (p, write))) {
            let fd = match PathFd::new(path) {
                Ok(fd) => fd,
                Err(PathFdError::OpenCall { source, .. }) if is_absent(&source) => {
                    absent.push(path.clone());
                    continue;
                }
                Err(source) => return Err(ConfineError::Rule { path: path.clone(), source }),
            };
            ruleset = add(ruleset, &fd, rights)?;
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(fd);
        }
        Ok(Self { ruleset, absent })
    }

    /// Puts them into force. Answers the kernel's version of Landlock, and which paths were not
    /// there.
    pub(super) fn enforce(self) -> Result<(Option<u32>, Vec<PathBuf>), ConfineError> {
        let RestrictionStatus { ruleset, landlock, .. } = self.ruleset.restrict_self()?;
        let version = match landlock {
            LandlockStatus::Available { effective_abi, kernel_abi } => {
                if ruleset == RulesetStatus::NotEnforced {
                    return Err(ConfineError::Left("the files that Landlock takes"));
                }
                u32::try_from(kernel_abi.unwrap_or(effective_abi as i32)).ok()
            }
            LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
        };
        Ok((version, self.absent))
    }
}

/// What even a writable folder is not for: programs, devices, pipes and sockets.
fn never() -> BitFlags<AccessFs> {
    AccessFs::Execute
        | AccessFs::MakeChar
        | AccessFs::MakeBlock
        | AccessFs::MakeFifo
        | AccessFs::MakeSock
        | AccessFs::MakeSym
        | AccessFs::IoctlDev
        | AccessFs::ResolveUnix
}

fn add(
    ruleset: RulesetCreated,
    fd: &PathFd,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    // For what is no folder, the rights that only folders have are left out.
    ruleset.add_rule(PathBeneath::new(fd, rights))
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

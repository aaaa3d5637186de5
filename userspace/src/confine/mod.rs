//! Beside the flow: how the interceptor process gives up every right before it starts.
//!
//! The process that reads what agents write must not be worth taking over. [`confine`] is called
//! once, while it has one thread and no runtime, and cannot be undone:
//!
//! ```text
//! tree    a mount namespace of its own: all read-only, no devices, but for the writable folders
//! rights  no groups, another user, no capability in any set, no way to get one back
//! paths   Landlock: only the named files and folders, where the kernel has it
//! calls   seccomp: the system calls that a proxy makes; every other answers EPERM
//! ```
//!
//! What is left are the descriptors that the process holds (sockets, kernel maps, the line to its
//! parent), outgoing TCP and UDP, and its own folders. Whoever takes it over can do what policies
//! allow somebody, see the traffic of agents, and write to the audit log; it cannot load or detach
//! a kernel program, reach another process, or read a secret that it was not given.
//!
//! With [`Confinement::user`] unset it stays uid 0 and owns root's files: then the read-only
//! mounts, Landlock and the missing capabilities are what holds. Give it a user.

mod calls;
mod paths;
mod rights;
mod tree;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys::{attempt, seccomp};

/// What an interceptor reads of the machine while it works: names and name servers, certificates,
/// and facts about itself. What does not exist is left out, so that one list serves every
/// distribution.
pub const READABLE: &[&str] = &[
    "/etc",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/lib/ssl",
    "/usr/share/pki",
    "/var/lib/ca-certificates",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/proc/self",
    "/proc/sys/kernel/random/boot_id",
    "/sys/devices/system/cpu",
    "/dev/urandom",
];

/// A user and its group, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// What the process keeps; everything else is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whom it becomes. `None`: it stays who it is, without any capability.
    pub user: Option<Identity>,
    /// Folders in which it may make, write and remove files. They must exist and belong to `user`.
    /// Each becomes a mount: nothing can be renamed or linked from one to another.
    pub writable: Vec<PathBuf>,
    /// Files, and folders with all below them. Name the folder of a file that is replaced by
    /// renaming, such as /etc for resolv.conf, and of what a symlink leads to.
    pub readable: Vec<PathBuf>,
    /// Folders that it must not see, also below those above. They must exist.
    pub hidden: Vec<PathBuf>,
    /// It is killed when the thread that started it ends, also while it stands still.
    pub dies_with_parent: bool,
}

/// What the process has become: for the status and the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    pub uid: u32,
    pub gid: u32,
    /// The kernel's version of Landlock; `None` when it has none, or was started without.
    pub landlock: Option<u32>,
    /// How many attempts at what the process must not do were made, and refused, at the end.
    pub refused: usize,
    /// Of the readable paths, those that do not exist. Made later, they cannot be read.
    pub absent: Vec<PathBuf>,
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "uid {}, gid {}, no capabilities, read-only mounts, seccomp",
            self.uid, self.gid
        )?;
        match self.landlock {
            Some(abi) => write!(f, ", Landlock {abi}"),
            None => f.write_str(", no Landlock (the kernel has none)"),
        }
    }
}

/// Why the process is not confined. It must end: some of its rights may be gone and others not.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    #[error("the process has {0} threads, and only one can be confined; confine it before others")]
    Threads(usize),
    #[error("descriptor {0} is an open folder, through which every mount can be passed; close it")]
    OpenFolder(String),
    #[error("cannot {doing}: {source}")]
    Step { doing: String, source: io::Error },
    #[error("cannot {doing} {}: {source}", path.display())]
    Path { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("{} cannot be opened for Landlock: {source}", path.display())]
    Rule { path: PathBuf, source: landlock::PathFdError },
    #[error("the process still has {0}, although it was given up")]
    Left(&'static str),
    #[error("the seccomp filter cannot be built: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("{call} is not refused by the seccomp filter ({})", answer.map_or_else(
        || "it succeeded".to_owned(), |e| io::Error::from_raw_os_error(e).to_string()))]
    NotRefused { call: &'static str, answer: Option<i32> },
}

/// Gives up every right that `c` does not name. Needs CAP_SYS_ADMIN, CAP_SETPCAP, CAP_SETUID and
/// CAP_SETGID, /proc, and a process with one thread and no open folder.
///
/// # Minimum kernel version
/// 5.14, as for the kernel programs. Landlock is used as far as the kernel has it.
///
/// # Errors
/// [`ConfineError`]; the process must then end.
pub fn confine(c: &Confinement) -> Result<Confined, ConfineError> {
    alone()?;
    let filter = calls::filter(std::process::id())?;
    tree::build(c)?;
    let rules = paths::Rules::prepare(c)?;
    let Identity { uid, gid } = rights::give_up(c)?;
    let (landlock, absent) = rules.enforce()?;
    seccomp::install(&filter).map_err(step("install the seccomp filter"))?;
    Ok(Confined { uid, gid, landlock, absent, refused: prove()? })
}

/// A thread that exists would keep every right, and an open folder belongs to the mounts from
/// before, where nothing is read-only.
fn alone() -> Result<(), ConfineError> {
    let names = |path: &str| -> Result<Vec<_>, ConfineError> {
        let doing = || format!("read {path}");
        let entries = fs::read_dir(path).map_err(step(doing()))?;
        entries.map(|e| Ok(e.map_err(step(doing()))?.file_name())).collect()
    };
    let threads = names("/proc/self/task")?.len();
    if threads != 1 {
        return Err(ConfineError::Threads(threads));
    }
    for fd in names("/proc/self/fd")? {
        // The one that listed the others is closed by now.
        if fs::metadata(Path::new("/proc/self/fd").join(&fd)).is_ok_and(|m| m.is_dir()) {
            return Err(ConfineError::OpenFolder(fd.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// Tries what must be refused. The filter answers before the kernel looks at any argument.
fn prove() -> Result<usize, ConfineError> {
    let mut refused = 0;
    for attempt in attempt::all() {
        let answer = attempt.answer();
        if answer != Some(libc::EPERM) {
            return Err(ConfineError::NotRefused { call: attempt.name(), answer });
        }
        refused += 1;
    }
    Ok(refused)
}

/// Adds what was being done to an error.
fn step<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> ConfineError {
    |source| ConfineError::Step { doing: doing.into(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_left_as_it_is() {
        std::thread::scope(|scope| {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || ended.recv());
            let error = confine(&Confinement::default()).unwrap_err();
            assert!(matches!(error, ConfineError::Threads(2..)), "{error}");
            drop(end);
        });
    }

    #[test]
    fn the_status_says_what_the_kernel_had() {
        let mut confined =
            Confined { uid: 7, gid: 8, landlock: Some(6), refused: 70, absent: vec![] };
        let text = "uid 7, gid 8, no capabilities, read-only mounts, seccomp, Landlock 6";
        assert_eq!(confined.to_string(), text);
        confined.landlock = None;
        assert!(confined.to_string().ends_with("no Landlock (the kernel has none)"));
        let json = serde_json::to_string(&confined).unwrap();
        assert_eq!(serde_json::from_str::<Confined>(&json).unwrap(), confined);
    }
}

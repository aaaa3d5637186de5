//! The cgroup v2 hierarchy: where it is mounted, and the group that egret makes for each session.
//!
//! A session's group is named after its owner (PID namespace, process, start time), so that the
//! next egret can tell what a dead one left behind. The agent, or systemd for it, may make groups
//! below; they are governed, killed and removed with it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;

use crate::identify::{CgroupId, SessionId};

pub(super) mod mountinfo;
mod owner;

use owner::Owner;

/// The folder, below the root of the hierarchy, that holds the sessions' groups.
const PARENT: &str = crate::identify::pattern::SESSIONS;
/// How often the parent may vanish between its making and its use.
const CONTENDERS: usize = 100;
/// How long a killed group may take to become empty.
const DEATH: Duration = Duration::from_secs(5);

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup v2 hierarchy is mounted; mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}: processes are still there after SIGKILL")]
    StillPopulated(PathBuf),
}

/// The mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
}

impl Hierarchy {
    /// Finds it, whether it is the only one or mounted beside version 1.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(io_error(path))?;
        let root = mountinfo::cgroup2(&text).ok_or(CgroupError::NotMounted)?;
        Ok(Self { root })
    }

    /// A folder as if it were all of the hierarchy.
    #[cfg(test)]
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the group of a session. It is killed and removed when the value is dropped.
    ///
    /// # Errors
    /// When this process may not make it.
    pub fn create(&self, session: &SessionId) -> Result<Cgroup, CgroupError> {
        let parent = self.root.join(PARENT);
        let owner = Owner::current().map_err(io_error("/proc/self"))?;
        let path = parent.join(owner.name(&session.0));
        for _ in 1..CONTENDERS {
            match fs::create_dir(&parent) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error(&parent)(e));
                }
                _ => {}
            }
            // The last session to end takes the parent with it, perhaps just now.
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                made => {
                    return made.map_err(io_error(&path)).and_then(|()| Cgroup::open(path, true));
                }
            }
        }
        Err(io_error(&path)(io::ErrorKind::NotFound.into()))
    }

    /// Makes a group of this name beside those of the sessions. Whoever makes it removes it: it is
    /// left as it is when the value is dropped.
    ///
    /// # Errors
    /// When there is one already, or this process may not make it.
    pub fn make(&self, name: &str) -> Result<Cgroup, CgroupError> {
        let path = self.root.join(PARENT).join(name);
        for _ in 0..CONTENDERS {
            fs::create_dir_all(self.root.join(PARENT)).map_err(io_error(&path))?;
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                made => {
                    return made.map_err(io_error(&path)).and_then(|()| Cgroup::open(path, false));
                }
            }
        }
        Err(io_error(&path)(io::ErrorKind::NotFound.into()))
    }

    /// A group's path from the root of the hierarchy, as /proc/PID/cgroup shows it.
    pub fn relative(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path))
    }

    /// Opens a group that exists, and leaves it as it is when the value is dropped.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(&self, relative: &Path) -> Result<Cgroup, CgroupError> {
        Cgroup::open(self.root.join(relative.strip_prefix("/").unwrap_or(relative)), false)
    }

    /// Kills and removes the groups whose egret is dead. Answers the paths; what could not be
    /// removed is logged and left for the next time.
    ///
    /// # Errors
    /// When the groups cannot be listed.
    pub fn sweep(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let parent = self.root.join(PARENT);
        let entries = match fs::read_dir(&parent) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io_error(&parent))?,
        };
        let mut swept = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let dead =
                entry.file_name().to_str().and_then(Owner::parse).is_some_and(|o| o.is_dead());
            if dead && path.is_dir() {
                match Cgroup::open(path.clone(), true).and_then(Cgroup::destroy) {
                    Ok(()) => swept.push(path),
                    Err(error) => tracing::warn!(%error, "a group of a dead egret stays behind"),
                }
            }
        }
        Ok(swept)
    }
}

/// One group. One that egret made is killed and removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: File,
    id: CgroupId,
    owned: bool,
}

impl Cgroup {
    fn open(path: PathBuf, owned: bool) -> Result<Self, CgroupError> {
        let dir = File::open(&path).map_err(io_error(&path))?;
        // A group's id is the inode number of its folder, on 64-bit machines since Linux 5.5
        // (kernfs_ino in include/linux/kernfs.h).
        let id = CgroupId(dir.metadata().map_err(io_error(&path))?.ino());
        Ok(Self { path, dir, id, owned })
    }

    pub fn id(&self) -> CgroupId {
        self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into the group. Its open sockets keep the group they were made in.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, pid: Pid) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Whether a process lives in the group or below it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        Ok(!text.lines().any(|line| line == "populated 0"))
    }

    /// The file that reports changes of [`Self::populated`] as POLLPRI, for tokio's `AsyncFd` with
    /// `Interest::PRIORITY`. Open it before asking, so that no change is missed.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn events(&self) -> Result<File, CgroupError> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map_err(io_error(&path))
    }

    /// Waits until no process is left, at most this long; answers whether the group is empty.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + limit;
        loop {
            let file = self.events()?;
            // Reading arms the notification; only a change after it wakes the poll.
            let _ = io::read_to_string(&file);
            if !self.populated()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout);
        }
    }

    /// Sends SIGKILL to every process in the group and below it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        match self.write("cgroup.kill", "1") {
            // The file is there since Linux 5.14.
            Err(CgroupError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.kill_one_by_one()
            }
            other => other,
        }
    }

    /// Frozen, so that none forks away between the listing and the signal.
    fn kill_one_by_one(&self) -> Result<(), CgroupError> {
        let _ = self.freeze();
        let result = each_below(&self.path, &mut |group| {
            let path = group.join("cgroup.procs");
            let text = fs::read_to_string(&path).map_err(io_error(&path))?;
            for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            Ok(())
        });
        let _ = self.thaw();
        result
    }

    /// Stops every process in the group and below it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "1")
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", "0")
    }

    /// Kills what is left and removes the group with everything below it.
    ///
    /// # Errors
    /// When a process survives, or a folder cannot be removed. The group is then left as it is.
    pub fn destroy(mut self) -> Result<(), CgroupError> {
        self.owned = false;
        self.tear_down()
    }

    fn tear_down(&self) -> Result<(), CgroupError> {
        self.end(DEATH)
    }

    /// Kills what is left and removes the group, which stays open here.
    ///
    /// # Errors
    /// When a process survives for so long, or a folder cannot be removed.
    pub fn end(&self, limit: Duration) -> Result<(), CgroupError> {
        if self.populated()? {
            self.kill_all()?;
            if !self.wait_empty(limit)? {
                return Err(CgroupError::StillPopulated(self.path.clone()));
            }
        }
        each_below(&self.path, &mut |group| match fs::remove_dir(group) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(group)(e)),
            _ => Ok(()),
        })?;
        if let Some(parent) = self.path.parent().filter(|p| p.ends_with(PARENT)) {
            let _ = fs::remove_dir(parent); // refused while it holds another session
        }
        Ok(())
    }

    /// The groups above this one.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn above(&self) -> Result<BTreeSet<CgroupId>, CgroupError> {
        let mut ids = BTreeSet::new();
        for above in self.path.ancestors().skip(1) {
            // The hierarchy ends where another file system begins.
            let Ok(file) = File::open(above) else { break };
            if !fstatfs(&file).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC) {
                break;
            }
            ids.insert(CgroupId(file.metadata().map_err(io_error(above))?.ino()));
        }
        Ok(ids)
    }

    /// This group and those below it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn subtree(&self) -> Result<BTreeSet<CgroupId>, CgroupError> {
        let mut ids = BTreeSet::new();
        each_below(&self.path, &mut |group| {
            ids.insert(CgroupId(fs::metadata(group).map_err(io_error(group))?.ino()));
            Ok(())
        })?;
        Ok(ids)
    }

    /// The processes in the group and below it.
    ///
    /// # Errors
    /// When the group is gone.
    pub fn processes(&self) -> Result<BTreeSet<u32>, CgroupError> {
        let mut found = BTreeSet::new();
        each_below(&self.path, &mut |group| {
            let path = group.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
                // The processes of a threaded group are listed by the domain above it.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(e) => return Err(io_error(path)(e)),
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether the group is on the cgroup v2 file system at all.
    pub fn is_v2(&self) -> bool {
        fstatfs(&self.dir).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        let mut file = OpenOptions::new().write(true).open(&path).map_err(io_error(&path))?;
        file.write_all(value.as_bytes()).map_err(io_error(&path))
    }
}

impl AsFd for Cgroup {
    /// The folder, as CLONE_INTO_CGROUP and bpf(2) take it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = self.tear_down()
        {
            tracing::warn!(%error, "the session's cgroup stays behind; the next egret removes it");
        }
    }
}

/// Visits a group and all below it, the deepest first.
fn each_below(
    group: &Path,
    visit: &mut dyn FnMut(&Path) -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    for entry in fs::read_dir(group).map_err(io_error(group))?.flatten() {
        // Not following links: a cgroup file system has none.
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            each_below(&entry.path(), visit)?;
        }
    }
    visit(group)
}

fn io_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.into();
    move |source| CgroupError::Io { path, source }
}

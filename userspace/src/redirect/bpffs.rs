//! The private mount of bpffs that keeps maps and links alive while no egret runs.
//!
//! The kernel mounts one bpffs on top of another without a word, and the lower one, with every pin in
//! it, is then out of reach. So the table of mounts is read first, and again afterwards.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};

use super::cgroup::mountinfo::{self, Mounted};
use crate::sys::mount as sys_mount;

/// Where the daemon mounts it.
pub const DEFAULT: &str = "/run/egret/bpf";

/// Why there is no folder for pins.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} must be an absolute path without symbolic links; it is really {real}")]
    Indirect { path: PathBuf, real: PathBuf },
    #[error(
        "{0} is mounted more than once, and what is pinned below is out of reach: unmount the upper \
         one (`umount {path}` takes away the topmost)", path = .0.display()
    )]
    Stacked(PathBuf),
    #[error("a file system of type {kind} is mounted at {path}, where egret keeps its own bpffs")]
    Foreign { path: PathBuf, kind: String },
    #[error("the bpffs at {0} is a part of another mount, which others can reach as well")]
    Shared(PathBuf),
    #[error("the bpffs at {0} is hidden by something mounted above it later")]
    Hidden(PathBuf),
    #[error("{path} belongs to uid {uid} with mode {mode:04o}; it must be root's with mode 0700")]
    Open { path: PathBuf, uid: u32, mode: u32 },
    #[error(
        "{path}, the folder above, can be written by others than root (uid {uid}, mode {mode:04o})"
    )]
    Unsafe { path: PathBuf, uid: u32, mode: u32 },
}

/// A bpffs that only root can reach. It stays mounted: that is its purpose.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    made: bool,
}

impl Bpffs {
    /// Finds the mount at `path`, or makes it, with the folders above it. It shows in the mount
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// When what is there is not a single bpffs of root's with mode 0700.
    pub fn open_or_mount(path: &Path) -> Result<Self, BpffsError> {
        let parent =
            path.parent().ok_or_else(|| io_at(path)(io::ErrorKind::InvalidInput.into()))?;
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(io_at(parent))?;
        let above = File::open(parent).map_err(io_at(parent))?;
        writable_by_root_only(parent, &above)?;
        // Two that start at once do not mount twice.
        let _one = Flock::lock(above, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io_at(parent)(errno.into()))?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io_at(path)(e)),
            _ => {}
        }
        let real = fs::canonicalize(path).map_err(io_at(path))?;
        if real != path {
            return Err(BpffsError::Indirect { path: path.into(), real });
        }
        let made = mounted(path)?.is_none();
        if made {
            mount_here(path).map_err(io_at(path))?;
        }
        let Some(found) = mounted(path)? else { return Err(BpffsError::Hidden(path.into())) };
        verify(path, &found)?;
        Ok(Self { path: path.into(), made })
    }

    /// The folder, for [`super::ebpf::KernelOptions::pin_dir`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was mounted just now, so that nothing can be pinned in it yet.
    pub fn made(&self) -> bool {
        self.made
    }
}

/// What is mounted exactly at `path`.
fn mounted(path: &Path) -> Result<Option<Mounted>, BpffsError> {
    // Of this thread: mount namespaces belong to threads.
    let table = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read_to_string(table).map_err(io_at(table))?;
    let mut found = mountinfo::mounted_at(&text, path);
    let top = found.pop();
    if !found.is_empty() {
        return Err(BpffsError::Stacked(path.into()));
    }
    Ok(top)
}

fn mount_here(path: &Path) -> io::Result<()> {
    let attributes = sys_mount::NO_SUID | sys_mount::NO_DEV | sys_mount::NO_EXEC;
    let new = sys_mount::new_filesystem(c"bpf", &[(c"mode", c"0700")], attributes)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = open(path, flags, Mode::empty())?;
    sys_mount::attach(new, target.as_fd())?;
    let none = None::<&str>;
    mount(none, path, none, MsFlags::MS_PRIVATE, none)?;
    Ok(())
}

fn verify(path: &Path, found: &Mounted) -> Result<(), BpffsError> {
    if found.kind != "bpf" {
        return Err(BpffsError::Foreign { path: path.into(), kind: found.kind.clone() });
    }
    if found.root != Path::new("/") {
        return Err(BpffsError::Shared(path.into()));
    }
    let folder = File::open(path).map_err(io_at(path))?;
    let meta = folder.metadata().map_err(io_at(path))?;
    let device = (u64::from(found.device.0), u64::from(found.device.1));
    let seen = (libc::major(meta.dev()).into(), libc::minor(meta.dev()).into());
    let is_bpffs = fstatfs(&folder).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC);
    if !is_bpffs || device != seen {
        return Err(BpffsError::Hidden(path.into()));
    }
    let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
    if uid == 0 && mode & 0o777 == 0o700 {
        Ok(())
    } else {
        Err(BpffsError::Open { path: path.into(), uid, mode })
    }
}

fn writable_by_root_only(path: &Path, folder: &File) -> Result<(), BpffsError> {
    let meta = folder.metadata().map_err(io_at(path))?;
    let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
    if uid == 0 && mode & 0o022 == 0 {
        Ok(())
    } else {
        Err(BpffsError::Unsafe { path: path.into(), uid, mode })
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> BpffsError {
    move |source| BpffsError::Io { path: path.into(), source }
}

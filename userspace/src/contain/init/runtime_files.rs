//! /dev and /run: new ones, with only what is needed carried over.
//!
//! /dev is replaced because an agent of uid 0 owns the nodes of raw disks even without a
//! capability. /run is replaced because the sockets of services live there that act for whoever
//! asks: systemd, D-Bus, containers, name services, egret itself.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::Doing;
use super::world::{OWN, place, replace};
use crate::contain::plan::Plan;
use crate::contain::wire::Failure;
use crate::sys::mount::{self, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};

/// Nodes that every program may expect.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Nodes and folders for computing; their own modes still say who may use them.
const COMPUTE: &[&str] = &["dri", "kfd", "kvm", "nvidia"];

/// Folders of /run that hold data or programs, not services.
const DATA: &[&str] =
    &["media", "current-system", "booted-system", "opengl-driver", "opengl-driver-32", "wrappers"];

/// A mount taken before its surroundings were replaced, and where it goes back to.
type Kept = (PathBuf, OwnedFd);

/// A symlink and what it says.
type Link = (PathBuf, PathBuf);

pub(super) fn build(plan: &Plan) -> Result<(), Failure> {
    let sockets = kept_sockets(plan)?;
    let devices = kept_devices()?;
    let (links, data) = kept_of_run()?;
    build_dev(&devices)?;
    build_run(plan, &links)?;
    for (path, tree) in data.iter().chain(&sockets) {
        put_back(path, tree)?;
    }
    seal_dev()
}

/// The allowed sockets that live in what is about to be replaced.
fn kept_sockets(plan: &Plan) -> Result<Vec<Kept>, Failure> {
    let mut kept = Vec::new();
    for pattern in &plan.unix_sockets {
        let path = Path::new(pattern.strip_suffix("/**").unwrap_or(pattern));
        let Ok(path) = fs::canonicalize(path) else { continue }; // not there now
        if path.starts_with("/run") || path.starts_with("/dev") {
            kept.push(keep(path)?);
        }
    }
    Ok(kept)
}

fn kept_devices() -> Result<Vec<Kept>, Failure> {
    let mut kept = Vec::new();
    for entry in fs::read_dir("/dev").doing("list /dev")?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let wanted = DEVICES.contains(&&*name)
            || COMPUTE.contains(&&*name)
            || name.strip_prefix("nvidia").is_some();
        if wanted {
            kept.push(keep(entry.path())?);
        }
    }
    Ok(kept)
}

/// Symlinks at the top of /run (they show nothing that is not there), and folders of data.
fn kept_of_run() -> Result<(Vec<Link>, Vec<Kept>), Failure> {
    let (mut links, mut data) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/run").doing("list /run")?.flatten() {
        let path = entry.path();
        if let Ok(target) = fs::read_link(&path) {
            links.push((path, target));
        } else if DATA.iter().any(|d| entry.file_name() == *d) && path.is_dir() {
            data.push(keep(path)?);
        }
    }
    Ok((links, data))
}

fn keep(path: PathBuf) -> Result<Kept, Failure> {
    let tree = mount::clone_tree(&path, true).doing(&format!("keep {}", path.display()))?;
    Ok((path, tree))
}

fn build_dev(devices: &[Kept]) -> Result<(), Failure> {
    replace("/dev", c"tmpfs", &[(c"mode", c"0755"), (c"size", c"1m")], NO_SUID | NO_EXEC)?;
    for (path, tree) in devices {
        put_back(path, tree)?;
    }
    let made = || -> io::Result<()> {
        for folder in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
            fs::create_dir(folder)?;
        }
        for (target, link) in [
            ("pts/ptmx", "/dev/ptmx"),
            ("/proc/self/fd", "/dev/fd"),
            ("/proc/self/fd/0", "/dev/stdin"),
            ("/proc/self/fd/1", "/dev/stdout"),
            ("/proc/self/fd/2", "/dev/stderr"),
        ] {
            symlink(target, link)?;
        }
        Ok(())
    };
    made().doing("fill /dev")?;
    let options = [(c"newinstance", c""), (c"ptmxmode", c"0666"), (c"mode", c"0620")];
    replace("/dev/pts", c"devpts", &options, NO_SUID | NO_EXEC)?;
    replace("/dev/shm", c"tmpfs", &[(c"mode", c"1777")], NO_SUID | NO_DEV)?;
    // A kernel without POSIX message queues has none to separate.
    if let Ok(queues) = mount::new_filesystem(c"mqueue", &[], NO_SUID | NO_DEV | NO_EXEC) {
        place(&queues, Path::new("/dev/mqueue"))?;
    }
    Ok(())
}

fn seal_dev() -> Result<(), Failure> {
    let dev = fs::File::open("/dev").doing("open /dev")?;
    mount::add_attributes(&dev, READ_ONLY, false).doing("seal /dev")
}

fn build_run(plan: &Plan, links: &[Link]) -> Result<(), Failure> {
    let options = [(c"mode", c"0755"), (c"size", c"64m")];
    replace("/run", c"tmpfs", &options, NO_SUID | NO_DEV)?;
    let runtime = format!("/run/user/{}", plan.user.uid);
    let made = || -> io::Result<()> {
        for (link, target) in links {
            symlink(target, link)?;
        }
        fs::create_dir("/run/lock")?;
        fs::set_permissions("/run/lock", Permissions::from_mode(0o1777))?;
        fs::create_dir("/run/user")?;
        DirBuilder::new().mode(0o700).create(&runtime)?;
        chown(&runtime, Some(plan.user.uid), Some(plan.user.gid))?;
        fs::create_dir(OWN)
    };
    made().doing("fill /run")?;
    // Where /var/run is a folder of its own, it is the same thing under another name.
    let var_run = Path::new("/var/run");
    if var_run.is_dir() && fs::canonicalize(var_run).is_ok_and(|p| p == var_run) {
        let run = mount::clone_tree(Path::new("/run"), true).doing("copy /run")?;
        place(&run, var_run)?;
    }
    Ok(())
}

/// Puts a kept tree back to its path, making what is needed to hold it.
fn put_back(path: &Path, tree: &OwnedFd) -> Result<(), Failure> {
    let doing = format!("put {} back", path.display());
    let is_dir = fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(tree)))
        .doing(&doing)?
        .is_dir();
    if !path.exists() {
        let folder = if is_dir { Some(path) } else { path.parent() };
        folder.map_or(Ok(()), fs::create_dir_all).doing(&doing)?;
        if !is_dir {
            fs::write(path, b"").doing(&doing)?;
        }
    }
    place(tree, path)
}

//! From what an operator names, or a pattern of the configuration, to groups that are there.
//!
//! Paths are those of /proc/PID/cgroup: from the root of the hierarchy, with a `/` before them, as
//! [`Hierarchy::open`] takes them.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::{fmt, fs};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, statfs};

use super::cgroup::{CgroupError, Hierarchy};
use crate::identify::names::{NameError, container_id};
use crate::identify::{Pattern, Target};
use crate::sys::pidfd;

/// Why a target is no group that egret could attach to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{target}: {source}")]
    Name { target: Target, source: NameError },
    #[error(
        "{path} is outside the cgroup v2 hierarchy, which is at {root}; \
         name a group that is there, inside it or from its root"
    )]
    Outside { path: PathBuf, root: PathBuf },
    #[error("{0} is not a group of cgroup v2; egret cannot attach to cgroup v1")]
    NotV2(PathBuf),
    #[error("the path {0} has a `..`; name the group itself")]
    Dots(PathBuf),
    #[error("{0}: this is the root of all groups, egret's own included; name a group below it")]
    Root(Target),
    #[error("{0} is not there; a group is there while something runs in it")]
    Gone(PathBuf),
    #[error("{0} is not a folder; name the group itself")]
    NotAGroup(PathBuf),
    #[error(
        "process {pid} is at {path}, outside the cgroup namespace of egret; \
         run egret where it can see the group"
    )]
    Elsewhere { pid: u32, path: PathBuf },
    #[error("there is no process {0}")]
    NoProcess(u32),
    #[error("{0} is not running; its group is there once it has started")]
    NoUnit(Target),
    #[error(
        "no group on cgroup v2 is that of the {target}; {found}. \
         If the runtime names its groups otherwise, name the group with --cgroup"
    )]
    NoContainer { target: Target, found: Found },
    #[error("{target} could be any of these; name one with --cgroup:{}", listed(found))]
    Ambiguous { target: Target, found: Vec<PathBuf> },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The ids of the containers that are there.
#[derive(Debug)]
pub struct Found(Vec<String>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let ids: Vec<&str> =
            self.0.iter().take(SHOWN).map(|id| id.get(..12).unwrap_or(id)).collect();
        match self.0.len() {
            0 => f.write_str("there is no container there at all"),
            n if n > SHOWN => write!(f, "there are {} and {} more", ids.join(", "), n - SHOWN),
            _ => write!(f, "there are {}", ids.join(", ")),
        }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| format!("\n  {}", p.display())).collect()
}

/// The group of `target`, from the root of the hierarchy.
///
/// # Errors
/// When it is not there, not one, not on cgroup v2, or the root.
pub fn resolve(target: &Target, hierarchy: &Hierarchy) -> Result<PathBuf, TargetError> {
    target.check().map_err(named(target))?;
    let path = match target {
        Target::Cgroup(path) => below_root(path, hierarchy)?,
        Target::Slice(name) => {
            let slice = Pattern::slice(name).map_err(named(target))?;
            only(find(&slice, hierarchy), target)?
        }
        Target::Unit(name) => {
            let unit = Pattern::unit(name).map_err(named(target))?;
            only(find(&unit, hierarchy), target)?
        }
        Target::Pid(pid) => of_process(*pid)?,
        Target::Container(id) => of_container(id, target, hierarchy)?,
    };
    if path == Path::new("/") {
        return Err(TargetError::Root(target.clone()));
    }
    check_group(&path, hierarchy).map(|()| path)
}

fn named(target: &Target) -> impl FnOnce(NameError) -> TargetError {
    let target = target.clone();
    |source| TargetError::Name { target, source }
}

/// A path inside the mount, or from the root of the hierarchy.
fn below_root(path: &Path, hierarchy: &Hierarchy) -> Result<PathBuf, TargetError> {
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(TargetError::Dots(path.to_owned()));
    }
    let root = hierarchy.root();
    let relative = match path.strip_prefix(root) {
        Ok(relative) => relative,
        Err(_) if path.is_relative() => path,
        // Also where version 2 is mounted among the folders of version 1.
        Err(_) if statfs(path).is_ok_and(|s| s.filesystem_type() == CGROUP_SUPER_MAGIC) => {
            return Err(TargetError::NotV2(path.to_owned()));
        }
        // As /proc/PID/cgroup and `egret status` write it.
        Err(_) => match path.strip_prefix("/") {
            Ok(relative) if root.join(relative).is_dir() => relative,
            _ => {
                return Err(TargetError::Outside { path: path.to_owned(), root: root.to_owned() });
            }
        },
    };
    // Without `.` and doubled slashes.
    Ok(Path::new("/")
        .join(relative.components().filter(|c| *c != Component::CurDir).collect::<PathBuf>()))
}

/// The group that a process is in.
fn of_process(pid: u32) -> Result<PathBuf, TargetError> {
    // Held first: while it reads as alive afterwards, the id was not used again.
    let held = pidfd::open(pid).map_err(|_| TargetError::NoProcess(pid))?;
    let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read(&file);
    if !pidfd::is_alive(&held) {
        return Err(TargetError::NoProcess(pid));
    }
    let text = text.map_err(|source| TargetError::Io { path: file.clone(), source })?;
    let path = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    let path = path.map(|p| Path::new(OsStr::from_bytes(p))).ok_or(TargetError::NotV2(file))?;
    // The kernel writes so for a process outside this process's cgroup namespace.
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(TargetError::Elsewhere { pid, path: path.to_owned() });
    }
    Ok(path.to_owned())
}

fn of_container(id: &str, target: &Target, hierarchy: &Hierarchy) -> Result<PathBuf, TargetError> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    walk(hierarchy, &mut |path| {
        let folders: Vec<&str> = path.iter().skip(1).filter_map(OsStr::to_str).collect();
        match container_id(&folders) {
            // What is below is the same container's.
            Some(this) if this.starts_with(id) => {
                found.push(path.to_owned());
                false
            }
            Some(this) => {
                others.push(this.to_owned());
                true
            }
            None => true,
        }
    });
    if found.is_empty() {
        others.sort();
        return Err(TargetError::NoContainer { target: target.clone(), found: Found(others) });
    }
    only(found, target)
}

fn only(mut found: Vec<PathBuf>, target: &Target) -> Result<PathBuf, TargetError> {
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(TargetError::NoUnit(target.clone())),
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            found.push(last);
            found.sort();
            Err(TargetError::Ambiguous { target: target.clone(), found })
        }
    }
}

fn check_group(path: &Path, hierarchy: &Hierarchy) -> Result<(), TargetError> {
    let at = hierarchy.root().join(path.strip_prefix("/").unwrap_or(path));
    match hierarchy.open(path) {
        Ok(_) if !at.is_dir() => Err(TargetError::NotAGroup(at)),
        Ok(group) if !group.is_v2() => Err(TargetError::NotV2(at)),
        Ok(_) => Ok(()),
        Err(CgroupError::Io { source, .. }) => Err(match source.kind() {
            io::ErrorKind::NotFound => TargetError::Gone(at),
            io::ErrorKind::NotADirectory => TargetError::NotAGroup(at),
            _ => TargetError::Io { path: at, source },
        }),
        Err(CgroupError::NotMounted | CgroupError::StillPopulated(_)) => Err(TargetError::Gone(at)),
    }
}

/// Every group that `pattern` takes now, in the order of their paths. A group whose folder cannot
/// be read has nothing below it, and that is logged.
pub fn find(pattern: &Pattern, hierarchy: &Hierarchy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(hierarchy, &mut |path| {
        if pattern.matches(path) {
            found.push(path.to_owned());
        }
        pattern.may_match_below(path) && (!pattern.is_of_units() || is_roots(path, hierarchy))
    });
    found.sort();
    found
}

/// Whether [`find`] would find the group at `path`, which is there.
pub fn admits(pattern: &Pattern, path: &Path, hierarchy: &Hierarchy) -> bool {
    let above = || path.ancestors().skip(1).filter(|a| *a != Path::new("/"));
    pattern.matches(path)
        && (!pattern.is_of_units() || above().all(|group| is_roots(group, hierarchy)))
}

/// Whether only root makes groups below this one. Who was given a part of the tree could name a
/// group like another's unit, and be given its permissions.
fn is_roots(group: &Path, hierarchy: &Hierarchy) -> bool {
    let path = hierarchy.root().join(group.strip_prefix("/").unwrap_or(group));
    fs::metadata(path).is_ok_and(|m| m.uid() == 0)
}

/// Visits every group below the root; the answer says whether to look below it. Not recursive:
/// agents choose how deep the tree is.
fn walk(hierarchy: &Hierarchy, visit: &mut dyn FnMut(&Path) -> bool) {
    let mut waiting = vec![PathBuf::from("/")];
    while let Some(group) = waiting.pop() {
        let folder = hierarchy.root().join(group.strip_prefix("/").unwrap_or(&group));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot look for groups here");
                continue;
            }
        };
        for entry in entries.flatten() {
            let path = group.join(entry.file_name());
            if entry.file_type().is_ok_and(|t| t.is_dir()) && visit(&path) {
                waiting.push(path);
            }
        }
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;

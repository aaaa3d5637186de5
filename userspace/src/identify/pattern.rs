//! Pure: which groups an agent of the configuration is: patterns over paths in the tree of groups,
//! written from its root as in /proc/PID/cgroup.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::names::{NameError, SLICE, check_slice, check_unit, slice_folders};

/// The folder of the sessions of `egret run`. No pattern ever takes what egret made itself.
pub const SESSIONS: &str = "egret";

/// The slices and the scope that systemd makes for everything that nobody placed elsewhere.
const HOST: &[&str] = &["system.slice", "user.slice", "machine.slice", "init.scope"];

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    kind: Kind,
    /// As written.
    text: String,
    /// One per folder; a unit has only the last.
    folders: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slice,
    Unit,
    Cgroup,
}

impl Pattern {
    /// A slice: `a-b.slice` is the group `/a.slice/a-b.slice`. A `*` stands for text without `-`,
    /// since `-` is where one slice is inside another.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn slice(text: &str) -> Result<Self, NameError> {
        check_slice(text, true)?;
        Ok(Self { kind: Kind::Slice, text: text.into(), folders: slice_folders(text) })
    }

    /// A unit of the system: a group of this name, wherever systemd put it. Names are escaped as
    /// systemd has them, and a `*` stands for any text.
    ///
    /// The managers of users, who may name their units as they like, are left out.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn unit(text: &str) -> Result<Self, NameError> {
        check_unit(text, true)?;
        Ok(Self { kind: Kind::Unit, text: text.into(), folders: vec![text.into()] })
    }

    /// A path from the root of the hierarchy. A `*` stands for any text inside one folder's name.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn cgroup(text: &str) -> Result<Self, NameError> {
        if let Some(below) = text.strip_prefix("/sys/fs/cgroup") {
            let below = below.strip_prefix("/unified").unwrap_or(below);
            return Err(NameError::new("a pattern begins at the root of the cgroup hierarchy")
                .help(format!("write {}", if below.is_empty() { "/NAME" } else { below })));
        }
        let path = text.strip_prefix('/').unwrap_or(text);
        if path.is_empty() {
            return Err(NameError::new("the root of all groups is no agent"));
        }
        let folders: Vec<&str> = path.split('/').collect();
        for folder in &folders {
            match *folder {
                "" => return Err(NameError::new("a folder in the path has no name")),
                "." | ".." => {
                    return Err(NameError::new(format!("a path in the tree has no `{folder}`")));
                }
                f if f.contains("**") => {
                    return Err(NameError::new("`*` stands inside one folder's name only")
                        .help("write `*`, once for each level"));
                }
                f if f.contains('\n') || f.contains('\0') => {
                    return Err(NameError::new("a folder's name has no line break and no NUL"));
                }
                _ => {}
            }
        }
        if folders.iter().all(|f| *f == "*") {
            return Err(NameError::new("this is every group of its depth, egret's own included"));
        }
        if folders[0] == SESSIONS {
            return Err(NameError::new("the groups below /egret are those of `egret run`"));
        }
        let folders = folders.into_iter().map(str::to_owned).collect();
        Ok(Self { kind: Kind::Cgroup, text: text.into(), folders })
    }

    /// Whether the group at `path`, from the root of the hierarchy, is one of these.
    pub fn matches(&self, path: &Path) -> bool {
        let Some(folders) = folders(path) else { return false };
        let Some((last, above)) = folders.split_last() else { return false };
        match self.kind {
            Kind::Cgroup => self.fits(&folders) && folders.len() == self.folders.len(),
            Kind::Slice => {
                // Stars of different folders must stand for the same text.
                self.fits(&folders) && folders.len() == self.folders.len() && is_slice_at(&folders)
            }
            Kind::Unit => self.is_unit(last) && self.may_hold_unit(above),
        }
    }

    /// Whether a match can lie below the group at `path`: who looks for matches need not look
    /// elsewhere.
    pub fn may_match_below(&self, path: &Path) -> bool {
        let Some(folders) = folders(path) else { return false };
        match self.kind {
            Kind::Cgroup | Kind::Slice => folders.len() < self.folders.len() && self.fits(&folders),
            Kind::Unit => self.may_hold_unit(&folders),
        }
    }

    /// Whether this names a unit, whose place in the tree is not given.
    pub fn is_of_units(&self) -> bool {
        self.kind == Kind::Unit
    }

    /// Where the group of a slice without `*` is, whether it is there or not.
    pub fn slice_path(&self) -> Option<PathBuf> {
        let exact = self.kind == Kind::Slice && !self.text.contains('*');
        exact.then(|| Path::new("/").join(self.folders.iter().collect::<PathBuf>()))
    }

    /// Whether both are the same groups, however written.
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_of_units() == other.is_of_units() && self.folders == other.folders
    }

    /// The group in which everything is an agent by this pattern: it can be kept closed to what is
    /// not attached yet. Not where the host's own services or users live.
    pub fn guardable_parent(&self) -> Option<PathBuf> {
        let (last, above) = self.folders.split_last()?;
        let parent = above.last()?;
        if self.kind != Kind::Cgroup || last != "*" || above.iter().any(|f| f.contains('*')) {
            return None;
        }
        let of_host = HOST.contains(&above[0].as_str());
        if of_host && (above.len() == 1 || parent.ends_with(SLICE)) {
            return None;
        }
        Some(format!("/{}", above.join("/")).into())
    }

    /// Whether each folder fits its place in the pattern, as far as both go.
    fn fits(&self, folders: &[&[u8]]) -> bool {
        let stop = (self.kind == Kind::Slice).then_some(b'-');
        folders.first().is_none_or(|first| *first != SESSIONS.as_bytes())
            && folders.iter().zip(&self.folders).all(|(f, p)| glob(p.as_bytes(), f, stop))
    }

    fn is_unit(&self, folder: &[u8]) -> bool {
        self.folders.last().is_some_and(|p| glob(p.as_bytes(), folder, None))
    }

    /// Whether a unit of the system can lie in the last of these: not below a match, which governs
    /// it already, and not where somebody else than systemd's system manager gives names.
    fn may_hold_unit(&self, folders: &[&[u8]]) -> bool {
        folders.first().is_none_or(|first| *first != SESSIONS.as_bytes())
            && !folders.iter().any(|f| self.is_unit(f) || glob(b"user@*.service", f, None))
    }
}

/// `cgroup /agents/*`: the kind and the text.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Slice => "slice",
            Kind::Unit => "unit",
            Kind::Cgroup => "cgroup",
        };
        write!(f, "{kind} {}", self.text)
    }
}

/// The folders of a path from the root down; `None` if it is not a plain path.
fn folders(path: &Path) -> Option<Vec<&[u8]>> {
    let bytes = path.as_os_str().as_bytes();
    let path = bytes.strip_prefix(b"/").unwrap_or(bytes);
    if path.is_empty() {
        return Some(Vec::new());
    }
    let folders: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let plain = |f: &&[u8]| ![&b""[..], b".", b".."].contains(f);
    folders.iter().all(plain).then_some(folders)
}

/// Whether the last of these folders, as a slice, would be there.
fn is_slice_at(folders: &[&[u8]]) -> bool {
    let Some(name) = folders.last().and_then(|f| str::from_utf8(f).ok()) else { return false };
    slice_folders(name).iter().map(String::as_bytes).eq(folders.iter().copied())
}

/// Whether `pattern` stands for `text`: a `*` for any bytes, or any but `stop`. The shortest text
/// for each star is enough to look at, since a later one can always be longer.
fn glob(pattern: &[u8], text: &[u8], stop: Option<u8>) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                star = Some((p + 1, t));
                p += 1;
            }
            (Some(a), Some(b)) if a == b => (p, t) = (p + 1, t + 1),
            (None, None) => return true,
            _ => {
                // The last star takes one byte more.
                let Some((after, from)) = star else { return false };
                if text.get(from).is_none_or(|b| Some(*b) == stop) {
                    return false;
                }
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Where what outlives a daemon is found again: the names of pinned maps and links.
//!
//! ```text
//! <dir>/maps/<ROLE>_v<ABI version>      one for each role
//! <dir>/agents/<agent>/<hook>           one link for each hook
//! <dir>/closed/<hook>                   one program for each hook that can be closed beforehand
//! <dir>/guards/<guard>/<hook>           one link for each of those
//! ```
//!
//! Maps are pinned before the first link, so a daemon that died between two pins has left either
//! some maps and no agent, which is worth nothing and is made anew, or every map and a part of an
//! agent's links, which is completed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use agent_ebpf::abi::{ABI_VERSION, Hook};

use crate::identify::CgroupId;
use crate::sys::bpf_object;

/// The maps that a daemon pins, so that the next one finds them.
pub(super) const ROLES: [&str; 10] = [
    "AGENTS",
    "LISTENERS",
    "PORTS",
    "LOCAL",
    "LEASE",
    "SOCKS",
    "OWNERS",
    "FLOWS",
    "EVENTS",
    "STATS",
];

/// bpffs takes names of at most this many bytes.
const NAME_MAX: usize = 255;

/// Why what is pinned cannot be used as it is. Whatever it is, agents whose links are pinned stay
/// closed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("this kernel side was not loaded with a folder for pins")]
    NotPinned,
    #[error("{0} already holds the maps of a daemon: adopt them, or detach its agents first")]
    AlreadyPinned(PathBuf),
    #[error(
        "the pinned map `{role}` is missing from {dir}: what is attached can no longer be served and \
         stays closed; remove the folder to let go of it"
    )]
    MissingMap { role: &'static str, dir: PathBuf },
    #[error(
        "{dir} holds maps of ABI version {found}, and this egret speaks version {ABI_VERSION}: \
         detach the agents with the egret that attached them, then start this one"
    )]
    AbiMismatch { dir: PathBuf, found: u32 },
    #[error(
        "the pinned map `{role}` has another layout than this egret's, under the same version: \
         detach the agents with the egret that attached them, then start this one"
    )]
    Layout { role: &'static str },
    #[error("`{0}` is no name for an agent: it is empty or too long")]
    BadName(String),
    #[error("an agent named `{0}` is attached already")]
    NameTaken(String),
    #[error("the agent `{0}` is attached to this cgroup, to one above it or to one below it")]
    Overlap(String),
    #[error("no agent named `{0}` is attached")]
    Unknown(String),
    #[error("a guard named `{0}` is on another cgroup: remove it first")]
    GuardTaken(String),
    #[error("there is no guard named `{0}`")]
    UnknownGuard(String),
    #[error("the agent `{name}` is attached only in part: the hook `{missing}` is missing")]
    Half {
        name: String,
        /// The first one that is missing.
        missing: &'static str,
        /// The group that the others are attached to; None if there are no others.
        cgroup: Option<CgroupId>,
    },
    #[error("the cgroup of the agent `{0}` is gone, and its links with it")]
    CgroupGone(String),
    #[error("{path} is not the link of the hook `{hook}` of one cgroup: it was not made by egret")]
    Foreign { path: PathBuf, hook: &'static str },
}

/// What the folder says of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapPins {
    /// Nothing is pinned.
    None,
    /// Every map, of this ABI version.
    Complete,
    /// Some are missing; this is the first of them.
    Partial(&'static str),
    /// Maps of another ABI version.
    OtherAbi(u32),
}

/// A folder on bpffs that holds the maps and the links of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// The folder itself is made by [`super::bpffs`].
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn map(&self, role: &str) -> PathBuf {
        self.dir.join("maps").join(format!("{role}_v{ABI_VERSION}"))
    }

    /// The folder of an agent's links. bpffs refuses dots, so every byte that is not a letter, a
    /// digit, `-` or `_` stands as `%` and two hexadecimal digits.
    pub(super) fn agent(&self, name: &str) -> Result<PathBuf, PinError> {
        self.named("agents", name)
    }

    /// The folder of a guard's links, named in the same way.
    pub(super) fn guard(&self, name: &str) -> Result<PathBuf, PinError> {
        self.named("guards", name)
    }

    /// The folder of the programs that a unit can carry before it has an agent.
    pub fn closed(&self) -> PathBuf {
        self.dir.join("closed")
    }

    fn named(&self, kind: &str, name: &str) -> Result<PathBuf, PinError> {
        let file = encode(name);
        if file.is_empty() || file.len() > NAME_MAX {
            return Err(PinError::BadName(name.into()));
        }
        Ok(self.dir.join(kind).join(file))
    }

    /// Makes the folders.
    pub(super) fn prepare(&self) -> Result<(), PinError> {
        ["maps", "agents", "closed", "guards"].iter().try_for_each(|name| {
            let path = self.dir.join(name);
            match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(at(&path)(e)),
                _ => Ok(()),
            }
        })
    }

    /// Which maps are there.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn maps(&self) -> Result<MapPins, PinError> {
        let found = entries(&self.dir.join("maps"))?;
        if found.is_empty() {
            return Ok(MapPins::None);
        }
        let version = |name: &String| name.rsplit_once("_v")?.1.parse::<u32>().ok();
        if let Some(other) = found.iter().filter_map(version).find(|v| *v != ABI_VERSION) {
            return Ok(MapPins::OtherAbi(other));
        }
        let missing = ROLES.iter().find(|role| {
            let name = format!("{role}_v{ABI_VERSION}");
            !found.contains(&name)
        });
        Ok(missing.map_or(MapPins::Complete, |role| MapPins::Partial(role)))
    }

    /// The agents that have a folder, attached in whole or in part, in the order of their names.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds a name that egret did not write.
    pub fn agents(&self) -> Result<Vec<String>, PinError> {
        self.names("agents")
    }

    /// The guards that have a folder, in the order of their names.
    ///
    /// # Errors
    /// As [`Pins::agents`].
    pub(super) fn guards(&self) -> Result<Vec<String>, PinError> {
        self.names("guards")
    }

    fn names(&self, kind: &str) -> Result<Vec<String>, PinError> {
        let folder = self.dir.join(kind);
        let mut names = Vec::new();
        for file in entries(&folder)? {
            names.push(decode(&file).ok_or(PinError::BadName(file))?);
        }
        names.sort();
        Ok(names)
    }

    /// The links of an agent that are there, by hook; every hook is named, so that none that is
    /// missing can be overlooked.
    pub(super) fn links(&self, name: &str) -> Result<Vec<(Hook, Option<OwnedFd>)>, PinError> {
        let folder = self.agent(name)?;
        if !fs::exists(&folder).map_err(at(&folder))? {
            return Err(PinError::Unknown(name.into()));
        }
        Hook::ALL.iter().map(|hook| Ok((*hook, open_pin(&folder.join(hook.name()))?))).collect()
    }

    /// Readies the folder for new maps: what a daemon left that died before its first agent goes.
    pub(super) fn clear_for_new_maps(&self) -> Result<(), PinError> {
        let maps = self.maps()?;
        let empty = self.agents()?.is_empty();
        match maps {
            MapPins::None if empty => return Ok(()),
            MapPins::Complete => return Err(PinError::AlreadyPinned(self.dir.clone())),
            MapPins::None => return Err(self.missing(ROLES[0])),
            MapPins::Partial(role) if !empty => return Err(self.missing(role)),
            MapPins::OtherAbi(found) if !empty => return Err(self.other_abi(found)),
            MapPins::Partial(_) | MapPins::OtherAbi(_) => {}
        }
        let folder = self.dir.join("maps");
        entries(&folder)?.iter().try_for_each(|name| remove_pin(&folder.join(name)))
    }

    /// Proves that every map is there, before any of them is opened.
    pub(super) fn require_maps(&self) -> Result<(), PinError> {
        match self.maps()? {
            MapPins::Complete => Ok(()),
            MapPins::None => Err(self.missing(ROLES[0])),
            MapPins::Partial(role) => Err(self.missing(role)),
            MapPins::OtherAbi(found) => Err(self.other_abi(found)),
        }
    }

    fn missing(&self, role: &'static str) -> PinError {
        PinError::MissingMap { role, dir: self.dir.clone() }
    }

    fn other_abi(&self, found: u32) -> PinError {
        PinError::AbiMismatch { dir: self.dir.clone(), found }
    }
}

/// Opens a pin, if it is there.
pub(super) fn open_pin(path: &Path) -> Result<Option<OwnedFd>, PinError> {
    match bpf_object::open(path) {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(path)(e)),
    }
}

/// Removes a pin; one that is gone already is no failure.
pub(super) fn remove_pin(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(path)(e)),
        _ => Ok(()),
    }
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> PinError {
    move |source| PinError::Io { path: path.into(), source }
}

/// The names in a folder; none if there is no folder.
fn entries(folder: &Path) -> Result<Vec<String>, PinError> {
    let listed = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at(folder))?,
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(at(folder))
    };
    listed.map(name).collect()
}

fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

fn decode(file: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    // Each name has one spelling, so that no two folders stand for one agent.
    (encode(&name) == file && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling_that_bpffs_takes() {
        for name in ["triage", "docker-1.scope", "a/b", "../..", "ä b", "%41", "a_b-C9"] {
            let file = encode(name);
            assert!(!file.contains(['.', '/', ' ']), "{file}");
            assert_eq!(decode(&file).as_deref(), Some(name));
        }
        for foreign in ["", "a.b", "%4", "%41", "%zz", "%2E", "%ff"] {
            assert_eq!(decode(foreign), None, "{foreign}");
        }
        let pins = Pins::new("/x");
        assert!(pins.agent("").is_err() && pins.agent(&"a".repeat(256)).is_err());
        assert!(pins.agent(&".".repeat(86)).is_err());
        assert_eq!(pins.agent("a.b").unwrap(), Path::new("/x/agents/a%2eb"));
    }

    #[test]
    fn what_is_there_decides_what_may_be_done() {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        assert_eq!(pins.maps().unwrap(), MapPins::None);
        assert!(matches!(pins.require_maps(), Err(PinError::MissingMap { .. })));
        pins.prepare().unwrap();
        pins.clear_for_new_maps().unwrap();
        for role in &ROLES[1..] {
            fs::write(pins.map(role), "").unwrap();
        }
        assert_eq!(pins.maps().unwrap(), MapPins::Partial("AGENTS"));
        fs::create_dir(pins.agent("a").unwrap()).unwrap();
        assert!(matches!(
            pins.clear_for_new_maps(),
            Err(PinError::MissingMap { role: "AGENTS", .. })
        ));
        fs::write(pins.map("AGENTS"), "").unwrap();
        pins.require_maps().unwrap();
        assert!(matches!(pins.clear_for_new_maps(), Err(PinError::AlreadyPinned(_))));

        fs::write(dir.path().join("maps/AGENTS_v999"), "").unwrap();
        assert_eq!(pins.maps().unwrap(), MapPins::OtherAbi(999));
        let refused = pins.clear_for_new_maps().unwrap_err();
        assert!(refused.to_string().contains("detach the agents"), "{refused}");
        assert!(matches!(pins.require_maps(), Err(PinError::AbiMismatch { found: 999, .. })));
        // Without an agent they hold nothing up.
        fs::remove_dir(pins.agent("a").unwrap()).unwrap();
        pins.clear_for_new_maps().unwrap();
        assert_eq!(pins.maps().unwrap(), MapPins::None);
    }
}

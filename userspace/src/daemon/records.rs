//! What the next daemon must know of the agents that are attached: one file each, beside the pins
//! and gone with them at the next boot. It holds no secret; those are obtained again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::definition::Source;

/// How far a change of an agent has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Begun. What it held open has perhaps not been destroyed; the group may stand still.
    Attaching {
        /// It stood still before, by somebody else's will.
        was_frozen: bool,
    },
    Attached,
    /// It is to be let go.
    Detaching,
}

/// One attached agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) name: String,
    /// Its group's path inside the hierarchy, and the group's id: a group that was made anew under
    /// the same path is another one.
    pub(super) path: PathBuf,
    pub(super) cgroup: u64,
    pub(super) session: String,
    pub(super) source: Source,
    /// The `[[agent]]` that it is a match of.
    pub(super) config: Option<String>,
    pub(super) stage: Stage,
    /// Refused everything, by `egret detach --deny` for example.
    pub(super) denied: bool,
    /// Placeholders that agents hold, by credential.
    pub(super) placeholders: std::collections::BTreeMap<String, String>,
}

/// The extension of what is being written.
const NEW: &str = "new";
/// The file of names that stay closed.
const DENIED: &str = "denied";

/// The folder of records.
#[derive(Debug)]
pub(super) struct Records(PathBuf);

impl Records {
    /// Below the daemon's folder; made if it is not there. What was being written when a daemon
    /// died is removed.
    pub(super) fn open(run: &Path) -> io::Result<Self> {
        let dir = run.join("attached");
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == NEW) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self(dir))
    }

    /// Every record, and the files that hold none.
    pub(super) fn all(&self) -> io::Result<(Vec<Written>, Vec<PathBuf>)> {
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
            match read {
                Ok(record) => found.push(record),
                Err(_) => damaged.push(path),
            }
        }
        Ok((found, damaged))
    }

    /// Writes a record in one step.
    pub(super) fn write(&self, record: &Written) -> io::Result<()> {
        replace(&self.path(&record.name), &serde_json::to_vec_pretty(record)?)
    }

    /// Names of matches of egret.toml that an operator has closed: a group of theirs that is made
    /// anew is closed as well.
    ///
    /// # Errors
    /// When they cannot be told; then nobody is to be attached.
    pub(super) fn denied(&self) -> io::Result<BTreeSet<String>> {
        match fs::read(self.0.join(DENIED)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            text => Ok(serde_json::from_slice(&text?)?),
        }
    }

    pub(super) fn write_denied(&self, names: &BTreeSet<String>) -> io::Result<()> {
        let path = self.0.join(DENIED);
        if names.is_empty() {
            return remove(&path);
        }
        replace(&path, &serde_json::to_vec(names)?)
    }

    /// Forgets what cannot be read.
    pub(super) fn remove_damaged(&self) -> io::Result<()> {
        self.all()?.1.iter().try_for_each(|file| remove(file))
    }

    /// Forgets one; that there was none is no failure.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        remove(&self.path(name))
    }

    /// Names of agents can hold anything that a file's name cannot.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let mut file = String::with_capacity(name.len() + 5);
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                file.push(char::from(byte));
            } else {
                file.push_str(&format!("%{byte:02x}"));
            }
        }
        self.0.join(file + ".json")
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Writes a file in one step.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension(NEW);
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Written {
        Written {
            name: name.into(),
            path: "/a".into(),
            cgroup: 7,
            session: "0123456789abcdef".into(),
            source: Source::Config,
            config: None,
            stage: Stage::Attached,
            denied: false,
            placeholders: [("c".to_owned(), "p".to_owned())].into(),
        }
    }

    #[test]
    fn records_are_found_again_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        for name in ["a", "ci:../x.scope", "ci%3a"] {
            records.write(&record(name)).unwrap();
            records.write(&record(name)).unwrap();
        }
        fs::write(dir.path().join("attached/bad.json"), "{").unwrap();
        fs::write(dir.path().join("attached/half.new"), "{").unwrap();
        let (found, damaged) = Records::open(dir.path()).unwrap().all().unwrap();
        let mut names: Vec<_> = found.iter().map(|r| r.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "ci%3a", "ci:../x.scope"]);
        assert_eq!(damaged.len(), 1);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert_eq!(records.all().unwrap().0.len(), 2);
        assert!(!dir.path().join("attached/half.new").exists());
    }

    #[test]
    fn who_is_denied_is_found_again_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        assert!(records.denied().unwrap().is_empty());
        let names: BTreeSet<String> = ["ci:a b".to_owned(), "x".to_owned()].into();
        records.write_denied(&names).unwrap();
        assert_eq!(Records::open(dir.path()).unwrap().denied().unwrap(), names);
        let (found, damaged) = records.all().unwrap();
        assert!(found.is_empty() && damaged.is_empty(), "it is no record");
        records.write_denied(&BTreeSet::new()).unwrap();
        assert!(records.denied().unwrap().is_empty());
        fs::write(dir.path().join("attached/denied"), "[").unwrap();
        assert!(records.denied().is_err());
    }
}

//! The store of certificates that a machine's administrator adds to, and the command that makes
//! bundles of it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folder, name of our file in it, and the command with what it needs after something was removed.
const KNOWN: &[(&str, &str, &str, &[&str])] = &[
    // Debian and its kin, Alpine.
    ("usr/local/share/ca-certificates", "egret.crt", "update-ca-certificates", &["--fresh"]),
    // Fedora and its kin.
    ("etc/pki/ca-trust/source/anchors", "egret.pem", "update-ca-trust", &[]),
];

/// Where administrators put programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The store of this machine, or of an image.
pub(super) struct Store {
    pub(super) file: PathBuf,
    pub(super) command: &'static str,
    after_removal: &'static [&'static str],
    /// False for a root that is not ours, whose command must not be run.
    is_live: bool,
}

impl Store {
    /// The first known store whose folder exists below `root`; Debian's where none does.
    pub(super) fn of(root: &Path) -> Self {
        let there = KNOWN.iter().find(|(folder, ..)| root.join(folder).is_dir());
        let (folder, name, command, after_removal) = there.unwrap_or(&KNOWN[0]);
        let file = root.join(folder).join(name);
        Self { file, command, after_removal, is_live: root == Path::new("/") }
    }

    /// Writes the certificate, readable by all.
    pub(super) fn add(&self, pem: &str) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = self.file.with_extension("new"); // no name that the command would take
        fs::write(&new, pem)?;
        fs::set_permissions(&new, Permissions::from_mode(0o644))?;
        fs::rename(&new, &self.file)
    }

    /// Removes it; false if it was not there.
    pub(super) fn remove(&self) -> io::Result<bool> {
        match fs::remove_file(&self.file) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Runs the command, and says which; nothing where it is not installed.
    pub(super) fn refresh(&self, removed: bool) -> Result<Option<String>, String> {
        if !self.is_live {
            return Ok(None);
        }
        let arguments = if removed { self.after_removal } else { &[] };
        let line = [&[self.command], arguments].concat().join(" ");
        match Command::new(self.command).args(arguments).env("PATH", PATH).output() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{line}: {e}")),
            Ok(output) if output.status.success() => Ok(Some(line)),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("{line}: {}: {}", output.status, said.trim()))
            }
        }
    }
}

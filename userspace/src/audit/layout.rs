//! Where the audit log lives below a state folder.
//!
//! ```text
//! audit/index.jsonl         which journals there are, and how each ended
//! audit/index.key           the key that signs the index next, 0600
//! audit/journals/NAME.jsonl one journal per writer, named after its session
//! audit/live/NAME           the journal's writer has not closed it
//! audit/torn/NAME           bytes of a record that a killed writer never finished
//! audit/store/              sled: a copy to search in, rebuilt at will
//! checkpoints/NAME.jsonl    the second place: signed positions of each journal and of the index
//! ```

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The name under which the index signs its checkpoints; no journal may have it.
pub(super) const INDEX: &str = "index";

/// The log's paths.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    checkpoints: PathBuf,
}

impl Layout {
    /// Below the state folder `state`; checkpoints beside the log unless `checkpoints` says where.
    pub fn new(state: &Path, checkpoints: Option<&Path>) -> Self {
        Self {
            root: state.join("audit"),
            checkpoints: checkpoints.map_or_else(|| state.join("checkpoints"), Path::to_owned),
        }
    }

    /// Creates the folders, 0700.
    pub(super) fn create(&self) -> io::Result<()> {
        let make = |p: &Path| DirBuilder::new().recursive(true).mode(0o700).create(p);
        for sub in ["journals", "live", "torn"] {
            make(&self.root.join(sub))?;
        }
        make(&self.checkpoints)
    }

    /// Waits until files created in the folders survive a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        for dir in [&self.root, &self.journals(), &self.live_dir(), &self.checkpoints] {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }
    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.jsonl")
    }
    pub(super) fn index_key(&self) -> PathBuf {
        self.root.join("index.key")
    }
    pub(super) fn journals(&self) -> PathBuf {
        self.root.join("journals")
    }
    pub(super) fn journal(&self, name: &str) -> PathBuf {
        self.journals().join(format!("{name}.jsonl"))
    }
    pub(super) fn live_dir(&self) -> PathBuf {
        self.root.join("live")
    }
    pub(super) fn live(&self, name: &str) -> PathBuf {
        self.live_dir().join(name)
    }
    pub(super) fn torn(&self, name: &str) -> PathBuf {
        self.root.join("torn").join(name)
    }
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    pub(super) fn checkpoints(&self, name: &str) -> PathBuf {
        self.checkpoints.join(format!("{name}.jsonl"))
    }

    /// Names of the journals that exist, sorted.
    pub(super) fn journal_names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.journals())? {
            let file = entry?.file_name();
            if let Some(name) = file.to_str().and_then(|f| f.strip_suffix(".jsonl")) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Whether a journal may be called `name`: 1 to 100 of `[A-Za-z0-9_-]`, and not the index's name.
pub(super) fn is_journal_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && name != INDEX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

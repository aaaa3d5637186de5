//! The index of journals: a chain like theirs, with a line when a journal is opened (and the first
//! key of its checkpoints) and one when it ends (and its length and head). Every line is followed
//! by a signed checkpoint, so a journal that vanishes as a whole is missed.
//!
//! Writers of one state folder take turns under a lock, a few times per session and never for a
//! record. The key file says how far the index was when it was last signed; a process killed half
//! way leaves lines past that point, which the next one takes over, or half a line, which it
//! moves aside.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::append::AppendFile;
use super::chain::{self, Chain, Hash, Head, Seq};
use super::checkpoint::{self, Circumstances, PublicKey, Signer};
use super::keyfile;
use super::layout::{INDEX, Layout};
use super::line::to_ascii_json;
use super::record::SCHEMA;
use super::timestamp::Timestamp;
use super::{AuditError, Durability};

/// How long to wait for another process that is writing to the index.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an index line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// The first line: `key` is the first key of the index itself.
    Created,
    /// A journal begins; `key` is the first key of its checkpoints.
    Opened,
    /// Its writer ended it in good order.
    Closed,
    /// Its writer was killed; `torn` bytes of an unfinished record were moved aside.
    Sealed,
    /// Its writer was killed, and its chain was found broken after `records`.
    Damaged,
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub schema: u32,
    pub seq: Seq,
    pub time: Timestamp,
    pub kind: Kind,
    pub journal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// The last record of the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<u64>,
    pub prev: Hash,
}

impl Entry {
    fn new(kind: Kind, journal: &str) -> Self {
        Self {
            schema: SCHEMA,
            seq: Seq(0),
            time: Timestamp::default(),
            kind,
            journal: journal.to_owned(),
            key: None,
            records: None,
            size: None,
            head: None,
            torn: None,
            prev: Hash::default(),
        }
    }

    pub(super) fn opened(journal: &str, key: PublicKey) -> Self {
        Self { key: Some(key), ..Self::new(Kind::Opened, journal) }
    }

    /// The end of a journal at `head`.
    pub(super) fn ended(kind: Kind, journal: &str, head: Head) -> Self {
        Self {
            records: Some(head.seq),
            size: Some(head.size),
            head: Some(head.hash),
            ..Self::new(kind, journal)
        }
    }
}

/// The index, locked for this process.
#[derive(Debug)]
pub(super) struct Index<'a> {
    layout: &'a Layout,
    boot: &'a str,
    durability: Durability,
    file: AppendFile,
    checkpoints: AppendFile,
    signer: Signer,
    head: Head,
}

impl<'a> Index<'a> {
    /// Waits for the lock, takes over what a killed process left and creates what is missing.
    pub(super) fn lock(
        layout: &'a Layout,
        boot: &'a str,
        durability: Durability,
    ) -> Result<Self, AuditError> {
        let path = layout.index();
        let file = patiently(&path)?;
        let ck_path = layout.checkpoints(INDEX);
        let checkpoints = AppendFile::open(&ck_path).map_err(open_error(&ck_path))?;
        let key_path = layout.index_key();
        let (signer, head) = match keyfile::load(&key_path).map_err(open_error(&key_path))? {
            Some(state) => state,
            None if file.len() == 0 && checkpoints.len() == 0 => {
                (Signer::new(INDEX), Head::start(INDEX))
            }
            None => return Err(AuditError::KeyLost { path: key_path }),
        };
        let mut index = Self { layout, boot, durability, file, checkpoints, signer, head };
        index.catch_up_checkpoints()?;
        index.catch_up()?;
        if index.head.seq == Seq(0) {
            let key = index.signer.public();
            // The keys must be on disk before anything names them.
            index.save_keys()?;
            index.append(Entry { key: Some(key), ..Entry::new(Kind::Created, INDEX) })?;
        }
        Ok(index)
    }

    /// Writes a line and signs it.
    pub(super) fn append(&mut self, mut entry: Entry) -> Result<(), AuditError> {
        entry.seq = Seq(self.head.seq.0 + 1);
        entry.time = Timestamp::from_system(SystemTime::now());
        entry.prev = self.head.hash;
        let mut line = Vec::with_capacity(512);
        to_ascii_json(&entry, &mut line).map_err(io::Error::from)?;
        chain::seal(&mut line, 0, self.head.hash);
        self.file.append(&line)?;
        // Our own line, straight from `seal`, always follows.
        self.head.advance(&line).map_err(|_| AuditError::Broken)?;
        self.sign()
    }

    /// Ends the journals whose writers are gone.
    pub(super) fn sweep(&mut self) -> Result<(), AuditError> {
        let dir = self.layout.live_dir();
        for marker in std::fs::read_dir(&dir).map_err(open_error(&dir))? {
            let marker = marker.map_err(open_error(&dir))?;
            if let Some(name) = marker.file_name().to_str() {
                self.seal(name)?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, name: &str) -> Result<(), AuditError> {
        let path = self.layout.journal(name);
        if path.exists() {
            let mut journal = match AppendFile::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()), // it lives
                opened => opened.map_err(open_error(&path))?,
            };
            let text = std::fs::read(&path).map_err(open_error(&path))?;
            let (found, head) = chain::verify(name, text.split_inclusive(|b| *b == b'\n'));
            let mut entry = Entry::ended(Kind::Sealed, name, head);
            match found {
                Chain::Intact => {}
                Chain::Tampered { .. } => entry.kind = Kind::Damaged,
                Chain::TornTail { bytes } => {
                    self.move_aside(name, &mut journal, &text, head.size)?;
                    entry.torn = Some(bytes);
                }
            }
            self.append(entry)?;
        }
        self.cut_checkpoints(name)?;
        let marker = self.layout.live(name);
        std::fs::remove_file(&marker).map_err(open_error(&marker))
    }

    /// A kill may have left half a checkpoint. What it would have signed is in the journal.
    fn cut_checkpoints(&self, name: &str) -> Result<(), AuditError> {
        let path = self.layout.checkpoints(name);
        if let Ok(text) = std::fs::read(&path)
            && !text.is_empty()
            && !text.ends_with(b"\n")
        {
            let mut file = AppendFile::open(&path).map_err(open_error(&path))?;
            file.truncate(whole_lines(&text) as u64)?;
        }
        Ok(())
    }

    /// Keeps the bytes of `text` past `size` in the folder of torn tails and cuts the file there.
    fn move_aside(
        &self,
        name: &str,
        file: &mut AppendFile,
        text: &[u8],
        size: u64,
    ) -> Result<(), AuditError> {
        let path = self.layout.torn(name);
        let at = usize::try_from(size).unwrap_or(usize::MAX).min(text.len());
        std::fs::write(&path, &text[at..]).map_err(open_error(&path))?;
        Ok(file.truncate(size)?)
    }

    /// A killed process may have signed and not yet evolved the key, or left half a checkpoint.
    fn catch_up_checkpoints(&mut self) -> Result<(), AuditError> {
        let path = self.layout.checkpoints(INDEX);
        let text = std::fs::read(&path).map_err(open_error(&path))?;
        let whole = whole_lines(&text);
        if whole < text.len() {
            self.checkpoints.truncate(whole as u64)?;
        }
        let Some(last) = text[..whole].split_inclusive(|b| *b == b'\n').next_back() else {
            return if self.signer.n() == 0 { Ok(()) } else { Err(self.tampered()) };
        };
        let last = checkpoint::check_line(last).map_err(|_| self.tampered())?;
        if last.n == self.signer.n() && last.key == self.signer.public() {
            self.signer.evolve();
            self.save_keys()
        } else if last.n + 1 == self.signer.n() && last.next == self.signer.public() {
            Ok(())
        } else {
            Err(self.tampered())
        }
    }

    /// Follows the lines that stand past the last known head.
    fn catch_up(&mut self) -> Result<(), AuditError> {
        let path = self.layout.index();
        let text = std::fs::read(&path).map_err(open_error(&path))?;
        let from = usize::try_from(self.head.size).unwrap_or(usize::MAX);
        let Some(rest) = text.get(from..) else { return Err(self.tampered()) };
        if from > 0 {
            let last = text[..from].split_inclusive(|b| *b == b'\n').next_back();
            let link = last.map(chain::check_line);
            if !matches!(link, Some(Ok(l)) if l.hash == self.head.hash && l.seq == self.head.seq) {
                return Err(self.tampered());
            }
        }
        for line in rest.split_inclusive(|b| *b == b'\n') {
            if !line.ends_with(b"\n") {
                let (layout, size) = (self.layout, self.head.size);
                std::fs::write(layout.torn(INDEX), line).map_err(open_error(&path))?;
                self.file.truncate(size)?;
            } else if self.head.advance(line).is_err() {
                return Err(self.tampered());
            }
        }
        Ok(())
    }

    fn sign(&mut self) -> Result<(), AuditError> {
        let time = Timestamp::from_system(SystemTime::now());
        let at = Circumstances { time, boot: self.boot, policy: None };
        let line = self.signer.sign(self.head, &at).map_err(io::Error::from)?;
        // Each step is on the disk before the next one speaks of it.
        self.sync(&self.file)?;
        self.checkpoints.append(&line)?;
        self.sync(&self.checkpoints)?;
        self.signer.evolve();
        self.save_keys()
    }

    fn sync(&self, file: &AppendFile) -> io::Result<()> {
        if self.durability == Durability::Power { file.sync() } else { Ok(()) }
    }

    fn save_keys(&self) -> Result<(), AuditError> {
        let path = self.layout.index_key();
        keyfile::save(&path, &self.signer, self.head, self.durability).map_err(open_error(&path))
    }

    fn tampered(&self) -> AuditError {
        AuditError::Tampered { path: self.layout.index() }
    }
}

fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
}

/// For `map_err`: which file it was.
pub(super) fn open_error(path: &Path) -> impl FnOnce(io::Error) -> AuditError + '_ {
    move |source| AuditError::Open { path: path.to_owned(), source }
}

fn patiently(path: &Path) -> Result<AppendFile, AuditError> {
    let start = Instant::now();
    loop {
        match AppendFile::open(path) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other.map_err(open_error(path)),
        }
    }
}

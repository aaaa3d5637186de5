//! What stands behind the mutex of an [`Audit`](super::Audit): the journal, its checkpoints and
//! the counters, and how they are opened and closed together.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::append::AppendFile;
use super::chain::{Hash, Seq};
use super::checkpoint::{Circumstances, Signer};
use super::index::{Entry, Index, Kind, open_error};
use super::journal::{Journal, Sink};
use super::layout::{Layout, is_journal_name};
use super::record::{Draft, Event, Record};
use super::summary::{Counters, Summary};
use super::timestamp::Timestamp;
use super::{AuditError, AuditOptions, Durability};

/// How many sessions of one log are counted by themselves.
const SESSIONS: usize = 4096;

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) journal: Journal,
    pub(super) counters: Counters,
    /// The same for each session that is not the journal's own, until it is asked for and forgotten.
    pub(super) sessions: HashMap<Arc<str>, Counters>,
    closed: bool,
    /// Outcome and other records that could not be written since the last one that could.
    lost: u64,
    /// Absent for a log in memory.
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    layout: Layout,
    name: String,
    boot: String,
    policy: Option<Hash>,
    checkpoints: AppendFile,
    signer: Signer,
    every: u64,
    signed: Seq,
    durability: Durability,
}

impl Writer {
    pub(super) fn in_memory(journal: Journal) -> Self {
        Self {
            journal,
            counters: Counters::default(),
            sessions: HashMap::new(),
            closed: false,
            lost: 0,
            files: None,
        }
    }

    /// Ends what killed writers left, creates the journal and names it in the index, as one step
    /// under the index's lock.
    pub(super) fn open(options: &AuditOptions, layout: &Layout) -> Result<Self, AuditError> {
        let session = &options.session.0;
        if !is_journal_name(session) {
            return Err(AuditError::Name(session.to_string()));
        }
        layout.create().map_err(open_error(layout.root()))?;
        let boot = boot_id();
        let mut index = Index::lock(layout, &boot, options.durability)?;
        index.sweep()?;
        let name = free_name(layout, session);
        let marker = layout.live(&name);
        fs::write(&marker, b"").map_err(open_error(&marker))?;
        let path = layout.journal(&name);
        let file = AppendFile::create(&path).map_err(open_error(&path))?;
        let path = layout.checkpoints(&name);
        let checkpoints = AppendFile::create(&path).map_err(open_error(&path))?;
        let signer = Signer::new(&name);
        if options.durability == Durability::Power {
            layout.sync().map_err(open_error(layout.root()))?;
        }
        index.append(Entry::opened(&name, signer.public()))?;
        drop(index);
        let files = Files {
            layout: layout.clone(),
            name: name.clone(),
            boot,
            policy: options.policy,
            checkpoints,
            signer,
            every: options.checkpoint_every.max(1),
            signed: Seq(0),
            durability: options.durability,
        };
        let journal = Journal::new(&name, Arc::clone(session), Sink::File(file));
        let mut writer = Self::in_memory(journal);
        writer.files = Some(files);
        writer.append(&mut options.opening.clone())?;
        Ok(writer)
    }

    /// Writes one record. An overdue checkpoint comes first: without it there is no record.
    pub(super) fn append(&mut self, draft: &mut Draft) -> Result<Seq, AuditError> {
        if self.closed {
            return Err(AuditError::Closed);
        }
        let written = self.try_append(draft);
        match &written {
            Ok(_) => self.count(&draft.0),
            Err(_) => self.lost += 1,
        }
        Ok(written?)
    }

    fn count(&mut self, record: &Record) {
        self.counters.count(record);
        let known = self.sessions.contains_key(&record.session);
        if record.session != *self.journal.session() && (known || self.sessions.len() < SESSIONS) {
            self.sessions.entry(Arc::clone(&record.session)).or_default().count(record);
        }
    }

    fn try_append(&mut self, draft: &mut Draft) -> io::Result<Seq> {
        self.checkpoint_if_due()?;
        if self.lost > 0 {
            let text = format!("{} records before this one could not be written", self.lost);
            self.journal.append(&mut Draft::note(Event::Admin).message(&text).0)?;
            self.lost = 0;
        }
        let seq = self.journal.append(&mut draft.0)?;
        if let Err(e) = self.checkpoint_if_due() {
            tracing::error!("the audit checkpoint could not be written: {e}");
        }
        Ok(seq)
    }

    fn checkpoint_if_due(&mut self) -> io::Result<()> {
        let due = |f: &Files| self.journal.head().seq.0 >= f.signed.0 + f.every;
        if self.files.as_ref().is_some_and(due) { self.checkpoint() } else { Ok(()) }
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let head = self.journal.head();
        if files.durability == Durability::Power
            && let Some(file) = self.journal.handle()
        {
            // A checkpoint that survives what it covers would accuse the journal.
            file.sync_data()?;
        }
        let time = Timestamp::from_system(SystemTime::now());
        let at = Circumstances { time, boot: &files.boot, policy: files.policy };
        let line = files.signer.sign(head, &at)?;
        files.checkpoints.append(&line)?;
        files.signer.evolve();
        files.signed = head.seq;
        Ok(())
    }

    /// The policy that later checkpoints name.
    pub(super) fn set_policy(&mut self, policy: Hash) {
        if let Some(files) = &mut self.files {
            files.policy = Some(policy);
        }
    }

    /// Writes `last`, the final checkpoint and the end in the index. Later records are refused even
    /// when this fails.
    pub(super) fn close(&mut self, last: &mut Draft) -> Result<(), AuditError> {
        if self.closed {
            return Ok(());
        }
        let written = self.append(last);
        self.closed = true;
        written?;
        self.checkpoint()?;
        let Some(files) = &self.files else { return Ok(()) };
        let mut index = Index::lock(&files.layout, &files.boot, files.durability)?;
        index.append(Entry::ended(Kind::Closed, &files.name, self.journal.head()))?;
        let marker = files.layout.live(&files.name);
        fs::remove_file(&marker).map_err(open_error(&marker))
    }

    /// The last record of a log that nobody closed with one of their own.
    pub(super) fn farewell(&self) -> Draft {
        let s = self.counters.summary();
        let (allowed, refused) = (Summary::total(&s.allowed), Summary::total(&s.refused));
        Draft::note(Event::SessionEnd).message(&format!("{allowed} allowed, {refused} refused"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(e) = self.close(&mut self.farewell()) {
            tracing::error!("the audit log could not be closed: {e}");
        }
    }
}

/// A session may be opened more than once; each time gets a journal of its own.
fn free_name(layout: &Layout, session: &str) -> String {
    let names = std::iter::once(session.to_owned())
        .chain((2_u64..).map(|part| format!("{session}-{part}")));
    let taken = |n: &String| layout.journal(n).exists() || layout.checkpoints(n).exists();
    names.into_iter().find(|n| !taken(n)).unwrap_or_default()
}

/// The kernel's boot id, or `unknown` without /proc.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
}

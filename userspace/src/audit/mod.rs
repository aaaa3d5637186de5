//! Stage 8: write it down, once. An append-only hash-chained journal is the truth; sled is the
//! queryable copy.
//!
//! [`Audit::begin`] commits the decision before the first byte goes upstream and returns a
//! [`Guard`], whose end writes the outcome. If a record cannot be written there is an error, and
//! the caller refuses with `Reason::AuditUnavailable`.
//!
//! Reading order: `record` (what is written), [`chain`] and [`checkpoint`] (why it can be
//! believed), `journal` and `index` (where it stands), [`verify`] (who checks), `query` and
//! `store` (who searches).

mod append;
pub mod chain;
pub mod checkpoint;
mod durable;
mod guard;
mod index;
mod indexer;
mod journal;
mod keyfile;
mod layout;
pub mod line;
pub mod query;
mod record;
mod search;
mod store;
mod summary;
mod timestamp;
pub mod verify;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

pub use chain::Seq;
pub use guard::{Guard, Outcome};
pub use layout::Layout;
pub use record::{Bytes, Destination, Draft, Event, ProcessInfo, Record, RequestInfo, SCHEMA};
pub use search::{Found, search};
pub use summary::{Summary, SummaryRow};
pub use timestamp::Timestamp;

use crate::identify::SessionId;
use durable::GroupCommit;
use indexer::Indexer;
use journal::{Journal, Sink};
use writer::Writer;

/// Why a record could not be written. For the request at hand: `Reason::AuditUnavailable`.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("{}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("a session cannot be called `{0}`: use 1 to 100 of A-Z, a-z, 0-9, `-` and `_`")]
    Name(String),
    #[error(
        "{}: the key that signs the audit index is missing; run `egret audit verify`, then move \
         the log away to start a new one",
        path.display()
    )]
    KeyLost { path: PathBuf },
    #[error(
        "{}: the audit index was changed or cut; run `egret audit verify`, then move the log away \
         to start a new one",
        path.display()
    )]
    Tampered { path: PathBuf },
    #[error("the record could not be written: {0}")]
    Write(#[from] io::Error),
    #[error("the audit log is closed")]
    Closed,
    #[error("the audit log failed earlier and takes no more records")]
    Broken,
}

/// What survives what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A written record survives the death of egret.
    #[default]
    Process,
    /// [`Audit::durable`] waits until it survives a power failure (fdatasync, grouped).
    Power,
}

/// How to open the log.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The state folder; the log lives in `audit/` below it.
    pub dir: PathBuf,
    /// The second place, for signed checkpoints; `checkpoints/` in the state folder if absent.
    pub checkpoints: Option<PathBuf>,
    /// The writer's session: its id names the journal.
    pub session: SessionId,
    pub durability: Durability,
    /// A checkpoint is signed after so many records, and at the end.
    pub checkpoint_every: u64,
    /// SHA-256 of the policy in force, for the checkpoints.
    pub policy: Option<chain::Hash>,
    /// Keep the searchable copy near the journals while the log is open.
    pub store: bool,
    /// The journal's first record.
    pub opening: Draft,
}

impl AuditOptions {
    pub fn new(dir: impl Into<PathBuf>, session: SessionId) -> Self {
        Self {
            dir: dir.into(),
            checkpoints: None,
            session,
            durability: Durability::default(),
            checkpoint_every: 256,
            policy: None,
            store: true,
            opening: Draft::note(Event::SessionStart),
        }
    }
}

/// The audit log, open for writing. Cheap to clone; the last clone closes it.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writer: Mutex<Writer>,
    /// Present where records must survive a power failure.
    commit: Option<GroupCommit>,
    indexer: Mutex<Option<Indexer>>,
}

impl Audit {
    /// Creates the session's journal and writes its first record. Nothing may be allowed before
    /// this succeeded.
    pub fn open(options: &AuditOptions) -> Result<Self, AuditError> {
        let layout = Layout::new(&options.dir, options.checkpoints.as_deref());
        let writer = Writer::open(options, &layout)?;
        let commit = match options.durability {
            Durability::Process => None,
            Durability::Power => writer.journal.handle().map(GroupCommit::new),
        };
        let indexer = Mutex::new(options.store.then(|| Indexer::start(layout)));
        Ok(Self(Arc::new(Inner { writer: Mutex::new(writer), commit, indexer })))
    }

    /// A log that keeps its records in memory: for tests.
    pub fn in_memory() -> Self {
        Self::in_memory_failing_after(u64::MAX)
    }

    /// The same, out of space after `records` records: for tests of what happens then.
    pub fn in_memory_failing_after(records: u64) -> Self {
        let sink = Sink::Memory { lines: Vec::new(), left: records };
        let writer = Writer::in_memory(Journal::new("memory", "memory".into(), sink));
        let (writer, indexer) = (Mutex::new(writer), Mutex::new(None));
        Self(Arc::new(Inner { writer, commit: None, indexer }))
    }

    /// Writes one record. On return it is committed: the death of egret does not lose it.
    pub fn record(&self, mut draft: Draft) -> Result<Seq, AuditError> {
        self.write(&mut draft)
    }

    /// Writes the decision record of a request or connection that may now go on. The guard writes
    /// its outcome.
    pub fn begin(&self, mut draft: Draft) -> Result<Guard, AuditError> {
        draft.0.request.get_or_insert_default();
        let seq = self.write(&mut draft)?;
        Ok(Guard::new(self.clone(), draft, seq))
    }

    /// Waits until the record `seq` survives a power failure, if that was asked for.
    pub async fn durable(&self, seq: Seq) -> Result<(), AuditError> {
        match &self.0.commit {
            None => Ok(()),
            Some(c) => c.wait(seq, || Ok(self.lock()?.journal.head().seq)).await,
        }
    }

    /// Names the policy in force in later checkpoints.
    pub fn set_policy(&self, policy: chain::Hash) -> Result<(), AuditError> {
        self.lock()?.set_policy(policy);
        Ok(())
    }

    /// Ends the log with a `session_end` record: later records are refused. Closing twice is
    /// harmless.
    pub fn close(&self) -> Result<(), AuditError> {
        self.stop_indexer();
        let mut writer = self.lock()?;
        let mut last = writer.farewell();
        writer.close(&mut last)
    }

    /// Ends the log with a last record of the caller's.
    pub fn close_with(&self, mut last: Draft) -> Result<(), AuditError> {
        self.stop_indexer();
        self.lock()?.close(&mut last)
    }

    /// What was allowed and refused so far.
    pub fn summary(&self) -> Summary {
        self.lock().map(|w| w.counters.summary()).unwrap_or_default()
    }

    /// The same for one session, if it is not the only one of this log; afterwards it is forgotten.
    pub fn take_summary(&self, session: &SessionId) -> Summary {
        let taken = self.lock().ok().and_then(|mut w| w.sessions.remove(&session.0));
        taken.map(|counters| counters.summary()).unwrap_or_default()
    }

    /// The records so far of a log in memory; empty for one in files.
    pub fn records(&self) -> Vec<Record> {
        let Ok(writer) = self.lock() else { return Vec::new() };
        let lines = writer.journal.memory().split(|b| *b == b'\n');
        lines.filter_map(|l| serde_json::from_slice(l).ok()).collect()
    }

    fn stop_indexer(&self) {
        let indexer = self.0.indexer.lock().ok().and_then(|mut i| i.take());
        drop(indexer);
    }

    fn write(&self, draft: &mut Draft) -> Result<Seq, AuditError> {
        if let Some(commit) = &self.0.commit {
            commit.check()?;
        }
        self.lock()?.append(draft)
    }

    /// A panic inside the lock leaves a journal of unknown state: nothing is written after that.
    fn lock(&self) -> Result<MutexGuard<'_, Writer>, AuditError> {
        self.0.writer.lock().map_err(|_| AuditError::Broken)
    }
}

#[cfg(test)]
mod tests;

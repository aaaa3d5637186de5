//! The journal: an append-only file of chained lines, and the truth of the audit log.
//!
//! There is **one journal per writer**, not one for the state folder: `egret run` needs no daemon,
//! so many writers may share the folder. A shared file would need a lock and a look at its tail
//! for each record, and a writer that was stopped while it held the lock would stop every other
//! agent. A journal of its own needs neither: a record is a hash and one write(2) under a mutex of
//! this process. The file is locked for as long as its writer lives, so that others can tell a
//! live journal from one that a SIGKILL left behind. What belongs together is held together by the
//! [index](super::index), a chain too: it names each journal when it is opened and its length and
//! head when it is closed, so a journal that is removed, cut or replaced as a whole is found.
//!
//! A journal is never continued by another process. The next start of any egret *seals* what a
//! killed one left: bytes after the last whole line, which were never acknowledged, are moved
//! aside, and the index says so.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use nix::fcntl::Flock;

use super::append::AppendFile;
use super::chain::{self, Head, Seq};
use super::line::to_ascii_json;
use super::record::Record;
use super::timestamp::Timestamp;

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    File(AppendFile),
    /// For tests of other stages: nothing touches a disk. After `left` records every append fails.
    Memory {
        lines: Vec<u8>,
        left: u64,
    },
}

impl Sink {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.append(line),
            Self::Memory { left: 0, .. } => Err(io::ErrorKind::StorageFull.into()),
            Self::Memory { lines, left } => {
                *left -= 1;
                lines.extend_from_slice(line);
                Ok(())
            }
        }
    }
}

/// One journal, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    session: Arc<str>,
    sink: Sink,
    head: Head,
    last: Timestamp,
    line: Vec<u8>,
}

impl Journal {
    /// An empty journal called `name`; records that name no session get `session`.
    pub(super) fn new(name: &str, session: Arc<str>, sink: Sink) -> Self {
        let (head, last) = (Head::start(name), Timestamp::default());
        Self { session, sink, head, last, line: Vec::with_capacity(2048) }
    }

    /// Gives `record` its number, time and place in the chain and writes it. On an error nothing
    /// was written and the number is used again.
    pub(super) fn append(&mut self, record: &mut Record) -> io::Result<Seq> {
        self.append_at(record, Timestamp::from_system(SystemTime::now()))
    }

    pub(super) fn append_at(&mut self, record: &mut Record, now: Timestamp) -> io::Result<Seq> {
        record.seq = Seq(self.head.seq.0 + 1);
        record.time = now;
        record.clock_back_us = self.last.0.checked_sub(now.0).filter(|back| *back > 0);
        record.prev = self.head.hash;
        record.hash = None;
        if record.session.is_empty() {
            record.session = Arc::clone(&self.session);
        }
        if let Some(request) = &mut record.request
            && request.id == Seq(0)
        {
            request.id = record.seq;
        }
        self.line.clear();
        to_ascii_json(record, &mut self.line)?;
        let hash = chain::seal(&mut self.line, 0, record.prev);
        self.sink.append(&self.line)?;
        record.hash = Some(hash);
        self.last = now;
        let size = self.head.size + self.line.len() as u64;
        self.head = Head { seq: record.seq, hash, size };
        Ok(record.seq)
    }

    /// The session of records that name none.
    pub(super) fn session(&self) -> &Arc<str> {
        &self.session
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The file, to be synced outside of the lock; `None` in memory.
    pub(super) fn handle(&self) -> Option<Arc<Flock<File>>> {
        match &self.sink {
            Sink::File(file) => Some(file.handle()),
            Sink::Memory { .. } => None,
        }
    }

    /// The lines so far; empty for a file.
    pub(super) fn memory(&self) -> &[u8] {
        match &self.sink {
            Sink::File(_) => &[],
            Sink::Memory { lines, .. } => lines,
        }
    }
}

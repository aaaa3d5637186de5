//! The searchable copy of the log, and the only file that uses sled. It holds the records and
//! indexes by time, agent, host, decision and session; the journals are the truth.
//!
//! sled 0.34 hides damage, so it is believed only as far as it can be checked: every batch carries
//! how many keys there must be, all keys are counted when the store is opened, and every record
//! that comes out must match its own hash. On any doubt, an error or a panic inside sled among
//! them, the store is deleted and rebuilt. Its directory can be used by one process at a time, so
//! a lock of our own stands before it; who does not get it reads the journals instead.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};
use sled::{Batch, Db};

use super::append::AppendFile;
use super::layout::Layout;
use super::query::{Filter, Line, Position, Reader, parse};
use super::record::Record;
use super::timestamp::Timestamp;

/// Changed when keys or values change; another number means: rebuild.
const FORMAT: u8 = 1;
/// Records per batch.
const BATCH: usize = 500;
/// sled's page cache, in bytes: the journals are in the system's cache already.
const CACHE: u64 = 8 << 20;

/// Why the store is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not hold what it must: {0}")]
    Doubt(&'static str),
    #[error("sled panicked")]
    Panic,
}

/// The open store.
#[derive(Debug)]
pub(super) struct Store {
    db: Db,
    layout: Layout,
    /// Held as long as `db` is open, and dropped after it.
    _lock: AppendFile,
}

/// What the store has taken from one journal. Written in the same batch as the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    id: u32,
    offset: u64,
    order: Timestamp,
    records: u64,
    entries: u64,
    damaged: u64,
}

impl Store {
    /// `None` when another process has it. A store that cannot be believed starts empty.
    pub(super) fn open(layout: &Layout) -> Result<Option<Self>, StoreError> {
        let lock = match AppendFile::open(&layout.store().with_extension("lock")) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let store = Self::open_db(layout).and_then(|db| {
            guarded(|| believe(&db, layout))?;
            Ok(db)
        });
        let db = match store {
            Ok(db) => db,
            Err(why) => {
                tracing::warn!("the audit store is rebuilt from the journals: {why}");
                Self::remove(layout)?;
                Self::open_db(layout)?
            }
        };
        Ok(Some(Self { db, layout: layout.clone(), _lock: lock }))
    }

    fn open_db(layout: &Layout) -> Result<Db, StoreError> {
        guarded(|| {
            let config = sled::Config::new().path(layout.store()).cache_capacity(CACHE);
            // Flushed by us after each round, not on a timer of sled's.
            let db = config.flush_every_ms(None).open()?;
            if db.is_empty() {
                db.insert(b"f", &[FORMAT])?;
            }
            Ok(db)
        })
    }

    fn remove(layout: &Layout) -> io::Result<()> {
        let path = layout.store();
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&path),
            other => other,
        }
    }

    /// Takes what was added to the journals. Stops early, between batches, when `stop` says so.
    pub(super) fn catch_up(&self, stop: impl Fn() -> bool) -> Result<(), StoreError> {
        guarded(|| {
            for name in self.layout.journal_names()? {
                self.take(&name, &stop)?;
                if stop() {
                    break;
                }
            }
            self.db.flush()?;
            Ok(())
        })
    }

    fn take(&self, name: &str, stop: &impl Fn() -> bool) -> Result<(), StoreError> {
        let mut taken = match self.db.get(meta_key(name))? {
            Some(bytes) => read_taken(&bytes)?,
            None => Taken { id: self.next_id()?, ..Taken::default() },
        };
        loop {
            let mut reader = Reader::new(&self.layout);
            reader.resume(name, Position { offset: taken.offset, order: taken.order });
            let mut batch = Batch::default();
            let mut count = 0;
            let more = reader.read_some(name, BATCH, |line| {
                count += 1;
                taken.records += 1;
                taken.entries += put(&mut batch, taken.id, &line);
            })?;
            if count == 0 && reader.damaged == 0 {
                return Ok(());
            }
            let at = reader.position(name);
            (taken.offset, taken.order) = (at.offset, at.order);
            taken.damaged += reader.damaged;
            let meta = serde_json::to_vec(&taken).map_err(io::Error::from)?;
            batch.insert(meta_key(name), meta);
            self.db.apply_batch(batch)?;
            if !more || stop() {
                return Ok(());
            }
        }
    }

    fn next_id(&self) -> Result<u32, StoreError> {
        u32::try_from(self.db.scan_prefix(b"m").count())
            .map_err(|_| StoreError::Doubt("too many journals"))
    }

    /// The records that match, in the order of time, and how many damaged lines were seen.
    pub(super) fn select(&self, filter: &Filter) -> Result<(Vec<Line>, u64), StoreError> {
        guarded(|| {
            let mut damaged = 0;
            let mut names = std::collections::HashMap::new();
            for item in self.db.scan_prefix(b"m") {
                let (key, value) = item?;
                let taken = read_taken(&value)?;
                damaged += taken.damaged;
                names.insert(taken.id, String::from_utf8_lossy(&key[1..]).into_owned());
            }
            let prefix = best_index(filter);
            let keep = filter.last.unwrap_or(usize::MAX);
            let since = filter.since.unwrap_or_default().0.to_be_bytes();
            let mut from = prefix.clone();
            from.extend_from_slice(&since);
            let mut to = prefix.clone();
            to.extend_from_slice(&[0xff; 21]);
            let mut found = Vec::new();
            for item in self.db.range(from..to).rev() {
                if found.len() >= keep {
                    break;
                }
                let key = item?.0;
                let place = key.get(prefix.len() + 8..).filter(|p| p.len() == 12);
                let place = place.ok_or(StoreError::Doubt("an index key is too short"))?;
                let line = self.line(place, &names)?;
                if filter.matches(&line.record) {
                    found.push(line);
                }
            }
            found.reverse();
            Ok((found, damaged))
        })
    }

    fn line(
        &self,
        place: &[u8],
        names: &std::collections::HashMap<u32, String>,
    ) -> Result<Line, StoreError> {
        let id = place[..4].try_into().map_or(0, u32::from_be_bytes);
        let value = self.db.get([b"r", place].concat())?;
        let value = value.ok_or(StoreError::Doubt("a record is missing"))?;
        let (order, raw) = value.split_at_checked(8).ok_or(StoreError::Doubt("a short record"))?;
        let (text, record) = parse(raw).ok_or(StoreError::Doubt("a record does not match"))?;
        let journal = names.get(&id).ok_or(StoreError::Doubt("a journal is missing"))?.clone();
        let order = Timestamp(order.try_into().map_or(0, u64::from_be_bytes));
        Ok(Line { journal, text, record, order })
    }
}

/// Counts all keys against what the batches said there must be.
fn believe(db: &Db, layout: &Layout) -> Result<(), StoreError> {
    if db.get(b"f")?.as_deref() != Some(&[FORMAT]) {
        return Err(StoreError::Doubt("another format"));
    }
    let (mut records, mut entries, mut journals) = (0, 0, 0);
    for item in db.scan_prefix(b"m") {
        let (key, value) = item?;
        let taken = read_taken(&value)?;
        let name = String::from_utf8_lossy(&key[1..]).into_owned();
        let len = fs::metadata(layout.journal(&name)).map_or(0, |m| m.len());
        if len < taken.offset {
            return Err(StoreError::Doubt("a journal is shorter than what was taken from it"));
        }
        records += taken.records;
        entries += taken.entries;
        journals += 1;
    }
    let mut have = [0_u64; 256];
    for key in db.iter().keys() {
        have[usize::from(*key?.first().unwrap_or(&0))] += 1;
    }
    let indexes: u64 = b"tahds".iter().map(|k| have[usize::from(*k)]).sum();
    let (r, m) = (have[usize::from(b'r')], have[usize::from(b'm')]);
    if (r, indexes, m) != (records, entries, journals) {
        return Err(StoreError::Doubt("keys are missing"));
    }
    Ok(())
}

/// Puts a record and its index entries into `batch`; returns the number of entries.
fn put(batch: &mut Batch, journal: u32, line: &Line) -> u64 {
    let place = [&journal.to_be_bytes()[..], &line.record.seq.0.to_be_bytes()].concat();
    let order = line.order.0.to_be_bytes();
    let value = [&order[..], line.text.as_bytes(), b"\n"].concat();
    batch.insert([b"r", &place[..]].concat(), value);
    let keys = index_keys(&line.record);
    for key in &keys {
        batch.insert([key, &order[..], &place].concat(), b"");
    }
    keys.len() as u64
}

/// The prefixes under which a record is found, each once.
fn index_keys(r: &Record) -> Vec<Vec<u8>> {
    let mut keys =
        vec![b"t".to_vec(), index_key(b'd', r.decision.as_str()), index_key(b's', &r.session)];
    keys.extend(r.agent.iter().map(|name| index_key(b'a', name)));
    keys.extend(r.host().map(|h| index_key(b'h', &h.to_ascii_lowercase())));
    keys.sort();
    keys.dedup();
    keys
}

/// The index with the fewest records for `filter`, as far as one can know.
fn best_index(filter: &Filter) -> Vec<u8> {
    let host = filter.host.as_deref().filter(|h| !h.starts_with("*."));
    if let Some(session) = &filter.session {
        index_key(b's', session)
    } else if let Some(host) = host {
        index_key(b'h', &host.to_ascii_lowercase())
    } else if let Some(agent) = &filter.agent {
        index_key(b'a', agent)
    } else if let Some(decision) = filter.decision {
        index_key(b'd', decision.as_str())
    } else {
        b"t".to_vec()
    }
}

/// Kind, length, text: no text is the prefix of another.
fn index_key(kind: u8, text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind], &len[..], text.as_bytes()].concat()
}

fn meta_key(name: &str) -> Vec<u8> {
    [b"m", name.as_bytes()].concat()
}

fn read_taken(bytes: &[u8]) -> Result<Taken, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Doubt("an unreadable position"))
}

/// sled panics on some kinds of damage; that is doubt like any other.
fn guarded<T>(f: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(StoreError::Panic))
}

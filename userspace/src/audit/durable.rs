//! Group commit: whoever waits for a record to survive a power failure shares one fdatasync(2)
//! with everyone else who was waiting by then.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::fcntl::Flock;
use tokio::sync::Mutex;

use super::AuditError;
use super::chain::Seq;

#[derive(Debug)]
pub(super) struct GroupCommit {
    file: Arc<Flock<File>>,
    /// Every record up to this one is on the disk.
    synced: AtomicU64,
    /// After a failed fdatasync the kernel may have dropped the pages: nothing can be promised.
    failed: AtomicBool,
    turn: Mutex<()>,
}

impl GroupCommit {
    pub(super) fn new(file: Arc<Flock<File>>) -> Self {
        let (synced, failed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { file, synced, failed, turn: Mutex::new(()) }
    }

    /// Completes when `seq` is on the disk. `written` gives the last record written so far.
    pub(super) async fn wait(
        &self,
        seq: Seq,
        written: impl FnOnce() -> Result<Seq, AuditError>,
    ) -> Result<(), AuditError> {
        if self.is_synced(seq) {
            return self.check();
        }
        let _turn = self.turn.lock().await;
        self.check()?;
        if self.is_synced(seq) {
            return Ok(());
        }
        let covered = written()?;
        let file = Arc::clone(&self.file);
        let result = tokio::task::spawn_blocking(move || file.sync_data()).await;
        match result.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(()) => {
                self.synced.fetch_max(covered.0, Ordering::Release);
                Ok(())
            }
            Err(e) => {
                self.failed.store(true, Ordering::Release);
                Err(e.into())
            }
        }
    }

    /// Refuses once a sync has failed.
    pub(super) fn check(&self) -> Result<(), AuditError> {
        if self.failed.load(Ordering::Acquire) { Err(AuditError::Broken) } else { Ok(()) }
    }

    fn is_synced(&self, seq: Seq) -> bool {
        self.synced.load(Ordering::Acquire) >= seq.0
    }
}

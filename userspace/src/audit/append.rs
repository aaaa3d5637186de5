//! A file that only grows by whole lines. One write(2) per line; what a full disk, a limit or an
//! I/O error cut short is truncated away again, so the file always ends after a line that was
//! acknowledged. When even that fails the file is given up and every later append is refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

/// An exclusively locked file (flock(2), released when it is closed or the process dies), opened
/// with O_APPEND, mode 0600.
#[derive(Debug)]
pub(super) struct AppendFile {
    file: Arc<Flock<File>>,
    len: u64,
    broken: bool,
}

impl AppendFile {
    /// Creates a file that must not exist yet.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        // Nobody else writes to a file that did not exist; a verifier may be trying its lock.
        Self::lock(options().create_new(true).open(path)?, FlockArg::LockExclusive)
    }

    /// Opens or creates. `WouldBlock` when another process has it open.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::lock(options().create(true).open(path)?, FlockArg::LockExclusiveNonblock)
    }

    fn lock(file: File, how: FlockArg) -> io::Result<Self> {
        let file = Flock::lock(file, how).map_err(|(_, e)| e)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len, broken: false })
    }

    /// Appends all of `line` or nothing.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed and could not be undone"));
        }
        let result = (&**self.file).write_all(line);
        if let Err(e) = result {
            // Even a write that reported failure may have left bytes behind.
            self.broken = self.truncate(self.len).is_err();
            return Err(e);
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// Cuts the file to `len` bytes.
    pub(super) fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        if self.file.metadata()?.len() != len {
            return Err(io::Error::other("the file is not as long as it was made"));
        }
        self.len = len;
        Ok(())
    }

    /// Waits until what was appended survives a power failure.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// A handle for fdatasync(2) outside of the writer's lock.
    pub(super) fn handle(&self) -> Arc<Flock<File>> {
        Arc::clone(&self.file)
    }
}

fn options() -> OpenOptions {
    let mut o = OpenOptions::new();
    o.read(true).append(true).mode(0o600);
    o
}

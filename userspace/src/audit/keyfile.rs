//! The index's key file: the two private keys in turn and how far the index was when they were
//! saved. Mode 0600, replaced as a whole, so a kill leaves the old one or the new one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::Durability;
use super::chain::{Hash, Head, Seq};
use super::checkpoint::Signer;
use super::layout::INDEX;

#[derive(Serialize, Deserialize)]
struct KeyFile {
    n: u64,
    key: String,
    next: String,
    seq: Seq,
    size: u64,
    head: Hash,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.key.zeroize();
        self.next.zeroize();
    }
}

/// `None` when there is no file. A file that others may read is refused.
pub(super) fn load(path: &Path) -> io::Result<Option<(Signer, Head)>> {
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other("it must be a plain file of mode 0600"));
    }
    let text = Zeroizing::new(fs::read(path)?);
    let damaged = || io::Error::other("the key file is damaged");
    let k: KeyFile = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let signer = Signer::restore(INDEX, k.n, &k.key, &k.next).ok_or_else(damaged)?;
    Ok(Some((signer, Head { seq: k.seq, hash: k.head, size: k.size })))
}

/// Replaces the file.
pub(super) fn save(
    path: &Path,
    signer: &Signer,
    head: Head,
    durability: Durability,
) -> io::Result<()> {
    let (n, key, next) = signer.keys();
    let (seq, size) = (head.seq, head.size);
    let file =
        KeyFile { n, key: key.to_string(), next: next.to_string(), seq, size, head: head.hash };
    let text = Zeroizing::new(serde_json::to_vec(&file)?);
    let temp = path.with_extension("key.new");
    let mut out =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    out.write_all(&text)?;
    if durability == Durability::Power {
        out.sync_all()?;
    }
    drop(out);
    fs::rename(&temp, path)
}

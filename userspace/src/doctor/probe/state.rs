//! The state folder. It is only looked at: nothing is made or changed there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::geteuid;

use super::super::facts::{Folder, Log, NotSeen, Seen, Space, State};
use super::not_seen;
use crate::audit::Layout;
use crate::audit::verify::verify;

/// A log of this size is verified in about a second.
const QUICK: u64 = 64 << 20;

pub(super) fn probe(path: &Path) -> State {
    State { path: path.to_owned(), folder: folder(path), space: space(path), audit: audit(path) }
}

fn folder(path: &Path) -> Seen<Option<Folder>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(not_seen(&e, path)),
        Ok(meta) => Ok(Some(Folder {
            is_dir: meta.is_dir(),
            owner: meta.uid(),
            expected: geteuid().as_raw(),
            mode: meta.mode() & 0o7777,
        })),
    }
}

/// The room where the folder is, or would be.
fn space(path: &Path) -> Seen<Space> {
    let there = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let found = statvfs(there).map_err(|e| not_seen(&e.into(), there))?;
    Ok(Space {
        bytes: found.blocks_available().saturating_mul(found.fragment_size()),
        inodes: Some(found.files_available()).filter(|_| found.files() > 0),
        read_only: found.flags().contains(FsFlags::ST_RDONLY),
    })
}

fn audit(state: &Path) -> Seen<Log> {
    let journals = state.join("audit/journals");
    let entries = match fs::read_dir(&journals) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Log::None),
        Err(e) => return Err(not_seen(&e, &journals)),
        Ok(entries) => entries,
    };
    let sizes = entries.flatten().filter_map(|e| e.metadata().ok());
    let bytes: u64 = sizes.map(|m| m.len()).sum();
    if bytes > QUICK {
        return Ok(Log::Large(bytes));
    }
    // A file that this user may not read is no flaw of the log.
    let index = state.join("audit/index.jsonl");
    match fs::File::open(&index) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(NotSeen::NeedsRoot),
        _ => {}
    }
    let report = verify(&Layout::new(state, None), None);
    let first = report.findings.iter().max_by_key(|f| f.condition);
    Ok(Log::Verified {
        condition: report.condition(),
        records: report.records,
        journals: report.journals,
        first: first.map(|f| format!("{}: {}", f.journal, f.what)),
    })
}

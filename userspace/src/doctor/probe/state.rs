//! The state folder. It is only looked at: nothing is made or changed there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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
            exposed: exposed(path),
        })),
    }
}

/// The nearest folder above that belongs to somebody else than root or this user, or that others
/// may write and that is not sticky.
fn exposed(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let me = geteuid().as_raw();
    let open = |above: &&Path| {
        fs::metadata(above).is_ok_and(|m| {
            let others = m.mode() & 0o022 != 0 && m.mode() & 0o1000 == 0;
            others || (m.uid() != 0 && m.uid() != me)
        })
    };
    path.ancestors().skip(1).find(open).map(Path::to_owned)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_replace_is_exposed() {
        let dir = tempfile::tempdir().unwrap();
        let above = fs::canonicalize(dir.path()).unwrap();
        let state = above.join("a/state");
        fs::create_dir_all(&state).unwrap();
        for (mode, found) in [(0o700, None), (0o755, None), (0o1777, None), (0o777, Some(&above))] {
            fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(exposed(&state).as_ref(), found, "{mode:o}");
        }
    }

    #[test]
    fn an_absent_folder_has_the_room_of_what_is_above() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("not/there");
        let found = probe(&absent);
        assert_eq!((found.folder, found.audit), (Ok(None), Ok(Log::None)));
        assert!(found.space.is_ok_and(|s| s.bytes > 0));
        assert!(!absent.exists());
    }
}

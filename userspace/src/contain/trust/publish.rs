//! The same files in a folder that everybody may read, for agents that egret is attached to: they
//! keep the file system they have.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::{BUNDLE, CA, HASHED_DIR, STORE};
use crate::contain::plan::TrustFiles;

/// Writes `bundle.pem`, `ca.pem`, `bundle.p12` and `certs/HASH.0` below `dir` (0755, each file
/// 0644). A reader sees the old file or the new one. A file that is right already is left alone:
/// units have it mounted, and a mount stays with the file that it was made of.
///
/// # Errors
/// Of the file system, with the path that it is about.
pub fn publish(dir: &Path, files: &TrustFiles) -> io::Result<()> {
    let hashed = dir.join(HASHED_DIR);
    for folder in [dir, &hashed] {
        make_folder(folder).map_err(|e| about(folder, &e))?;
    }
    let entry = hashed.join(format!("{}.0", files.subject_hash));
    let all: [(&Path, &[u8]); 4] = [
        (&dir.join(BUNDLE), files.bundle_pem.as_bytes()),
        (&dir.join(CA), files.session_pem.as_bytes()),
        (&dir.join(STORE), &files.pkcs12),
        (&entry, files.session_pem.as_bytes()),
    ];
    for (path, bytes) in all {
        place(path, bytes).map_err(|e| about(path, &e))?;
    }
    forget_others(&hashed, &entry).map_err(|e| about(&hashed, &e))
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755)) // whatever the umask is
}

fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let is_right = fs::symlink_metadata(path)
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o7777 == 0o644)
        && fs::read(path).is_ok_and(|found| found == bytes);
    if is_right {
        return Ok(());
    }
    let name = path.file_name().unwrap_or(OsStr::new("file")).to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let _ = fs::remove_file(&new); // of one that was killed
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    drop(file);
    fs::rename(&new, path)
}

/// Authorities from before a rotation.
fn forget_others(folder: &Path, kept: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path != kept {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::contain::trust::files;
    use crate::tls::authority::Authority;

    fn trust(name: &str) -> TrustFiles {
        files("", &Authority::generate(name).unwrap().pem()).unwrap()
    }

    #[test]
    fn everybody_can_read_what_is_published() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("egret/trust");
        let first = trust("one");
        publish(&dir, &first).unwrap();
        let hashed = dir.join(HASHED_DIR).join(format!("{}.0", first.subject_hash));
        for (path, wanted) in [
            (dir.join(BUNDLE), first.bundle_pem.as_bytes()),
            (dir.join(CA), first.session_pem.as_bytes()),
            (dir.join(STORE), &first.pkcs12),
            (hashed.clone(), first.session_pem.as_bytes()),
        ] {
            assert_eq!(fs::read(&path).unwrap(), wanted, "{path:?}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644, "{path:?}");
        }
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o755);

        // The same again changes no file, and another authority replaces all of them.
        let inode = |name: &str| fs::metadata(dir.join(name)).unwrap().ino();
        let before = (inode(BUNDLE), inode(CA), inode(STORE));
        publish(&dir, &first).unwrap();
        assert_eq!((inode(BUNDLE), inode(CA), inode(STORE)), before);
        let second = trust("two");
        publish(&dir, &second).unwrap();
        assert_ne!(inode(CA), before.1);
        assert_eq!(fs::read(dir.join(CA)).unwrap(), second.session_pem.as_bytes());
        assert!(!hashed.exists() || first.subject_hash == second.subject_hash);
        let left = |folder: &Path| fs::read_dir(folder).unwrap().count();
        assert_eq!((left(&dir), left(&dir.join(HASHED_DIR))), (4, 1));
    }

    #[test]
    fn what_is_in_the_way_is_replaced_or_named() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("trust");
        publish(&dir, &trust("one")).unwrap();
        fs::set_permissions(dir.join(CA), Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(dir.join(BUNDLE)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join(BUNDLE)).unwrap();
        fs::write(dir.join(".ca.pem.new"), "left by one that was killed").unwrap();
        publish(&dir, &trust("two")).unwrap();
        assert!(fs::symlink_metadata(dir.join(BUNDLE)).unwrap().is_file());
        assert_eq!(fs::metadata(dir.join(CA)).unwrap().mode() & 0o7777, 0o644);

        let taken = state.path().join("taken");
        fs::write(&taken, "").unwrap();
        let error = publish(&taken, &trust("three")).unwrap_err().to_string();
        assert!(error.contains(&taken.display().to_string()), "{error}");
    }
}

//! `file:PATH`: a file that only root or the operator can read.
//!
//! Owner and mode are those of the file that was opened (`fstat`), so nothing can be swapped in
//! between. A symbolic link is followed: what it leads to must pass the same checks. A file with a
//! second name (a hard link) is refused: an agent of the same user could read it there.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{MAX_SECRET, Operator, Raw, SecretProblem};

/// Reads the file; one trailing line break is not part of the secret.
pub(super) fn read(path: &Path, operator: &Operator) -> Result<Raw, SecretProblem> {
    let failed = |source| SecretProblem::FileOpen { path: path.into(), source };
    let file = OpenOptions::new()
        .read(true)
        // A FIFO must not hang us, a terminal must not become ours.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(SecretProblem::FileKind(path.into()));
    }
    let (mode, owner) = (meta.mode() & 0o7777, meta.uid());
    if mode & !0o600 != 0 {
        return Err(SecretProblem::FileMode { path: path.into(), mode });
    }
    if owner != 0 && owner != operator.uid() {
        let operator = operator.uid();
        return Err(SecretProblem::FileOwner { path: path.into(), owner, operator });
    }
    if meta.nlink() > 1 {
        return Err(SecretProblem::FileLinks { path: path.into(), links: meta.nlink() });
    }
    // Two more than the limit: the line break and one byte that proves it too long. Reserved at
    // once, because a vector that grows leaves copies behind.
    let mut bytes = Raw::new(Vec::with_capacity(MAX_SECRET + 3));
    file.take(MAX_SECRET as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(|source| SecretProblem::FileRead { path: path.into(), source })?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::check;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    fn me() -> Operator {
        Operator::new(nix::unistd::geteuid().as_raw(), |_| None)
    }

    fn write(dir: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn mode_decides() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, ok) in [
            (0o600, true),
            (0o400, true),
            (0o644, false),
            (0o640, false),
            (0o604, false),
            (0o620, false),
            (0o700, false),
            (0o4600, false),
        ] {
            let path = write(dir.path(), "s", b"correct horse\n", mode);
            match read(&path, &me()) {
                Ok(raw) => assert!(ok && &**raw == b"correct horse", "{mode:o}"),
                Err(e) => {
                    assert!(!ok, "{mode:o}: {e}");
                    let text = e.to_string();
                    assert!(text.contains(&format!("{mode:04o}")), "{text}");
                    assert!(text.contains("chmod 600"), "{text}");
                }
            }
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn owner_decides() {
        if !nix::unistd::geteuid().is_root() {
            return; // only root can give a file away
        }
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "s", b"correct horse", 0o600);
        let operator = Operator::new(1234, |_| None);
        assert!(read(&path, &operator).is_ok(), "root's own file is accepted");
        chown(&path, Some(1234), None).unwrap();
        assert!(read(&path, &operator).is_ok(), "the operator's file is accepted");
        chown(&path, Some(4321), None).unwrap();
        let e = read(&path, &operator).unwrap_err().to_string();
        assert!(e.contains("belongs to uid 4321"), "{e}");
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let good = write(dir.path(), "good", b"correct horse", 0o600);
        let bad = write(dir.path(), "bad", b"correct horse", 0o644);
        for (target, ok) in [(good, true), (bad, false)] {
            let link = dir.path().join("link");
            symlink(&target, &link).unwrap();
            assert_eq!(read(&link, &me()).is_ok(), ok, "{}", target.display());
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_second_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "s", b"correct horse", 0o600);
        assert!(read(&path, &me()).is_ok());
        fs::hard_link(&path, dir.path().join("second")).unwrap();
        let e = read(&path, &me()).unwrap_err().to_string();
        assert!(e.contains("2 names"), "{e}");
    }

    #[test]
    fn only_regular_files_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let e = read(&dir.path().join("none"), &me()).unwrap_err();
        assert!(matches!(e, SecretProblem::FileOpen { .. }), "{e}");
        let e = read(dir.path(), &me()).unwrap_err();
        assert!(matches!(e, SecretProblem::FileKind(_)), "{e}");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let e = read(&fifo, &me()).unwrap_err();
        assert!(matches!(e, SecretProblem::FileKind(_)), "{e}");
    }

    #[test]
    fn content_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let huge = vec![b'x'; MAX_SECRET + 1];
        let fits = [&huge[1..], b"\r\n"].concat();
        for (text, ok) in [
            (&b"correct horse"[..], true),
            (b"correct horse\n", true),
            (b"correct horse\r\n", true),
            (&fits, true),
            (b"correct horse\n\n", false),
            (b"correct\nhorse\n", false),
            (b"correct\0horse", false),
            (b"\n", false),
            (b"", false),
            (&huge, false),
        ] {
            let path = write(dir.path(), "s", text, 0o600);
            let got = read(&path, &me()).and_then(|raw| check(&raw));
            assert_eq!(got.is_ok(), ok, "{} bytes: {got:?}", text.len());
            fs::remove_file(&path).unwrap();
        }
    }
}

//! The names of an agent, written down as they get their addresses. An address that an agent
//! remembers means the same name to the interceptor that comes after this one; without that it
//! could come to mean another name, and bytes go to a host that they are not for.
//!
//! One file for each agent, named by its session; one line for each name, in the order of their
//! addresses: `a` (some rule could allow it) or `u`, a space, the name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::dns::{Names, Standing};
use crate::identify::SessionId;
use crate::policy::HostName;

/// Opens the names of a session, or begins them.
///
/// # Errors
/// When the file cannot be read, or a line that was never finished not be cut off.
pub(crate) fn open(folder: &Path, session: &SessionId) -> io::Result<Names> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(&*session.0);
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).append(true).mode(0o600).open(&path)?;
    let text = fs::read(&path)?;
    let (found, mut length) = parse(&text);
    file.set_len(length)?;
    let keep = move |name: &HostName, standing| {
        let line = line(name, standing);
        let written = append(&mut file, &line, length);
        length += if written.is_ok() { line.len() as u64 } else { 0 };
        written.is_ok()
    };
    Ok(Names::kept(found, Box::new(keep)))
}

/// Forgets the names of a session that is over.
pub(crate) fn forget(folder: &Path, session: &SessionId) {
    let _ = fs::remove_file(folder.join(&*session.0)); // perhaps it never had any
}

/// All of a line, or nothing; after a failure that cannot be undone, never anything again: what
/// follows a half line would be cut off with it.
fn append(file: &mut File, line: &str, length: u64) -> io::Result<()> {
    if file.metadata()?.len() != length {
        return Err(io::Error::other("an earlier line is there in part"));
    }
    file.write_all(line.as_bytes()).inspect_err(|_| {
        let _ = file.set_len(length);
    })
}

fn line(name: &HostName, standing: Standing) -> String {
    let mark = match standing {
        Standing::Allowed => 'a',
        Standing::Unmatched => 'u',
    };
    format!("{mark} {name}\n")
}

/// The names up to the first line that is none, and how many bytes they are.
fn parse(text: &[u8]) -> (Vec<(HostName, Standing)>, u64) {
    let mut found = Vec::new();
    let mut length = 0;
    for bytes in text.split_inclusive(|b| *b == b'\n') {
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| {
            let (mark, name) = text.strip_suffix('\n')?.split_once(' ')?;
            let standing = match mark {
                "a" => Standing::Allowed,
                "u" => Standing::Unmatched,
                _ => return None,
            };
            Some((HostName::parse(name).ok()?, standing))
        });
        let Some(name) = parsed else { break };
        found.push(name);
        length += bytes.len() as u64;
    }
    (found, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_up_to_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let session = SessionId("0123".into());
        let name = |text: &str| HostName::parse(text).unwrap();
        let names = open(folder.path(), &session).unwrap();
        let a = names.assign(&name("a.test"), Standing::Allowed).unwrap();
        let b = names.assign(&name("b.test"), Standing::Unmatched).unwrap();
        drop(names);
        let path = folder.path().join("0123");
        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(whole, "a a.test\nu b.test\n");
        for torn in ["a c.te", "x c.test\n", "a \n", "\u{fffd}"] {
            fs::write(&path, format!("{whole}{torn}")).unwrap();
            let names = open(folder.path(), &session).unwrap();
            assert_eq!(names.len(), 2, "{torn:?}");
            assert_eq!(
                (names.pair_of(&name("a.test")), names.name_of(b.v4.into())),
                (Some(a), Some(name("b.test")))
            );
            names.assign(&name("c.test"), Standing::Allowed).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{whole}a c.test\n"));
        }
        forget(folder.path(), &session);
        assert!(open(folder.path(), &session).unwrap().is_empty());
    }
}

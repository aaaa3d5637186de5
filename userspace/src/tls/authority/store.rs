//! The authority that the daemon keeps below its state folder, so that what agents were given to
//! trust is still right after a restart.
//!
//! ```text
//! ca/ca.key        the key, 0600, of whoever runs the daemon
//! ca/ca.pem        the certificate, 0644
//! ca.DATE/         a pair that `egret ca rotate` replaced
//! ```
//!
//! Both files appear at once, because the folder is made beside and renamed. What is there is used
//! or refused, and never replaced but by [`rotate`]: a new key would break every agent that trusts
//! the old one, and a key that others could read must not be used in silence.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::unistd::{getegid, geteuid};
use time::macros::format_description;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::{Authority, AuthorityError, PemPair};

/// Names inside the folder.
pub const KEY: &str = "ca.key";
pub const CERTIFICATE: &str = "ca.pem";

/// How long a kept authority is valid: five years.
const LIFETIME: Duration = Duration::days(5 * 365);

/// Neither file is larger.
const MAX_FILE: u64 = 64 << 10;

/// Why the kept authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not a plain {1}", path = .0.display())]
    Kind(PathBuf, &'static str),
    #[error(
        "{path} belongs to uid {owner}, who can replace it; it must belong to uid {expected}",
        path = .path.display()
    )]
    Owner { path: PathBuf, owner: u32, expected: u32 },
    #[error(
        "{path} has mode {mode:04o}: others may have {done} it; make a new authority with `egret ca \
         rotate`, or, if you know that nobody did, `chmod {right:04o} {path}`", path = .path.display()
    )]
    Mode { path: PathBuf, mode: u32, right: u32, done: &'static str },
    #[error(
        "{there} is there and {missing} is not; put it back from a copy, or make a new authority \
         with `egret ca rotate`", there = .there.display(), missing = .missing.display()
    )]
    Half { there: PathBuf, missing: PathBuf },
    #[error(
        "{dir}: {source}; put the pair back from a copy, or make a new one with `egret ca rotate`",
        dir = .dir.display()
    )]
    Pair { dir: PathBuf, source: AuthorityError },
}

/// A new authority in the place of another.
#[derive(Debug)]
pub struct Rotated {
    pub authority: Authority,
    /// Where the pair from before is now, if there was one.
    pub kept: Option<PathBuf>,
}

impl Authority {
    /// The authority kept in the folder `dir` (`<state>/ca`), made when there is none.
    ///
    /// # Errors
    /// When what is there cannot be used; it is left as it is.
    pub fn load_or_create(dir: &Path) -> Result<Self, StoreError> {
        let _one = lock(dir)?;
        match load(dir)? {
            Some(authority) => Ok(authority),
            None => create(dir),
        }
    }

    /// The authority kept in the folder `dir`, or nothing when there is none.
    ///
    /// # Errors
    /// As [`Self::load_or_create`].
    pub fn load(dir: &Path) -> Result<Option<Self>, StoreError> {
        load(dir)
    }
}

/// The certificate alone, which everybody may read; nothing when there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn certificate(dir: &Path) -> Result<Option<String>, StoreError> {
    let path = dir.join(CERTIFICATE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_at(&path)(e)),
    }
}

/// Makes a new authority; the folder of the old one is kept beside under a name with the date.
/// What the old one was like does not matter, so this is also the way out of every error above.
///
/// # Errors
/// When the new one cannot be written; the old one is then still in place.
pub fn rotate(dir: &Path) -> Result<Rotated, StoreError> {
    let _one = lock(dir)?;
    if fs::symlink_metadata(dir).is_err() {
        return Ok(Rotated { authority: create(dir)?, kept: None });
    }
    let kept = aside(dir)?;
    let authority = write_new(&kept)?;
    // The names change places at once: there is no moment without a pair.
    renameat2(AT_FDCWD, &kept, AT_FDCWD, dir, RenameFlags::RENAME_EXCHANGE)
        .map_err(|e| io_at(dir)(e.into()))?;
    sync(&parent(dir))?;
    // The old key signs nothing any more; whoever could read it no longer can.
    let _ = fs::set_permissions(&kept, Permissions::from_mode(0o700));
    Ok(Rotated { authority, kept: Some(kept) })
}

fn create(dir: &Path) -> Result<Authority, StoreError> {
    let new = dir.with_extension("new");
    match fs::remove_dir_all(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_at(&new)(e)),
        _ => {} // what a killed process had begun, or nothing
    }
    let authority = write_new(&new)?;
    fs::rename(&new, dir).map_err(io_at(dir))?; // replaces an empty folder, no other
    sync(&parent(dir))?;
    Ok(authority)
}

/// A new pair in a new folder.
fn write_new(dir: &Path) -> Result<Authority, StoreError> {
    let failed = |source| StoreError::Pair { dir: dir.into(), source };
    // Two authorities never share a subject: verifiers look issuers up by it.
    let name = format!("CA {:08x}", rand::random::<u32>());
    let authority = Authority::generate_for(&name, LIFETIME).map_err(failed)?;
    DirBuilder::new().mode(0o755).create(dir).map_err(io_at(dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(io_at(dir))?;
    let pair = authority.to_pem_pair();
    write_file(&dir.join(KEY), pair.key.as_bytes(), 0o600)?;
    write_file(&dir.join(CERTIFICATE), pair.certificate.as_bytes(), 0o644)?;
    sync(dir)?;
    Ok(authority)
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        // Whatever the umask and the group of the folder are.
        fchown(&file, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    };
    write().map_err(io_at(path))
}

fn load(dir: &Path) -> Result<Option<Authority>, StoreError> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_at(dir)(e)),
        Ok(meta) if !meta.is_dir() => return Err(StoreError::Kind(dir.into(), "folder")),
        Ok(meta) => judge(dir, &meta, 0o022, 0o755, "replaced")?,
    }
    let (key, certificate) = (dir.join(KEY), dir.join(CERTIFICATE));
    let found = (read(&key, 0o077, 0o600, "read")?, read(&certificate, 0o022, 0o644, "replaced")?);
    let (key, certificate) = match found {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(StoreError::Half { there: key, missing: certificate }),
        (None, Some(_)) => return Err(StoreError::Half { there: certificate, missing: key }),
        (Some(key), Some(certificate)) => (key, certificate),
    };
    let pair = PemPair { certificate: certificate.to_string(), key };
    Authority::from_pem_pair(&pair)
        .map(Some)
        .map_err(|source| StoreError::Pair { dir: dir.into(), source })
}

/// The text of a file that is plain, ours, and whose mode has none of the bits `refused`.
fn read(
    path: &Path,
    refused: u32,
    right: u32,
    done: &'static str,
) -> Result<Option<Zeroizing<String>>, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Err(StoreError::Kind(path.into(), "file"));
        }
        Err(e) => return Err(io_at(path)(e)),
    };
    let meta = file.metadata().map_err(io_at(path))?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(StoreError::Kind(path.into(), "file"));
    }
    judge(path, &meta, refused, right, done)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    file.read_to_string(&mut text).map_err(io_at(path))?;
    Ok(Some(text))
}

/// Owner and mode.
fn judge(
    path: &Path,
    meta: &fs::Metadata,
    refused: u32,
    right: u32,
    done: &'static str,
) -> Result<(), StoreError> {
    let (owner, expected) = (meta.uid(), geteuid().as_raw());
    if owner != expected {
        return Err(StoreError::Owner { path: path.into(), owner, expected });
    }
    let mode = meta.mode() & 0o7777;
    if mode & refused != 0 {
        return Err(StoreError::Mode { path: path.into(), mode, right, done });
    }
    Ok(())
}

/// Makes the state folder if it is missing, and locks it: two that start at once do not both make
/// an authority.
fn lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let state = parent(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(&state).map_err(io_at(&state))?;
    let folder = File::open(&state).map_err(io_at(&state))?;
    judge(&state, &folder.metadata().map_err(io_at(&state))?, 0o022, 0o711, "replaced")?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| io_at(&state)(errno.into()))
}

/// A name beside `dir` that nothing has.
fn aside(dir: &Path) -> Result<PathBuf, StoreError> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = OffsetDateTime::now_utc().format(format).unwrap_or_default();
    let free = (0..100)
        .map(|n| match n {
            0 => dir.with_extension(&date),
            n => dir.with_extension(format!("{date}-{n}")),
        })
        .find(|path| fs::symlink_metadata(path).is_err());
    free.ok_or_else(|| io_at(dir)(io::ErrorKind::AlreadyExists.into()))
}

fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_at(dir))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests;

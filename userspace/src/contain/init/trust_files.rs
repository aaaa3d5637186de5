//! The read-only file system of egret's own, and what it puts in the place of system files: the
//! certificates to trust, resolv.conf and hosts.
//!
//! Three kinds of clients look in three kinds of places. A bundle file is what Go, curl, git,
//! GnuTLS and most distributions' OpenSSL read. A hashed folder (`/etc/ssl/certs/1a2b3c4d.0`) is
//! what OpenSSL reads besides, and what is left when a program runs with a cleared environment;
//! it gets a copy with one more entry. A Java store is what Java reads.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::Doing;
use super::world::{OWN, SEALED, replace, show};
use crate::contain::TRUST_DIR;
use crate::contain::plan::{Plan, TrustFiles};
use crate::contain::trust::{
    BUNDLE, CA, HASHED_DIR, HASHED_FOLDERS, STORE, bundles, existing, java_stores,
};
use crate::contain::wire::Failure;
use crate::sys::mount;

/// What covers a file: empty, mode 0000, and on a read-only file system, so that even its owner
/// can change neither.
pub(super) const EMPTY_FILE: &str = "/run/egret/empty/file";
/// What covers a folder.
pub(super) const EMPTY_FOLDER: &str = "/run/egret/empty/folder";

const RESOLV_CONF: &str = "/run/egret/resolv.conf";
const HOSTS: &str = "/run/egret/hosts";

/// Files beyond this size in a hashed folder are no certificates.
const MAX_COPY: u64 = 1 << 20;

/// Makes the file system, seals it, and lays its parts over the system's.
pub(super) fn place(plan: &Plan) -> Result<(), Failure> {
    replace(OWN, c"tmpfs", &[(c"mode", c"0755"), (c"size", c"64m")], 0)?;
    make_covers().doing("make covers")?;
    let farms = if plan.trust.is_empty() {
        vec![]
    } else {
        write_trust(&plan.trust).doing("write the trust store")?;
        copy_hashed_folders(&plan.trust).doing("copy the folder of certificates")?
    };
    write_names(plan).doing("write resolv.conf")?;
    let own = fs::File::open(OWN).doing("open /run/egret")?;
    mount::add_attributes(&own, SEALED, false).doing("seal /run/egret")?;

    for farm in farms {
        place_farm(&farm)?;
    }
    if !plan.trust.is_empty() {
        let root = Path::new("/");
        for bundle in bundles(root) {
            show(&Path::new(TRUST_DIR).join(BUNDLE), &bundle)?;
        }
        for store in java_stores(root) {
            show(&Path::new(TRUST_DIR).join(STORE), &store)?;
        }
    }
    place_names(plan)
}

fn make_covers() -> io::Result<()> {
    fs::create_dir_all(EMPTY_FOLDER)?;
    fs::write(EMPTY_FILE, b"")?;
    fs::set_permissions(EMPTY_FILE, Permissions::from_mode(0o000))?;
    fs::set_permissions(EMPTY_FOLDER, Permissions::from_mode(0o000))
}

fn write_trust(trust: &TrustFiles) -> io::Result<()> {
    let dir = Path::new(TRUST_DIR);
    let hashed = dir.join(HASHED_DIR);
    fs::create_dir_all(&hashed)?;
    write_readable(&dir.join(BUNDLE), trust.bundle_pem.as_bytes())?;
    write_readable(&dir.join(CA), trust.session_pem.as_bytes())?;
    write_readable(&dir.join(STORE), &trust.pkcs12)?;
    write_readable(&hashed.join(format!("{}.0", trust.subject_hash)), trust.session_pem.as_bytes())
}

/// Readable by all whatever the umask was that egret was started with.
fn write_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// The copy of a hashed folder, and the subfolders that go back into it.
struct Farm {
    original: PathBuf,
    copy: PathBuf,
    folders: Vec<(PathBuf, std::os::fd::OwnedFd)>,
}

fn copy_hashed_folders(trust: &TrustFiles) -> io::Result<Vec<Farm>> {
    let mut farms = Vec::new();
    for original in existing(Path::new("/"), HASHED_FOLDERS.iter().map(PathBuf::from)) {
        if !original.is_dir() || !is_hashed(&original)? {
            continue;
        }
        let copy = Path::new(OWN).join(format!("certs-{}", farms.len()));
        fs::create_dir(&copy)?;
        fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        let folders = copy_folder(&original, &copy)?;
        let free = (0..).map(|n| copy.join(format!("{}.{n}", trust.subject_hash)));
        let name = free.into_iter().find(|p| fs::symlink_metadata(p).is_err());
        if let Some(name) = name {
            write_readable(&name, trust.session_pem.as_bytes())?;
        }
        farms.push(Farm { original, copy, folders });
    }
    Ok(farms)
}

fn is_hashed(folder: &Path) -> io::Result<bool> {
    let hash = |name: &str| {
        name.strip_suffix(".0")
            .is_some_and(|h| h.len() == 8 && h.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    Ok(fs::read_dir(folder)?.flatten().any(|e| e.file_name().to_str().is_some_and(hash)))
}

/// Copies symlinks as they are and files that all may read; returns the subfolders.
fn copy_folder(from: &Path, to: &Path) -> io::Result<Vec<(PathBuf, std::os::fd::OwnedFd)>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            folders.push((source.clone(), mount::clone_tree(&source, true)?));
        } else if kind.is_file() {
            let meta = entry.metadata()?;
            if meta.len() <= MAX_COPY && meta.permissions().mode() & 0o004 != 0 {
                write_readable(&target, &fs::read(&source)?)?;
            }
        }
    }
    Ok(folders)
}

fn place_farm(farm: &Farm) -> Result<(), Failure> {
    show(&farm.copy, &farm.original)?;
    for (path, tree) in &farm.folders {
        super::world::place(tree, path)?;
    }
    Ok(())
}

fn write_names(plan: &Plan) -> io::Result<()> {
    if let Some(text) = &plan.resolv_conf {
        write_readable(Path::new(RESOLV_CONF), text.as_bytes())?;
    }
    if !plan.extra_hosts.is_empty() {
        let mut text = fs::read_to_string("/etc/hosts").unwrap_or_default();
        for line in &plan.extra_hosts {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(line);
            text.push('\n');
        }
        write_readable(Path::new(HOSTS), text.as_bytes())?;
    }
    Ok(())
}

fn place_names(plan: &Plan) -> Result<(), Failure> {
    if plan.resolv_conf.is_some() {
        let path = Path::new("/etc/resolv.conf");
        hold_link_into_run(path).doing("make room for resolv.conf")?;
        // Without the file, glibc asks 127.0.0.1, which ends at egret as well.
        if let Ok(real) = fs::canonicalize(path) {
            show(Path::new(RESOLV_CONF), &real)?;
        }
    }
    if !plan.extra_hosts.is_empty()
        && let Ok(real) = fs::canonicalize("/etc/hosts")
    {
        show(Path::new(HOSTS), &real)?;
    }
    Ok(())
}

/// With systemd-resolved, resolv.conf is a symlink into the /run that is no longer there.
fn hold_link_into_run(path: &Path) -> io::Result<()> {
    let Ok(target) = fs::read_link(path) else { return Ok(()) };
    let target = Path::new("/etc").join(target);
    let target = match target.strip_prefix("/etc/../") {
        Ok(rest) => Path::new("/").join(rest),
        Err(_) => target,
    };
    if target.starts_with("/run") && !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, b"")?;
    }
    Ok(())
}

//! Writing the files and taking them away again. Only files with egret's mark are touched.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::pattern::Governed;
use super::units::{DROP_IN, MARK, UnitFile};

const UNITS: &str = "etc/systemd/system";

/// Why nothing was written, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not egret's; remove it, or keep it and copy what `egret systemd print` shows",
        path = .0.display()
    )]
    Foreign(PathBuf),
}

/// Writes the files below `root`, each as a whole, and says which changed. Nothing is written when
/// one of them would replace a file of somebody else.
///
/// # Errors
/// A foreign file, or an error of the file system.
pub fn write(root: &Path, files: &[UnitFile]) -> Result<Vec<PathBuf>, InstallError> {
    let mut changed = Vec::new();
    for file in files {
        let path = below(root, &file.path);
        match fs::read_to_string(&path) {
            Ok(text) if text == file.text => {}
            Ok(text) if !is_ours(&text) => return Err(InstallError::Foreign(path)),
            Ok(_) => changed.push((path, file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => changed.push((path, file)),
            Err(source) => return Err(InstallError::Io { path, source }),
        }
    }
    for (path, file) in &changed {
        place(path, &file.text).map_err(io_at(path))?;
    }
    Ok(changed.into_iter().map(|(path, _)| path).collect())
}

/// Removes the drop-ins of these units, or, with none named, everything that [`write`] wrote below
/// `root`. Says what is gone.
///
/// # Errors
/// Of the file system; what was removed before stays removed.
pub fn remove(
    root: &Path,
    base: &[UnitFile],
    units: &[Governed],
) -> Result<Vec<PathBuf>, InstallError> {
    let folder = below(root, Path::new(UNITS));
    let mut all: Vec<PathBuf> = if units.is_empty() {
        let ours = base.iter().map(|f| below(root, &f.path));
        ours.chain(drop_ins(&folder)).collect()
    } else {
        units.iter().map(|u| folder.join(u.pattern.folder()).join(DROP_IN)).collect()
    };
    all.sort();
    all.dedup();
    all.retain(|path| fs::read_to_string(path).is_ok_and(|text| is_ours(&text)));
    for path in &all {
        fs::remove_file(path).map_err(io_at(path))?;
        if let Some(parent) = path.parent().filter(|p| p.extension().is_some_and(|e| e == "d")) {
            let _ = fs::remove_dir(parent); // others may have drop-ins there
        }
    }
    Ok(all)
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.path().join(DROP_IN)).filter(|p| p.is_file()).collect()
}

fn is_ours(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.strip_prefix("# ") == Some(MARK))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn place(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let _ = fs::remove_file(&new); // of one that was killed
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::{Settings, base, drop_in};

    fn files() -> (Vec<UnitFile>, Vec<UnitFile>) {
        let settings = Settings {
            program: "/usr/bin/egret".into(),
            bundles: [].into(),
            java_stores: [].into(),
            bus: false,
        };
        let governed: Governed = "ci-*.service".parse().unwrap();
        (base(&settings), drop_in(&governed, &settings))
    }

    #[test]
    fn what_is_written_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (base, drop_ins) = files();
        let all = [base.clone(), drop_ins].concat();
        assert_eq!(write(root.path(), &all).unwrap().len(), all.len());
        assert_eq!(write(root.path(), &all).unwrap(), [] as [PathBuf; 0], "a second time");
        let unit = root.path().join("etc/systemd/system/egret.service");
        assert_eq!(fs::metadata(&unit).unwrap().permissions().mode() & 0o7777, 0o644);

        let other = root.path().join("etc/systemd/system/ci-.service.d/60-mine.conf");
        fs::write(&other, "[Service]\n").unwrap();
        let one = remove(root.path(), &base, &["ci-*.service".parse().unwrap()]).unwrap();
        assert_eq!(one.len(), 1);
        assert!(other.exists() && unit.exists());
        assert_eq!(remove(root.path(), &base, &[]).unwrap().len(), base.len());
        assert!(other.exists() && !unit.exists());
        assert_eq!(remove(root.path(), &base, &[]).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn an_older_file_of_egret_is_replaced_and_a_foreign_one_refused() {
        let root = tempfile::tempdir().unwrap();
        let (base, _) = files();
        let unit = root.path().join("etc/systemd/system/egret.service");
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(&unit, format!("# {MARK}\n[Unit]\n")).unwrap();
        assert_eq!(write(root.path(), &base).unwrap().len(), base.len());
        fs::write(&unit, "[Unit]\n# mine\n").unwrap();
        let slice = root.path().join("etc/systemd/system/agents.slice");
        fs::remove_file(&slice).unwrap();
        let error = write(root.path(), &base).unwrap_err().to_string();
        assert!(error.contains("egret.service is not egret's"), "{error}");
        assert!(!slice.exists(), "nothing was written");
        remove(root.path(), &base, &[]).unwrap();
        assert!(unit.exists(), "nor removed");
    }
}

//! Debian's packages without root: a private apt whose state lies below `target/`.
//!
//! The private apt believes that nothing is installed (its status file is empty), so what it
//! resolves and downloads is complete, and the same on every machine with the same package lists.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::sh;

/// A private apt. It reads the system's package lists while they are of use, then its own.
pub(super) struct Apt {
    folder: PathBuf,
    lists: PathBuf,
    ready: bool,
}

impl Apt {
    /// An apt with its state below `folder`; nothing happens before it is asked something.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), lists: "/var/lib/apt/lists".into(), ready: false }
    }

    /// Prepare the private state, and fetch package lists if the system has none.
    fn prepare(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        if crate::host::find("apt-get").is_none() || crate::host::find("dpkg-deb").is_none() {
            bail!("the VM is made of Debian's packages, and this machine has no apt-get");
        }
        for sub in ["state/lists/partial", "cache/archives/partial", "log"] {
            std::fs::create_dir_all(self.folder.join(sub))?;
        }
        std::fs::write(self.folder.join("status"), "")?;
        self.ready = true;
        if self.knows("systemd-sysv") {
            return Ok(());
        }
        self.lists = self.folder.join("state/lists");
        if self.knows("systemd-sysv") { Ok(()) } else { self.update() }
    }

    /// Fetch package lists of our own, from the system's configured sources.
    fn update(&mut self) -> Result<()> {
        eprintln!("vm: fetching package lists");
        self.lists = self.folder.join("state/lists");
        // One broken third-party source makes this fail; what counts is what is known afterwards.
        let result = sh::output(self.command("apt-get").arg("update"));
        if !self.knows("systemd-sysv") {
            result?;
            bail!("the configured package sources do not offer Debian's base system");
        }
        Ok(())
    }

    /// Fetch package lists of our own unless they are of this hour; says whether it did.
    pub(super) fn renew(&mut self) -> Result<bool> {
        self.prepare()?;
        if self.lists.starts_with(&self.folder) && self.lists_are_fresh() {
            return Ok(false);
        }
        self.update().map(|()| true)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = self.folder.display();
        for option in [
            format!("Dir::State={folder}/state"),
            format!("Dir::State::status={folder}/status"),
            format!("Dir::State::lists={}", self.lists.display()),
            format!("Dir::Cache={folder}/cache"),
            format!("Dir::Log={folder}/log"),
            "Debug::NoLocking=true".to_owned(),
            // As root, apt would drop to a user who cannot write here.
            "APT::Sandbox::User=root".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    fn knows(&self, package: &str) -> bool {
        self.direct_depends(package).is_ok_and(|names| !names.is_empty())
    }

    /// The packages that `package` depends on directly.
    pub(super) fn depends(&mut self, package: &str) -> Result<Vec<String>> {
        self.prepare()?;
        self.direct_depends(package)
    }

    fn direct_depends(&self, package: &str) -> Result<Vec<String>> {
        let text = sh::output(self.command("apt-cache").args(["depends", package]))?;
        Ok(text
            .lines()
            .filter_map(|l| {
                let l = l.trim();
                l.strip_prefix("Depends: ").or_else(|| l.strip_prefix("PreDepends: "))
            })
            .map(str::to_owned)
            .collect())
    }

    /// Download `packages` and everything they need into a folder of that name; returns the
    /// archives. Lists that have gone stale are fetched anew once.
    pub(super) fn closure(&mut self, set: &str, packages: &[&str]) -> Result<Vec<PathBuf>> {
        self.prepare()?;
        let archives = self.folder.join(set);
        let fetch = |apt: &Self| -> Result<()> {
            let _ = std::fs::remove_dir_all(&archives);
            std::fs::create_dir_all(archives.join("partial"))?;
            let mut command = apt.command("apt-get");
            command.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
            command.args(["-y", "--download-only", "install"]).args(packages);
            sh::output(&mut command).map(drop)
        };
        if let Err(error) = fetch(self) {
            if !self.renew()? {
                return Err(error).context(format!("cannot download the packages of {set}"));
            }
            fetch(self).with_context(|| format!("cannot download the packages of {set}"))?;
        }
        debs(&archives)
    }

    /// Download one package without its dependencies; returns its archive.
    pub(super) fn single(&mut self, package: &str) -> Result<PathBuf> {
        self.prepare()?;
        let folder = self.folder.join(format!("single-{package}"));
        let fetch = |apt: &Self| -> Result<()> {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder)?;
            let mut command = apt.command("apt-get");
            sh::output(command.args(["download", package]).current_dir(&folder)).map(drop)
        };
        if fetch(self).is_err() {
            self.update()?;
            fetch(self).with_context(|| format!("cannot download {package}"))?;
        }
        debs(&folder)?.pop().with_context(|| format!("{package} was not downloaded"))
    }

    fn lists_are_fresh(&self) -> bool {
        let hour = std::time::Duration::from_secs(3600);
        std::fs::metadata(&self.lists)
            .and_then(|m| m.modified())
            .is_ok_and(|t| t.elapsed().is_ok_and(|age| age < hour))
    }
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut debs: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "deb"))
        .collect();
    debs.sort();
    Ok(debs)
}

/// Unpack archives over `root`, whose top-level folders are links into `usr`. Owners become
/// ours; modes, set-user-id included, are kept.
pub(super) fn unpack(archives: &[PathBuf], root: &Path) -> Result<()> {
    use std::os::unix::fs::symlink;
    for folder in ["bin", "sbin", "lib", "lib64"] {
        std::fs::create_dir_all(root.join("usr").join(folder))?;
        if root.join(folder).symlink_metadata().is_err() {
            symlink(format!("usr/{folder}"), root.join(folder))?;
        }
    }
    for archive in archives {
        let mut source = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(archive)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dpkg-deb")?;
        let stream = source.stdout.take().context("dpkg-deb's output")?;
        sh::run(
            Command::new("tar")
                .args(["-x", "-p", "--no-same-owner", "--keep-directory-symlink", "-C"])
                .arg(root)
                .stdin(Stdio::from(stream)),
        )?;
        if !source.wait()?.success() {
            bail!("{} cannot be unpacked", archive.display());
        }
    }
    Ok(())
}

/// A program of an unpacked root, started by that root's own loader and libraries, so that the
/// host's do not matter. `name` is what the program sees as its own name.
pub(super) fn foreign(root: &Path, program: &str, name: &str) -> Command {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(format!("{0}:{0}/pulseaudio", libraries.display()))
        .args(["--argv0", name])
        .arg(root.join(program));
    command
}

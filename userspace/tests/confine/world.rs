//! The folders of one world, and the process in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use egret::confine::{Confined, Confinement, Identity, READABLE};
use nix::sys::stat::Mode;

const MODE: &str = "CONFINE_MODE";
const FOLDER: &str = "CONFINE_FOLDER";
const USER: &str = "CONFINE_USER";

/// What a check said.
pub(crate) struct Said(Result<(), String>);

impl Said {
    pub(crate) fn is_ok(&self) -> bool {
        self.0.is_ok()
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_ref().map_or_else(String::as_str, |()| "works"))
    }
}

/// What the process in the world printed, and how it ended.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) results: BTreeMap<String, Said>,
    pub(crate) status: Option<Confined>,
    pub(crate) error: Option<String>,
    pub(crate) signal: Option<i32>,
}

/// Folders for one process:
///
/// ```text
/// state/audit, state/checkpoints   writable, and the user's
/// conf/resolv.conf, conf/hosts     readable; replaced by renaming while the process runs
/// conf/inner, hidden, elsewhere    hidden, with a file that everybody may read; elsewhere is
///                                  another view of hidden
/// other                            neither: a file that everybody may read and write, and a pipe
/// ```
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    user: Option<u32>,
}

impl Scene {
    pub(crate) fn new(user: Option<u32>) -> Self {
        let dir = tempfile::Builder::new().prefix("egret-confine-").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| dir.path().join(name);
        let everybody = |p: &Path, mode| fs::set_permissions(p, Permissions::from_mode(mode));
        everybody(dir.path(), 0o755).unwrap();
        for folder in ["state/audit", "state/checkpoints", "conf/inner", "hidden/deep", "elsewhere"]
        {
            fs::create_dir_all(path(folder)).unwrap();
        }
        fs::create_dir(path("other")).unwrap();
        everybody(&path("other"), 0o777).unwrap();
        for file in ["conf/inner/secret", "hidden/secret", "other/file"] {
            fs::write(path(file), "hunter2").unwrap();
            everybody(&path(file), 0o666).unwrap();
        }
        fs::write(path("conf/resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        fs::write(path("conf/hosts"), "192.0.2.1 old.test\n").unwrap();
        nix::unistd::mkfifo(&path("other/pipe"), Mode::from_bits_truncate(0o666)).unwrap();
        everybody(&path("other/pipe"), 0o666).unwrap();
        for folder in ["state/audit", "state/checkpoints"] {
            chown(path(folder), user, user).unwrap();
            everybody(&path(folder), 0o700).unwrap();
        }
        Self { dir, user }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn absent(&self) -> PathBuf {
        self.dir.path().join("no-such-folder")
    }

    /// Starts this program again in `mode` and hears what it says. When it asks, its
    /// configuration is replaced.
    pub(crate) fn run(&self, mode: &str) -> Outcome {
        // The reader of the pipe, so that writing does not wait for one.
        let reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.dir.path().join("other/pipe"))
            .unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(MODE, mode)
            .env(FOLDER, self.dir.path())
            .env(USER, self.user.map_or(String::new(), |u| u.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answer = child.stdin.take().unwrap();
        let mut outcome = Outcome::default();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut fields = line.split('\t');
            match (fields.next(), fields.next(), fields.next()) {
                (Some("check"), Some(name), Some(said)) => {
                    let said = if said == "ok" { Ok(()) } else { Err(said.to_owned()) };
                    outcome.results.insert(name.to_owned(), Said(said));
                }
                (Some("status"), Some(json), _) => {
                    outcome.status = Some(serde_json::from_str(json).unwrap());
                }
                (Some("error"), Some(error), _) => outcome.error = Some(error.to_owned()),
                (Some("replace"), ..) => {
                    self.replace_configuration();
                    answer.write_all(b"done\n").unwrap();
                }
                _ => println!("   {line}"),
            }
        }
        let status = child.wait().unwrap();
        drop(reader);
        outcome.signal = status.signal();
        assert!(status.signal() == Some(6) || status.success(), "{mode}: {status}");
        outcome
    }

    fn replace_configuration(&self) {
        let (new, hosts) = (self.dir.path().join("conf/new"), self.dir.path().join("conf/hosts"));
        fs::write(&new, "192.0.2.77 fresh.test\n192.0.2.1 old.test\n").unwrap();
        fs::rename(new, hosts).unwrap();
    }
}

/// The same, from inside.
pub(crate) struct World {
    pub(crate) mode: String,
    folder: PathBuf,
    user: Option<u32>,
}

impl World {
    pub(crate) fn from_environment() -> Option<Self> {
        let mode = std::env::var(MODE).ok()?;
        let folder = std::env::var_os(FOLDER)?.into();
        Some(Self { mode, folder, user: std::env::var(USER).ok()?.parse().ok() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn confinement(&self) -> Confinement {
        let mut readable: Vec<PathBuf> = vec![self.path("conf"), self.path("no-such-folder")];
        readable.extend(READABLE.iter().map(PathBuf::from).filter(|p| p.exists()));
        Confinement {
            user: self.user.map(|uid| Identity { uid, gid: uid }),
            writable: vec![self.path("state/audit"), self.path("state/checkpoints")],
            readable,
            dies_with_parent: false,
            hidden: vec![self.path("hidden"), self.path("conf/inner")],
        }
    }

    /// Asks the process outside to replace the configuration by renaming.
    pub(crate) fn replace_configuration(&self) {
        println!("replace\t");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

//! Pure: what the contained process is to be, as data. Nothing in it is secret.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::user::Target;

/// The command and its world. Crosses to the new process over a sealed memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The command as typed. Its first word is looked up in the agent's `PATH`.
    pub argv: Vec<OsString>,
    /// The working folder; must exist in what the agent sees.
    pub cwd: OsString,
    /// The whole environment of the command: see [`super::env::build`].
    pub env: Vec<(OsString, OsString)>,
    pub user: Target,
    pub trust: TrustFiles,
    /// The text of resolv.conf; `None` leaves the system's.
    pub resolv_conf: Option<String>,
    /// Lines added to the agent's view of /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// Folders and files that the agent must not see: the state folder, the folder of the
    /// control socket, `file:` secrets. Covered where they exist, symlinks followed. A file that
    /// is later *replaced* (renamed over) loses its cover, so give the folder where one is
    /// dedicated to secrets.
    pub covered: Vec<PathBuf>,
    /// Unix sockets that stay reachable: a path, or `FOLDER/**`.
    pub unix_sockets: Vec<String>,
    /// Leaves no_new_privs off, so that set-user-id programs change the user. They gain no
    /// capability: the bounding set is empty.
    pub keep_privileges: bool,
    /// io_uring can create sockets past the seccomp filter; off unless asked for.
    pub allow_io_uring: bool,
    /// Whether everything inside dies with egret. Off only in tests that watch an orphaned agent
    /// get nowhere.
    pub die_with_parent: bool,
    /// File mode creation mask of the command; `None`: as it is.
    pub umask: Option<u32>,
    /// Whether a terminal is given to the command when egret has one.
    pub terminal: bool,
}

/// What the agent is to trust. All public.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct TrustFiles {
    /// The system's roots and the session's CA, as PEM.
    #[serde(skip)]
    pub bundle_pem: String,
    /// The session's CA alone, as PEM.
    pub session_pem: String,
    /// OpenSSL's name for the session's CA in a hashed folder: 8 hex digits.
    pub subject_hash: String,
    /// Both again as PKCS #12, for Java.
    #[serde(skip)]
    pub pkcs12: Vec<u8>,
}

impl fmt::Debug for TrustFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = (self.bundle_pem.len(), self.session_pem.len(), self.pkcs12.len());
        write!(f, "TrustFiles({}, {sizes:?} bytes)", self.subject_hash)
    }
}

impl TrustFiles {
    /// Whether there is anything to lay out.
    pub fn is_empty(&self) -> bool {
        self.bundle_pem.is_empty()
    }
}

impl Plan {
    /// A plan with nothing but the command: the current folder, no trust, the strict choices.
    pub fn new(argv: Vec<OsString>, user: Target) -> Self {
        Self {
            argv,
            cwd: "/".into(),
            env: Vec::new(),
            user,
            trust: TrustFiles::default(),
            resolv_conf: None,
            extra_hosts: Vec::new(),
            covered: Vec::new(),
            unix_sockets: Vec::new(),
            keep_privileges: false,
            allow_io_uring: false,
            die_with_parent: true,
            umask: None,
            terminal: true,
        }
    }
}

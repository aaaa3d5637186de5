//! The interceptor as the warden sees it: started, fed with maps, watched, started again.
//!
//! While it is not there the lease ends, so nothing gets out. Its listeners are the warden's too,
//! so a connection that comes meanwhile waits in their backlog and is served by the next one.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, User};
use sha2::{Digest as _, Sha256};

use super::error::DaemonError;
use super::link::{Link, LinkError};
use crate::confine::{Confined, Confinement, Identity};
use crate::contain::TrustFiles;
use crate::intercept::wire::{ARGUMENT, Note, Order, Pem, Report, Start};
use crate::redirect::feed::Feed;
use crate::sys::{fdpass, process};
use crate::tls::authority::Authority;

/// An interceptor that answers no tick for so long is ended: its runtime hangs.
const HUNG: Duration = Duration::from_secs(15);
/// What is remembered for the log while nobody can write it.
const NOTES: usize = 1024;

/// What every interceptor of this daemon is started with.
pub(super) struct Terms {
    pub(super) state: PathBuf,
    pub(super) run: PathBuf,
    pub(super) lease: Duration,
    pub(super) power: bool,
    /// Of each agent, at one time.
    pub(super) connections: usize,
    /// The user that it becomes; None where there is no such user: uid 0 without capabilities.
    pub(super) user: Option<Identity>,
    pub(super) authority: Authority,
    /// What commands that are run for users are given to trust.
    pub(super) trust: TrustFiles,
}

/// The interceptor that is, if one is.
pub(super) struct Supervisor {
    terms: Terms,
    feed: Arc<Feed>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    link: Option<Arc<Link>>,
    pid: Option<Pid>,
    confined: Option<Confined>,
    restarts: u64,
    notes: VecDeque<Note>,
    /// It knows every agent, so the lease may be renewed.
    admitted: bool,
}

/// An interceptor that runs.
pub(super) struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    link: Arc<Link>,
}

impl Supervisor {
    pub(super) fn new(terms: Terms, feed: Arc<Feed>) -> Self {
        Self { terms, feed, now: Mutex::default() }
    }

    /// Starts one. It serves nobody yet, and the lease is not renewed
    /// until [`Self::admit`].
    pub(super) fn start(&self) -> Result<Running, DaemonError> {
        self.prepare_folders()?;
        let (ours, theirs) = fdpass::pair().map_err(DaemonError::io("open a socket pair"))?;
        let (pid, pidfd) = launch(&theirs).map_err(DaemonError::io("start the interceptor"))?;
        drop(theirs);
        let link = Link::new(ours).map_err(DaemonError::io("listen to the interceptor"))?;
        let running = Running { pid, pidfd, link: Arc::new(link) };
        let confined = self.hand_over(&running.link).inspect_err(|_| running.end())?;
        let mut now = self.lock();
        now.pid = Some(pid);
        now.confined = Some(confined);
        Ok(running)
    }

    fn hand_over(&self, link: &Link) -> Result<Confined, DaemonError> {
        let terms = &self.terms;
        let pair = terms.authority.to_pem_pair();
        let start = Start {
            state: terms.state.clone(),
            names: names_folder(&terms.state, &terms.run),
            confinement: self.confinement(),
            lease: terms.lease,
            power: terms.power,
            connections: terms.connections,
            authority_certificate: pair.certificate,
            authority_key: Pem(pair.key),
            opening: format!("daemon {}", env!("CARGO_PKG_VERSION")),
        };
        let fds = self.feed.fds();
        match link.ask(Order::Start(Box::new(start)), &fds) {
            Ok(Report::Ready(confined)) => Ok(confined),
            Ok(_) => Err(DaemonError::Interceptor(LinkError::Confused)),
            Err(error) => Err(DaemonError::Interceptor(error)),
        }
    }

    fn confinement(&self) -> Confinement {
        let state = &self.terms.state;
        Confinement {
            user: self.terms.user,
            writable: WRITABLE.map(|name| state.join(name)).to_vec(),
            readable: confinement_readable(),
            hidden: vec![self.terms.run.clone()],
            dies_with_parent: true,
        }
    }

    /// The log's folders, its files with them, belong to who writes them.
    fn prepare_folders(&self) -> Result<(), DaemonError> {
        let Identity { uid, gid } = self.terms.user.unwrap_or(Identity { uid: 0, gid: 0 });
        passable(&self.terms.state).map_err(DaemonError::at(&self.terms.state))?;
        for name in WRITABLE {
            let folder = self.terms.state.join(name);
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(DaemonError::at(&folder)(e));
                }
                _ => give(&folder, uid, gid)?,
            }
        }
        Ok(())
    }

    /// Makes a started interceptor the one that orders go to.
    pub(super) fn install(&self, running: &Running) {
        self.lock().link = Some(Arc::clone(&running.link));
        self.write_kept();
    }

    /// Lets the lease be renewed: it knows every agent now.
    pub(super) fn admit(&self) {
        self.lock().admitted = true;
        self.tick();
    }

    /// Blocks until the interceptor is gone; one that hangs is ended. From then on the lease is
    /// over and orders fail.
    pub(super) fn wait(&self, running: &Running) {
        loop {
            let mut fds = [PollFd::new(running.pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(1000_u16)).is_ok_and(|n| n > 0) {
                break;
            }
            if running.link.silence() > HUNG {
                tracing::error!("the interceptor hangs and is ended");
                break;
            }
        }
        self.retire(running);
    }

    /// Ends an interceptor, if it has not ended by itself, and the lease with it.
    pub(super) fn retire(&self, running: &Running) {
        if let Err(error) = self.feed.expire() {
            tracing::error!(%error, "the lease could not be ended; it ends by itself");
        }
        running.end();
        let mut now = self.lock();
        (now.link, now.pid, now.confined, now.admitted) = (None, None, None, false);
        now.restarts += 1;
    }

    /// Whether this is the user that the interceptor becomes.
    pub(super) fn serves_as(&self, uid: u32) -> bool {
        self.terms.user.is_some_and(|user| user.uid == uid)
    }

    pub(super) fn trust(&self) -> &TrustFiles {
        &self.terms.trust
    }

    /// The interceptor, to give it orders.
    pub(super) fn link(&self) -> Result<Arc<Link>, LinkError> {
        self.lock().link.clone().ok_or(LinkError::Gone)
    }

    /// Renews the lease by way of the interceptor's runtime.
    pub(super) fn tick(&self) {
        let link = {
            let now = self.lock();
            now.link.clone().filter(|_| now.admitted)
        };
        if let Some(Err(error)) = link.map(|link| link.tick()) {
            tracing::debug!(%error, "a tick was not sent");
        }
    }

    /// Whether the interceptor answers.
    pub(super) fn is_well(&self) -> bool {
        self.link().is_ok_and(|link| link.silence() < self.terms.lease)
    }

    /// Writes a record now, or not at all.
    pub(super) fn note(&self, note: &Note) -> Result<(), LinkError> {
        self.link()?.tell(Order::Note(note.clone()), &[])
    }

    /// Writes a record, or keeps it until it can be written: of what has happened already.
    pub(super) fn note_or_keep(&self, note: Note) {
        self.lock().notes.push_back(note);
        self.write_kept();
    }

    /// Writes what could not be written before, in its order.
    pub(super) fn write_kept(&self) {
        loop {
            let Some(note) = self.lock().notes.pop_front() else { return };
            if self.note(&note).is_err() {
                let mut now = self.lock();
                now.notes.push_front(note);
                now.notes.truncate(NOTES);
                return;
            }
        }
    }

    /// Its pid, how often it was started again, and what it gave up.
    pub(super) fn describe(&self) -> (Option<i32>, u64, Option<Confined>) {
        let now = self.lock();
        (now.pid.map(Pid::as_raw), now.restarts, now.confined.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn end(&self) {
        let _ = process::signal_pidfd(self.pidfd.as_fd(), Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// The user of this name. None: there is none on this machine.
pub(super) fn identity(user: &str) -> Option<Identity> {
    let found = User::from_name(user).ok().flatten()?;
    Some(Identity { uid: found.uid.as_raw(), gid: found.gid.as_raw() })
}

/// The folders in the state folder in which an interceptor writes.
const WRITABLE: [&str; 3] = ["audit", "checkpoints", NAMES];
const NAMES: &str = "names";

/// Where the names of each agent are kept: for each daemon by itself, since several may share a
/// state folder and each forgets those that it does not know.
pub(super) fn names_folder(state: &Path, run: &Path) -> PathBuf {
    let digest = Sha256::digest(run.as_os_str().as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    state.join(NAMES).join(name)
}

/// What an interceptor reads while it serves: names, roots, and itself.
fn confinement_readable() -> Vec<PathBuf> {
    [
        "/etc",
        "/run/systemd/resolve",
        "/usr/share/ca-certificates",
        "/usr/local/share/ca-certificates",
        "/usr/lib/ssl",
        "/usr/share/zoneinfo",
        "/proc",
        "/sys/fs/cgroup",
        "/dev/urandom",
        "/dev/null",
    ]
    .map(PathBuf::from)
    .to_vec()
}

/// The way to the log must be passable for its user, also where `egret run` made the folder for
/// root alone; what else is in it has modes of its own.
fn passable(state: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(state)?;
    let mode = fs::metadata(state)?.permissions().mode();
    if mode & 0o011 == 0o011 {
        return Ok(());
    }
    fs::set_permissions(state, fs::Permissions::from_mode(mode | 0o011))
}

/// Gives a folder and everything in it to a user, where it is another's.
fn give(path: &Path, uid: u32, gid: u32) -> Result<(), DaemonError> {
    let meta = fs::symlink_metadata(path).map_err(DaemonError::at(path))?;
    if meta.is_symlink() {
        return Ok(()); // egret makes none
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(DaemonError::at(path))? {
            give(&entry.map_err(DaemonError::at(path))?.path(), uid, gid)?;
        }
    }
    if meta.uid() != uid || meta.gid() != gid {
        lchown(path, Some(uid), Some(gid)).map_err(DaemonError::at(path))?;
    }
    Ok(())
}

fn launch(socket: &OwnedFd) -> io::Result<(Pid, OwnedFd)> {
    let high = process::adopt(fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(10))?)?;
    let number = CString::new(high.as_raw_fd().to_string())?;
    let argv = [c"egret".to_owned(), CString::new(ARGUMENT)?, number];
    // Where roots are, what is logged, and nothing else: the warden's environment may hold secrets.
    let env: Vec<CString> = ["EGRET_LOG", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .filter_map(|pair| CString::new(pair).ok())
        .collect();
    process::launch(&process::Launch {
        program: c"/proc/self/exe",
        argv: &argv,
        env: &env,
        stdio: None,
        keep: &[high.as_fd()],
        cgroup: None,
        namespaces: 0,
    })
}

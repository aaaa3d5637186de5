//! The control socket: who may ask what, and the answers.
//!
//! A peer is what the kernel says it is. Root may ask everything; a member of the daemon's group
//! may ask for its own `run` and see what is governed; a process of an agent is refused whoever it
//! is, and that is recorded.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen as listen_on,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::Group;

use super::definition::Definition;
use super::error::DaemonError;
use super::governor::Governor;
use crate::control::peer::Peer;
use crate::control::wire::{Answer, Attach, Request};
use crate::control::{SOCKET, frame};
use crate::intercept::wire::{NoteKind, Order, Report};
use crate::outcome::Reason;
use crate::redirect::target::resolve;
use crate::sys;

/// Connections at one time, of root and of each other user.
const OF_ROOT: usize = 64;
const OF_A_USER: usize = 16;
/// The pause after a failed accept (too many open files, for example).
const AFTER_ERROR: Duration = Duration::from_millis(50);
/// How long a peer may take to send its request, and to take its answer.
const PATIENCE_SECONDS: i64 = 10;

/// Where the control socket of a daemon is.
pub(super) fn path(run: &Path) -> PathBuf {
    run.join(SOCKET)
}

/// Opens the socket, for root and the daemon's group.
pub(super) fn listen(governor: &Governor) -> Result<OwnedFd, DaemonError> {
    let path = path(&governor.run);
    let open = || -> io::Result<OwnedFd> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        // The folder's lock says that no other daemon has it.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        bind(fd.as_raw_fd(), &UnixAddr::new(&path)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some(group) = governor.group() {
            chown(&path, Some(0), Some(group))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        }
        listen_on(&fd, Backlog::new(64)?)?;
        Ok(fd)
    };
    open().map_err(DaemonError::at(&path))
}

/// Accepts for ever.
pub(super) fn serve(governor: &Arc<Governor>, listener: &OwnedFd) {
    let lines = Arc::new(Lines::default());
    // Given up when no other descriptor is free, so that whoever asks can be told.
    let open_spare = || File::open("/dev/null").ok();
    let mut spare = open_spare();
    loop {
        let peer = match sys::socket::accept(listener.as_fd()) {
            Ok(fd) => fd,
            Err(error) => {
                tracing::warn!(%error, "a control connection was not accepted");
                let full = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                if !(full && spare.take().is_some()) {
                    thread::sleep(AFTER_ERROR);
                }
                continue;
            }
        };
        spare = spare.or_else(open_spare);
        if spare.is_none() {
            let _ = refuse(&peer, "the daemon has no descriptors left; try again later");
            continue;
        }
        let uid = getsockopt(&peer, sockopt::PeerCredentials).map_or(u32::MAX, |c| c.uid());
        let Some(line) = lines.take(uid) else {
            let why = format!("uid {uid} has too many requests open; wait until some have ended");
            let _ = refuse(&peer, &why);
            continue;
        };
        let governor = Arc::clone(governor);
        let spawned = thread::Builder::new().name("egret-request".into()).spawn(move || {
            let _line = line;
            if let Err(error) = converse(&governor, &peer) {
                tracing::debug!(%error, "a control connection ended");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "a control connection was not served");
        }
    }
}

/// The open connections of each user, so that nobody takes the place of another.
#[derive(Debug, Default)]
struct Lines(Mutex<HashMap<u32, usize>>);

/// One of them, as long as it is open.
#[derive(Debug)]
struct Line {
    lines: Arc<Lines>,
    uid: u32,
}

impl Lines {
    fn take(self: &Arc<Self>, uid: u32) -> Option<Line> {
        let mut counts = self.lock();
        let count = counts.entry(uid).or_default();
        if *count >= if uid == 0 { OF_ROOT } else { OF_A_USER } {
            return None;
        }
        *count += 1;
        Some(Line { lines: Arc::clone(self), uid })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut counts = self.lines.lock();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// One request, one answer.
fn converse(governor: &Arc<Governor>, socket: &OwnedFd) -> io::Result<()> {
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(socket, sockopt::ReceiveTimeout, &patience)?;
    setsockopt(socket, sockopt::SendTimeout, &patience)?;
    let peer = match Peer::of(socket.as_fd()) {
        Ok(peer) => peer,
        Err(error) => return refuse(socket, &format!("who asks could not be told: {error}")),
    };
    if let Some(agent) = governor.agent_of(&peer) {
        let why = format!("the process {} of uid {} is an agent's", peer.pid, peer.uid);
        governor.refused(NoteKind::Admin, &agent, Reason::ControlRefused, &why);
        return refuse(socket, "agents may not ask anything of the daemon");
    }
    let (request, fds) = match frame::receive::<Request>(socket, frame::ONE_POLICY) {
        Ok(Some(received)) => received,
        Ok(None) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return refuse(socket, "no request came in time");
        }
        Err(error) => {
            let why = format!("the request is not one that this daemon understands: {error}");
            return refuse(socket, &why);
        }
    };
    if let Some(why) = governor.denial(&peer, &request) {
        governor.refused(NoteKind::Admin, "", Reason::ControlRefused, &why);
        return refuse(socket, &why);
    }
    let answer = governor.answer(&peer, request, fds);
    let (answer, fds) = answer;
    let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    frame::send(socket, &answer, &fds)
}

fn refuse(socket: &OwnedFd, why: &str) -> io::Result<()> {
    frame::send(socket, &Answer::Refused(why.to_owned()), &[])
}

impl Governor {
    /// The group whose members may use the socket.
    fn group(&self) -> Option<u32> {
        let name = self.lock().config.as_ref()?.group.clone();
        Group::from_name(&name).ok().flatten().map(|g| g.gid.as_raw())
    }

    /// The agent that a peer belongs to.
    fn agent_of(&self, peer: &Peer) -> Option<String> {
        let now = self.lock();
        now.places.holding(&peer.cgroup).last().map(|name| (*name).to_owned())
    }

    /// Why a peer may not ask this.
    fn denial(&self, peer: &Peer, request: &Request) -> Option<String> {
        if peer.uid == 0 {
            return None;
        }
        if self.supervisor.serves_as(peer.uid) {
            return Some("the interceptor may not ask anything of the daemon".into());
        }
        let member = self.group().is_some_and(|group| peer.belongs_to(group));
        match request {
            Request::Status | Request::Run(_) | Request::Summary { .. } if member => None,
            Request::Status | Request::Run(_) | Request::Summary { .. } => {
                Some(format!("uid {} is not in the daemon's group", peer.uid))
            }
            Request::Attach(_)
            | Request::Detach { .. }
            | Request::Reopen { .. }
            | Request::Reload => {
                Some(format!("uid {} is not root, who alone may change what is governed", peer.uid))
            }
        }
    }

    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> (Answer, Vec<OwnedFd>) {
        let done = match request {
            Request::Status => Ok(Answer::Status(Box::new(self.status()))),
            Request::Attach(attach) => self.attach_asked(*attach),
            Request::Detach { name, deny } => self.detach_asked(&name, deny).map(Answer::Done),
            Request::Reopen { name } => self.reopen_asked(&name).map(Answer::Done),
            Request::Reload => self.reload().map(|said| {
                self.scan();
                Answer::Done(said)
            }),
            Request::Summary { session } => self.summary(session),
            Request::Run(run) => return self.run_asked(peer, *run, fds),
        };
        let answer = done.unwrap_or_else(|error| Answer::Refused(error.to_string()));
        (answer, Vec::new())
    }

    fn attach_asked(&self, asked: Attach) -> Result<Answer, DaemonError> {
        let name = asked.name.clone();
        let attach = || {
            let path = resolve(&asked.target, &self.hierarchy)?;
            let definition = Definition::of_args(&asked.policy, &BTreeMap::new())
                .map_err(|why| DaemonError::Policy { name: asked.name.clone(), why })?;
            self.attach_by_hand(asked.name, path, asked.policy, definition)
        };
        attach().map(Answer::Attached).inspect_err(|error| {
            let why = format!("attach {name}: {error}");
            self.refused(NoteKind::Admin, &name, Reason::AttachRefused, &why);
        })
    }

    fn detach_asked(&self, name: &str, deny: bool) -> Result<String, DaemonError> {
        let mut now = self.lock();
        let done = if deny {
            self.deny(&mut now, name)
                .map(|()| format!("{name} stays attached and is refused everything"))
        } else {
            self.detach(&mut now, name)
                .map(|()| format!("{name} is detached: it is not governed any more"))
        };
        done.inspect_err(|error| {
            let why = format!("detach {name}: {error}");
            self.refused(NoteKind::Admin, name, Reason::ControlRefused, &why);
        })
    }

    fn reopen_asked(&self, name: &str) -> Result<String, DaemonError> {
        let mut now = self.lock();
        self.reopen(&mut now, name).map(|()| format!("{name} is enforced again"))
    }

    fn summary(&self, session: String) -> Result<Answer, DaemonError> {
        match self.supervisor.link()?.ask(Order::Summary { session }, &[])? {
            Report::Summary(summary) => Ok(Answer::Summary(summary)),
            _ => Err(super::link::LinkError::Confused.into()),
        }
    }
}

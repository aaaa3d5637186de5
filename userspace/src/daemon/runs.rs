//! `egret run` on behalf of a user: the daemon makes the walls and starts the command inside, the
//! user's process has its terminal, its signals and its life.
//!
//! The policy and the secrets are the user's own, and the command runs as that user: nobody gets
//! by this what they could not do before, only less.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::definition::{Definition, Source};
use super::error::DaemonError;
use super::governor::{Closed, Governed, Governor, Now, note, order};
use super::namespaces::Sockets;
use super::records::Stage;
use crate::contain::user::{self, Target};
use crate::contain::{Plan, Spec, Terminals, launch_for};
use crate::control::peer::Peer;
use crate::control::wire::{Answer, Run};
use crate::dns::resolv_conf;
use crate::identify::SessionId;
use crate::inject::CredentialSet;
use crate::intercept::wire::{Note, NoteKind, Order};
use crate::outcome::Reason;
use crate::redirect::attachment::Overlap;
use crate::redirect::netns::Netns;

/// How long what a command left behind may take to end.
const DEATH: Duration = Duration::from_secs(5);

impl Governor {
    /// Starts a command. The answer comes with the socket to its init process and its pidfd.
    pub(super) fn run_asked(
        self: &Arc<Self>,
        peer: &Peer,
        run: Run,
        stdio: Vec<OwnedFd>,
    ) -> (Answer, Vec<OwnedFd>) {
        match self.start_run(peer, run, stdio) {
            Ok((session, pid, fds)) => {
                (Answer::Started { session: session.to_string(), pid: pid.as_raw() }, fds)
            }
            Err(error) => {
                let why = format!("run for uid {}: {error}", peer.uid);
                self.refused(NoteKind::Admin, "", Reason::ControlRefused, &why);
                (Answer::Refused(error.to_string()), Vec::new())
            }
        }
    }

    fn start_run(
        self: &Arc<Self>,
        peer: &Peer,
        run: Run,
        stdio: Vec<OwnedFd>,
    ) -> Result<(SessionId, Pid, Vec<OwnedFd>), DaemonError> {
        let stdio = <[OwnedFd; 3]>::try_from(stdio).map_err(|_| {
            DaemonError::io("start the command")(std::io::ErrorKind::InvalidInput.into())
        })?;
        let user = user_of(peer, &run)?;
        let policy = run.policy.load()?.policy;
        let set = CredentialSet::take_over(&policy, run.credentials.clone()).map_err(|errors| {
            let why = super::definition::join(errors.iter().map(ToString::to_string));
            DaemonError::Policy { name: policy.name.to_string(), why }
        })?;
        let definition = Definition {
            bundle: run.policy.clone(),
            policy: Arc::new(policy),
            credentials: Arc::new(set),
        };
        let session = SessionId::random();
        let name = format!("run-{session}");
        let command = run.command.first().map(|c| c.to_string_lossy().into_owned());
        let message = format!("run {} for uid {}", command.unwrap_or_default(), peer.uid);
        let netns = Netns::private()?;
        let mut now = self.lock();
        self.enclose(&mut now, &name, &session, definition, &run, &netns)?;
        let Some(governed) = now.agents.get(&name) else { return Err(DaemonError::NoAgent(name)) };
        let begin = session_note(governed, NoteKind::SessionStart, &name, message);
        let started = self
            .supervisor
            .note(&begin)
            .map_err(DaemonError::Audit)
            .and_then(|()| self.spawn_inside(&now, &name, user, run, &netns, &stdio));
        match started {
            Ok((pid, pidfd, socket)) => match self.reap_later(name.clone(), pid) {
                Ok(()) => Ok((session, pid, vec![socket, pidfd])),
                Err(error) => {
                    self.end_run(&mut now, &name);
                    let _ = waitpid(pid, None);
                    Err(error)
                }
            },
            Err(error) => {
                self.end_run(&mut now, &name);
                Err(error)
            }
        }
    }

    /// The walls of [`crate::session`], pinned, with the daemon's interceptor behind them.
    fn enclose(
        &self,
        now: &mut Now,
        name: &str,
        session: &SessionId,
        definition: Definition,
        run: &Run,
        netns: &Netns,
    ) -> Result<(), DaemonError> {
        let cgroup = self.hierarchy.make(name)?;
        let path = self.hierarchy.relative(cgroup.path());
        now.places.check(name, &path)?;
        now.places.add(name, &path)?;
        let label = run.name.clone().unwrap_or_else(|| definition.policy.name.to_string());
        now.agents.insert(
            name.to_owned(),
            Governed {
                path,
                cgroup,
                session: session.clone(),
                source: Source::Run,
                definition: Some(Arc::new(definition)),
                placeholders: Default::default(),
                config: None,
                attachment: None,
                closed: Closed::default(),
                private: true,
                label: Some(label),
                sockets: Sockets::default(),
            },
        );
        let result = self.raise_walls(now, name, netns);
        if result.is_err() {
            self.end_run(now, name);
        }
        result
    }

    fn raise_walls(&self, now: &mut Now, name: &str, netns: &Netns) -> Result<(), DaemonError> {
        self.write_record(now, name, Stage::Attached)?;
        let link = self.supervisor.link()?;
        link.tell(Order::Agents(order(now, name).into_iter().collect()), &[])?;
        let Some(governed) = now.agents.get_mut(name) else { return Ok(()) };
        let attachment = self.kernel.attach_pinned(&governed.cgroup, name, Overlap::Refuse)?;
        governed.attachment = Some(attachment);
        let id = governed.cgroup.id();
        self.open_listeners(&link, id, netns, &mut governed.sockets)?;
        self.publish_to_kernel(now, name)
    }

    fn spawn_inside(
        &self,
        now: &Now,
        name: &str,
        user: Target,
        run: Run,
        netns: &Netns,
        stdio: &[OwnedFd; 3],
    ) -> Result<(Pid, OwnedFd, OwnedFd), DaemonError> {
        let Some(governed) = now.agents.get(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        let local =
            governed.definition.as_ref().map(|d| d.policy.local.clone()).unwrap_or_default();
        let mut plan = Plan::new(run.command, user);
        plan.cwd = run.cwd;
        plan.env = run.env;
        plan.trust = self.supervisor.trust().clone();
        plan.resolv_conf = Some(resolv_conf());
        plan.covered =
            vec![self.state.clone(), crate::config::DEFAULT_STATE.into(), self.run.clone()];
        plan.covered.extend(run.covered);
        plan.unix_sockets = local.unix;
        plan.keep_privileges = run.keep_privileges;
        plan.allow_io_uring = run.allow_io_uring;
        plan.umask = Some(run.umask);
        let spec =
            Spec { plan, cgroup: governed.cgroup.as_fd(), netns: netns.as_fd(), launcher: None };
        let terminals = Terminals { replaced: run.terminal, foreground: run.foreground };
        let [stdin, stdout, stderr] = stdio;
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        launch_for(spec, terminals, run.limits, streams).map_err(DaemonError::Contain)
    }

    /// The command is this process's child: waits for its end, and clears up after it.
    fn reap_later(self: &Arc<Self>, name: String, pid: Pid) -> Result<(), DaemonError> {
        let governor = Arc::clone(self);
        let reap = move || {
            let _ = waitpid(pid, None);
            governor.end_run(&mut governor.lock(), &name);
        };
        thread::Builder::new()
            .name("egret-run".into())
            .spawn(reap)
            .map(drop)
            .map_err(DaemonError::io("start a thread"))
    }

    /// Kills what is left of a command and takes its walls down.
    pub(super) fn end_run(&self, now: &mut Now, name: &str) {
        let Some(governed) = now.agents.get(name) else { return };
        let path = governed.path.clone();
        self.supervisor.note_or_keep(session_note(
            governed,
            NoteKind::SessionEnd,
            name,
            "run ended".into(),
        ));
        let Some(governed) = now.agents.get_mut(name) else { return };
        let attachment = governed.attachment.take();
        let group = governed.cgroup.path().to_owned();
        if let Err(error) = governed.cgroup.end(DEATH) {
            tracing::error!(%error, "processes are left, and closed");
            governed.attachment = attachment;
            governed.closed.stuck = Some("its processes did not end".into());
            if let Err(error) = self.publish(now, &[name]) {
                tracing::error!(%error, "it is closed with the next interceptor");
            }
            return;
        }
        if let Some(Err(error)) = attachment.map(|a| a.detach()) {
            tracing::warn!(group = %group.display(), %error, "pins stay behind");
        }
        self.strike(now, name, &path);
    }
}

fn session_note(governed: &Governed, kind: NoteKind, name: &str, message: String) -> Note {
    let label = governed.label.clone().unwrap_or_else(|| name.to_owned());
    let session = Some(governed.session.to_string());
    Note { session, ..note(kind, vec![label], message) }
}

/// Who the command runs as: the peer itself; root may say somebody else.
fn user_of(peer: &Peer, run: &Run) -> Result<Target, DaemonError> {
    let own = format!("{}:{}", peer.uid, peer.gid);
    let wanted = match &run.user {
        Some(user) if peer.uid == 0 => user.as_str(),
        Some(user) if *user == own => user.as_str(),
        Some(user) => return Err(DaemonError::User(user.clone())),
        None => own.as_str(),
    };
    if run.keep_privileges {
        return Err(DaemonError::Privileges);
    }
    user::resolve(Some(wanted), |_| None).map_err(DaemonError::UnknownUser)
}

//! `egret run` where a daemon is: the same command, policy and summary, without root. Secrets are
//! read here, by the user whose they are; the daemon makes the walls and starts the command.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::{Finished, Options, SessionError, lock_in_memory, world};
use crate::contain::{ExitStatus, Remote, hardening, user};
use crate::control::client::{self, ClientError};
use crate::control::wire::{Answer, Request, Run};
use crate::identify::SessionId;
use crate::inject::CredentialSet;
use crate::secrets::Operator;

/// Runs a command by way of the daemon in `run`, and waits until nothing of it is left.
///
/// # Errors
/// Nothing of the command has run.
pub fn run(
    options: &Options,
    run: &Path,
    ended: impl FnOnce(ExitStatus),
) -> Result<Finished, SessionError> {
    // Before the secrets are read. The limits stay as they are: they are the command's too.
    hardening::protect_memory()
        .map_err(|source| SessionError::Io { doing: "protect egret itself", source })?;
    let variable = |name: &str| std::env::var(name).ok();
    let user = user::resolve(options.user.as_deref(), variable)?;
    let operator = Operator::current();
    let credentials =
        CredentialSet::activate(&options.policy, &operator).map_err(SessionError::Secrets)?;
    lock_in_memory(&credentials);
    let remote = Remote::prepare()?;
    let terminals = remote.terminals();
    let cwd = std::env::current_dir()
        .map_err(|source| SessionError::Io { doing: "find the working folder", source })?;
    let command = options.command.first().map(|c| c.to_string_lossy().into_owned());
    let request = Run {
        name: options.name.clone(),
        policy: options.bundle.clone(),
        credentials: credentials.hand_over(),
        command: options.command.clone(),
        env: world::environment(&user, &[&credentials]),
        cwd: cwd.into_os_string(),
        user: Some(format!("{}:{}", user.uid, user.gid)),
        covered: credentials.hidden_files().to_vec(),
        keep_privileges: options.keep_privileges,
        allow_io_uring: options.allow_io_uring,
        terminal: terminals.replaced,
        foreground: terminals.foreground,
        limits: limits(),
        umask: mask(),
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let (answer, fds) = client::ask(run, &Request::Run(Box::new(request)), &streams)?;
    let (Answer::Started { session, pid }, Ok([socket, pidfd])) =
        (answer, <[std::os::fd::OwnedFd; 2]>::try_from(fds))
    else {
        return Err(ClientError::Closed.into());
    };
    let child = remote.take_over(
        Pid::from_raw(pid),
        pidfd,
        socket,
        command.as_deref().unwrap_or_default(),
    )?;
    let status = child.wait(ended).map_err(|source| SessionError::Io { doing: "wait", source })?;
    let summary = match client::ask(run, &Request::Summary { session: session.clone() }, &[]) {
        Ok((Answer::Summary(summary), _)) => summary,
        // The command has run; a daemon that is gone by now has written its records before.
        Ok(_) | Err(_) => crate::audit::Summary::default(),
    };
    Ok(Finished { status, session: SessionId(session.into()), summary, events_dropped: 0 })
}

/// The soft limits that the command would have without egret.
fn limits() -> Vec<(u32, u64)> {
    [Resource::RLIMIT_CORE, Resource::RLIMIT_NOFILE]
        .into_iter()
        .filter_map(|resource| Some((resource as u32, getrlimit(resource).ok()?.0)))
        .collect()
}

fn mask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

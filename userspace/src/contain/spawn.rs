//! From a plan to a running command.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::waitpid;

use super::child::{Child, catch_signals};
use super::hardening::original_limits;
use super::plan::Plan;
use super::terminal::Outer;
use super::wire::{self, Event, Failure, INIT_ARGUMENT, Order, Request, Step};
use crate::sys::signal::Caught;
use crate::sys::{fdpass, process};

/// A command to contain.
#[derive(Debug)]
pub struct Spec<'a> {
    pub plan: Plan,
    /// The agent's cgroup v2 folder. The kernel programs are attached to it before this is used:
    /// the process begins its life inside.
    pub cgroup: BorrowedFd<'a>,
    pub netns: BorrowedFd<'a>,
    /// The program that becomes init: `None` for egret itself. Tests name the built binary.
    pub launcher: Option<PathBuf>,
}

/// Why a command was not started. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
pub enum ContainError {
    #[error("no command was given")]
    NoCommand,
    #[error("{command}: command not found")]
    NotFound { command: String },
    #[error("{command}: {source}")]
    NotExecutable { command: String, source: io::Error },
    #[error("cannot contain the command: {doing}: {source}")]
    Setup { doing: String, source: io::Error },
}

impl ContainError {
    /// The exit code of `run`, as container runtimes have it: 127 not found, 126 not executable,
    /// 125 egret failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::NoCommand | Self::Setup { .. } => 125,
        }
    }

    fn from_failure(failure: Failure, command: String) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        match failure.step {
            Step::Setup => Self::Setup { doing: failure.doing, source },
            Step::Exec if failure.errno == libc::ENOENT => Self::NotFound { command },
            Step::Exec => Self::NotExecutable { command, source },
        }
    }
}

fn setup(doing: &str) -> impl FnOnce(io::Error) -> ContainError {
    move |source| ContainError::Setup { doing: doing.into(), source }
}

/// Starts the command, and returns when its program runs or is known not to. Blocks for some
/// milliseconds; in async code call it on a blocking thread. The child does not depend on the
/// thread that called.
///
/// # Errors
/// See [`ContainError`]; whatever was begun is gone by then.
pub fn spawn(spec: Spec<'_>) -> Result<Child, ContainError> {
    let Some(first) = spec.plan.argv.first() else { return Err(ContainError::NoCommand) };
    let command = first.to_string_lossy().into_owned();
    let outer = if spec.plan.terminal { Outer::detect() } else { None };
    let die_with_parent = spec.plan.die_with_parent;
    let order = Order {
        terminal: outer.as_ref().map(Outer::replaced),
        foreground: outer.as_ref().is_none_or(Outer::begins_in_foreground),
        limits: original_limits(),
        plan: spec.plan,
    };
    let signals = catch_signals().map_err(setup("catch signals"))?;
    let (ours, theirs) = fdpass::pair().map_err(setup("open a socket pair"))?;
    let (pid, pidfd) = start_init(&order, spec.cgroup, spec.netns, &theirs, spec.launcher, None)
        .map_err(setup("start the init process (it needs root)"))?;
    drop(theirs);
    let mut child = Child::new(pid, pidfd, ours, outer, die_with_parent, signals);
    match handshake(&mut child) {
        Ok(()) => Ok(child),
        Err(failure) => {
            child.discard();
            Err(ContainError::from_failure(failure, command))
        }
    }
}

/// Answers init until the command runs.
fn handshake(child: &mut Child) -> Result<(), Failure> {
    let failed = |doing: &str, e: &io::Error| Failure {
        step: Step::Setup,
        doing: doing.into(),
        errno: e.raw_os_error().unwrap_or(libc::EIO),
    };
    loop {
        let (event, fd) = child.receive().map_err(|e| failed("hear from init", &e))?;
        match event {
            Event::Started => return Ok(()),
            Event::Failed(failure) => return Err(failure),
            Event::Terminal => {
                let master = fd.ok_or_else(|| failed("get the terminal", &io::Error::other("")))?;
                child.take_terminal(master).map_err(|e| failed("set up the terminal", &e))?;
                child.request(Request::Go).map_err(|e| failed("answer init", &e))?;
            }
            Event::Stopped(_) | Event::Exited(_) | Event::Killed(_) => {}
        }
    }
}

/// A command that one process starts (the daemon, which may) for another (the user's, whose
/// terminal and signals it has).
#[derive(Debug)]
pub struct Remote {
    outer: Option<Outer>,
    signals: Option<Caught>,
}

/// What a daemon needs to know of the user's side to start the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminals {
    /// Which of 0, 1 and 2 become the command's terminal; `None`: no terminal.
    pub replaced: Option<[bool; 3]>,
    pub foreground: bool,
}

impl Remote {
    /// The user's side: looks at the terminal, and catches the signals that are to be passed on.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub fn prepare() -> Result<Self, ContainError> {
        let signals = catch_signals().map_err(setup("catch signals"))?;
        Ok(Self { outer: Outer::detect(), signals })
    }

    pub fn terminals(&self) -> Terminals {
        Terminals {
            replaced: self.outer.as_ref().map(Outer::replaced),
            foreground: self.outer.as_ref().is_none_or(Outer::begins_in_foreground),
        }
    }

    /// Takes over what the daemon started: from here on the command lives as long as this process.
    ///
    /// # Errors
    /// See [`ContainError`]; nothing of the command runs then.
    pub fn take_over(
        self,
        pid: nix::unistd::Pid,
        pidfd: OwnedFd,
        socket: OwnedFd,
        command: &str,
    ) -> Result<Child, ContainError> {
        let mut child = Child::new(pid, pidfd, socket, self.outer, true, self.signals);
        handshake(&mut child).map_err(|f| ContainError::from_failure(f, command.to_owned()))?;
        Ok(child)
    }
}

/// The daemon's side: starts init with the user's standard streams. Answers its pid (a child of
/// this process, to be reaped by it), its pidfd and the socket that the user's side takes over.
///
/// # Errors
/// When it cannot be started.
pub fn launch_for(
    spec: Spec<'_>,
    terminals: Terminals,
    limits: Vec<(u32, u64)>,
    stdio: [BorrowedFd<'_>; 3],
) -> Result<(nix::unistd::Pid, OwnedFd, OwnedFd), ContainError> {
    let order = Order {
        terminal: terminals.replaced,
        foreground: terminals.foreground,
        limits,
        plan: spec.plan,
    };
    let (theirs, inits) = fdpass::pair().map_err(setup("open a socket pair"))?;
    let (pid, pidfd) =
        start_init(&order, spec.cgroup, spec.netns, &inits, spec.launcher, Some(stdio))
            .map_err(setup("start the init process (it needs root)"))?;
    Ok((pid, pidfd, theirs))
}

fn start_init(
    order: &Order,
    cgroup: BorrowedFd<'_>,
    netns: BorrowedFd<'_>,
    socket: &OwnedFd,
    launcher: Option<PathBuf>,
    stdio: Option<[BorrowedFd<'_>; 3]>,
) -> io::Result<(nix::unistd::Pid, OwnedFd)> {
    let order = high(memory_file(&wire::encode(order)?)?.as_fd())?;
    let (netns, socket) = (high(netns)?, high(socket.as_fd())?);
    let program = launcher.unwrap_or_else(|| "/proc/self/exe".into());
    let program = CString::new(program.into_os_string().into_vec())?;
    let number = |fd: &OwnedFd| CString::new(fd.as_raw_fd().to_string());
    let argv = [
        c"egret".to_owned(),
        CString::new(INIT_ARGUMENT)?,
        number(&socket)?,
        number(&order)?,
        number(&netns)?,
    ];
    let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    process::launch(&process::Launch {
        program: &program,
        argv: &argv,
        env: &[], // init needs none, and the operator's may hold secrets
        stdio,
        keep: &[socket.as_fd(), order.as_fd(), netns.as_fd()],
        cgroup: Some(cgroup),
        namespaces: u64::from(namespaces.bits().cast_unsigned()),
    })
}

/// A copy of `fd` with a number that no standard stream has.
fn high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(10))?;
    process::adopt(raw)
}

fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"egret-order", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

impl Child {
    /// After a failure: makes sure that nothing is left, and reaps it.
    fn discard(self) {
        let _ = self.killer().map(|k| k.kill());
        let _ = waitpid(self.pid(), None);
    }
}

/// Whether any standard stream is a terminal, so that a plan with `terminal` gets one.
pub(super) fn standard_terminals() -> [bool; 3] {
    [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()]
}

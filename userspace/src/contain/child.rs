//! A running contained command, seen from egret.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::terminal::{Outer, Relay};
use super::wire::{Event, Request};
use crate::sys::fdpass;
use crate::sys::process::signal_pidfd;
use crate::sys::signal::{Caught, stop_as_default};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(u8),
    /// A signal of this number ended it.
    Killed(i32),
    /// Init was killed, so it is not known; everything inside is gone.
    Lost,
}

impl ExitStatus {
    /// The exit code of `run`: the command's own, or 128 + the signal's number.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => u8::try_from(128 + signal).unwrap_or(255),
            Self::Lost => 128 + 9,
        }
    }
}

/// Ends everything inside, from any thread, at any time.
#[derive(Debug)]
pub struct Killer(OwnedFd);

impl Killer {
    /// Sends SIGKILL to init; the kernel kills all of its PID namespace with it.
    ///
    /// # Errors
    /// `ESRCH` when it is gone already.
    pub fn kill(&self) -> io::Result<()> {
        signal_pidfd(self.0.as_fd(), Signal::SIGKILL)
    }
}

/// A contained command. Dropping it without [`Child::wait`] closes the socket to init, which
/// ends everything inside (unless the plan said otherwise).
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    socket: OwnedFd,
    terminal: Terminal,
    die_with_parent: bool,
    signals: Option<Caught>,
}

#[derive(Debug)]
enum Terminal {
    None,
    /// Known, and the inner one has not arrived yet.
    Outer(Outer),
    Relay(Box<Relay>),
}

/// What [`Child::wait`] handles.
const CAUGHT: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// A stop that lasted less than this was none: no person continues a program so fast.
const NOT_STOPPED: Duration = Duration::from_millis(5);

/// Catches what [`Child::wait`] handles. Taken before the command starts, so that a signal that
/// comes while it starts is passed on too; `None` while another child has it.
pub(super) fn catch_signals() -> io::Result<Option<Caught>> {
    match Caught::new(&CAUGHT) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        caught => caught.map(Some),
    }
}

impl Child {
    pub(super) fn new(
        pid: Pid,
        pidfd: OwnedFd,
        socket: OwnedFd,
        outer: Option<Outer>,
        die_with_parent: bool,
        signals: Option<Caught>,
    ) -> Self {
        let terminal = outer.map_or(Terminal::None, Terminal::Outer);
        Self { pid, pidfd, socket, terminal, die_with_parent, signals }
    }

    /// The pid of init as egret sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The pidfd of init: readable when everything inside has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the command dies when egret does.
    pub fn dies_with_parent(&self) -> bool {
        self.die_with_parent
    }

    /// A handle that ends everything inside.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn killer(&self) -> io::Result<Killer> {
        self.pidfd.try_clone().map(Killer)
    }

    /// Sends a signal to the command's process group; after its end, to all that is left.
    ///
    /// # Errors
    /// When init is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.request(Request::Signal(signal as i32))
    }

    pub(super) fn request(&self, request: Request) -> io::Result<()> {
        fdpass::send(&self.socket, &serde_json::to_vec(&request)?, None)
    }

    pub(super) fn receive(&self) -> io::Result<(Event, Option<OwnedFd>)> {
        let message = fdpass::receive(&self.socket)?;
        let (bytes, fd) = message.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((serde_json::from_slice(&bytes)?, fd))
    }

    pub(super) fn take_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        if let Terminal::Outer(outer) = std::mem::replace(&mut self.terminal, Terminal::None) {
            outer.dress(&master)?;
            self.terminal = Terminal::Relay(Box::new(Relay::new(outer, master)?));
        }
        Ok(())
    }

    /// Serves the command until nothing of it is left: relays its terminal, passes signals on,
    /// stops and goes on with it. `ended` is called once when the command itself has ended,
    /// while what it left in the background may still run.
    ///
    /// Blocks, so in async code it belongs on a thread of its own (`std::thread`, or
    /// `spawn_blocking`). From [`super::spawn`] on the child owns the handlers of SIGINT, SIGTERM, SIGHUP, SIGQUIT,
    /// SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT and SIGWINCH, and puts back what was there before. When
    /// several children are waited for at once, signals go to the first.
    ///
    /// # Errors
    /// When signals cannot be caught or polling fails; everything inside is then ended.
    pub fn wait(mut self, ended: impl FnOnce(ExitStatus)) -> io::Result<ExitStatus> {
        let mut ended = Some(ended);
        let mut tell = |status| {
            if let Some(f) = ended.take() {
                f(status);
            }
        };
        let mut signals = self.signals.take();
        self.begin_terminal();
        let status = self.serve(signals.as_mut(), &mut tell)?;
        if let Terminal::Relay(relay) = &mut self.terminal {
            relay.finish();
            relay.outer.restore();
        }
        self.reap()?;
        Ok(status)
    }

    /// Waits for init's end, which is the end of everything inside. It may be another's child.
    fn reap(&self) -> io::Result<()> {
        match waitpid(self.pid, None) {
            Err(nix::errno::Errno::ECHILD) => {
                crate::sys::poll::wait(&[(self.pidfd.as_raw_fd(), PollFlags::POLLIN)]).map(drop)
            }
            other => Ok(other.map(drop)?),
        }
    }

    fn serve(
        &mut self,
        mut signals: Option<&mut Caught>,
        tell: &mut impl FnMut(ExitStatus),
    ) -> io::Result<ExitStatus> {
        let mut status = ExitStatus::Lost;
        loop {
            let ready = self.poll(signals.as_deref())?;
            while let Some(signal) = signals.as_mut().and_then(|s| s.take()) {
                self.on_signal(signal);
            }
            if let Terminal::Relay(relay) = &mut self.terminal {
                relay.step(ready.outer, ready.master);
            }
            if !ready.socket {
                continue;
            }
            let event = match self.receive() {
                Ok((event, _)) => event,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(status),
                Err(e) => return Err(e),
            };
            match event {
                Event::Stopped(signal) => self.on_stop(signal),
                Event::Exited(code) => status = ExitStatus::Exited(code.to_le_bytes()[0]),
                Event::Killed(signal) => status = ExitStatus::Killed(signal),
                Event::Terminal | Event::Started | Event::Failed(_) => {}
            }
            if matches!(event, Event::Exited(_) | Event::Killed(_)) {
                // From here on ^C is egret's, and reaches what is left in the background.
                if let Terminal::Relay(relay) = &mut self.terminal {
                    relay.outer.restore();
                }
                tell(status);
            }
        }
    }

    fn poll(&self, signals: Option<&Caught>) -> io::Result<Ready> {
        let relay = match &self.terminal {
            Terminal::Relay(r) => r.interests(),
            Terminal::None | Terminal::Outer(_) => [(-1, PollFlags::empty()); 2],
        };
        let always = PollFlags::POLLIN;
        let mut wanted = vec![
            (self.socket.as_raw_fd(), always),
            (signals.map_or(-1, |s| s.as_fd().as_raw_fd()), always),
        ];
        wanted.extend(relay);
        let answers = crate::sys::poll::wait(&wanted)?;
        Ok(Ready { socket: !answers[0].is_empty(), outer: answers[2], master: answers[3] })
    }

    fn begin_terminal(&mut self) {
        if let Terminal::Relay(relay) = &mut self.terminal
            && relay.outer.begins_in_foreground()
        {
            let _ = relay.outer.make_raw();
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGWINCH => {
                if let Terminal::Relay(relay) = &self.terminal {
                    relay.resized();
                }
            }
            // Only a SIGCONT that nobody here waited for: the command may have been stopped.
            Signal::SIGCONT => self.resume(),
            other => {
                let _ = self.signal(other);
            }
        }
    }

    /// The command has stopped. Either it wants the terminal and can have it, or egret stops the
    /// way any command does, and goes on when it is continued.
    fn on_stop(&mut self, signal: i32) {
        let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSTOP);
        let wants_terminal = matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU);
        if let Terminal::Relay(relay) = &mut self.terminal {
            if wants_terminal && relay.outer.in_foreground() {
                let _ = relay.outer.take();
                let _ = self.request(Request::Resume { foreground: true });
                return;
            }
            relay.outer.restore();
        }
        // SIGSTOP cannot be given back to the default; as SIGTSTP it stops all the same.
        let signal = if signal == Signal::SIGSTOP { Signal::SIGTSTP } else { signal };
        let began = Instant::now();
        stop_as_default(signal, matches!(self.terminal, Terminal::Relay(_)));
        if wants_terminal && began.elapsed() < NOT_STOPPED {
            // An orphaned group in the background is not stopped, and will never have the
            // terminal; a program without egret would get an error from it.
            let _ = self.signal(Signal::SIGHUP);
        }
        self.resume();
    }

    fn resume(&mut self) {
        let mut foreground = true;
        if let Terminal::Relay(relay) = &mut self.terminal {
            foreground = relay.outer.begins_in_foreground();
            if foreground {
                let _ = relay.outer.make_raw();
            }
            relay.resized();
        }
        let _ = self.request(Request::Resume { foreground });
    }
}

struct Ready {
    socket: bool,
    outer: PollFlags,
    master: PollFlags,
}

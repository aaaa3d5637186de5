//! What init does while the command runs: wait for children, and do what egret asks.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, getpgrp, tcsetpgrp};

use super::{next_request, report};
use crate::contain::wire::{Event, Request};
use crate::sys::poll;

/// Pid 1 at work.
#[derive(Debug)]
pub(super) struct Reaper {
    main: Pid,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    die_with_parent: bool,
    parent_is_there: bool,
    stopped: bool,
    /// The exit code of the command, once it has one.
    code: Option<u8>,
    asked_to_end: bool,
}

enum Next {
    GoOn,
    End,
}

impl Reaper {
    pub(super) fn new(
        main: Pid,
        socket: OwnedFd,
        terminal: Option<OwnedFd>,
        die_with_parent: bool,
    ) -> Self {
        Self {
            main,
            socket,
            terminal,
            die_with_parent,
            parent_is_there: true,
            stopped: false,
            code: None,
            asked_to_end: false,
        }
    }

    /// Runs until nothing but init is left, or until egret is gone. When it returns, init exits
    /// and the kernel kills whatever is left in the namespace. All signals are blocked here.
    pub(super) fn run(mut self) -> u8 {
        release_streams();
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        let Ok(children) =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        else {
            return super::FAILED;
        };
        loop {
            if let Next::End = self.reap() {
                return self.code.unwrap_or(super::FAILED);
            }
            let socket = if self.parent_is_there { self.socket.as_raw_fd() } else { -1 };
            let wanted =
                [(children.as_fd().as_raw_fd(), PollFlags::POLLIN), (socket, PollFlags::POLLIN)];
            let Ok(ready) = poll::wait(&wanted) else { return super::FAILED };
            while let Ok(Some(_)) = children.read_signal() {}
            if !ready[1].is_empty()
                && let Next::End = self.serve()
            {
                return super::FAILED;
            }
        }
    }

    /// Collects everything that has ended or stopped.
    fn reap(&mut self) -> Next {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.main => {
                    self.ended(&Event::Exited(code), code);
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.main => {
                    self.ended(&Event::Killed(signal as i32), 128 + signal as i32);
                }
                Ok(WaitStatus::Stopped(pid, signal)) if pid == self.main => {
                    self.stopped = true;
                    let _ = report(&self.socket, &Event::Stopped(signal as i32), None);
                }
                Ok(WaitStatus::StillAlive) => return Next::GoOn,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return Next::End, // ECHILD: nothing is left
            }
        }
    }

    fn ended(&mut self, event: &Event, code: i32) {
        self.code = Some(u8::try_from(code).unwrap_or(255));
        let _ = report(&self.socket, event, None);
    }

    /// Does one thing that egret asks.
    fn serve(&mut self) -> Next {
        match next_request(&self.socket) {
            Ok(Some(Request::Signal(number))) => {
                let Ok(signal) = Signal::try_from(number) else { return Next::GoOn };
                self.pass_on(signal)
            }
            Ok(Some(Request::Resume { foreground })) => {
                self.resume(foreground);
                Next::GoOn
            }
            Ok(Some(Request::Go)) => Next::GoOn,
            Ok(None) | Err(_) => {
                self.parent_is_there = false;
                if self.die_with_parent { Next::End } else { Next::GoOn }
            }
        }
    }

    /// To the command's process group; when the command has ended, to all that it left behind,
    /// and the second request to end them ends them.
    fn pass_on(&mut self, signal: Signal) -> Next {
        if self.code.is_none() {
            let _ = killpg(self.main, signal);
            return Next::GoOn;
        }
        let ends = matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP);
        if ends && std::mem::replace(&mut self.asked_to_end, true) {
            return Next::End;
        }
        let _ = kill(Pid::from_raw(-1), signal);
        Next::GoOn
    }

    /// Continues the command if it was stopped. Nothing happens otherwise: inside a shell the
    /// foreground may belong to one of its jobs.
    fn resume(&mut self, foreground: bool) {
        if !std::mem::take(&mut self.stopped) {
            return;
        }
        if let Some(tty) = &self.terminal {
            let group = if foreground { self.main } else { getpgrp() };
            let _ = tcsetpgrp(tty, group);
        }
        let _ = killpg(self.main, Signal::SIGCONT);
    }
}

/// Init keeps no stream of the command's open: a reader of its output sees the end in time.
fn release_streams() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
}

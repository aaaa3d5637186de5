//! The operator's terminal on the outside of a contained command, which has a pseudoterminal of
//! its own. So nothing inside can type into the operator's terminal or change its modes, and job
//! control inside is complete.
//!
//! When egret has the terminal to itself, the outer terminal is raw and bytes are relayed both
//! ways: ^C and ^Z reach the inner terminal, which makes the signals. In a pipeline, or in the
//! background, the command begins in the background of its terminal and the outer one is left
//! alone; only when the command wants to read or set the terminal (and the kernel stops it for
//! that) does egret take the outer one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};

use super::spawn::standard_terminals;
use crate::sys::tty;

/// The terminal that egret was started on.
#[derive(Debug)]
pub(super) struct Outer {
    /// A descriptor of its own, so that changing its flags changes no one else's.
    tty: File,
    replaced: [bool; 3],
    pipeline: bool,
    cooked: Termios,
    raw: bool,
}

impl Outer {
    /// The terminal among the standard streams, if there is one.
    pub(super) fn detect() -> Option<Self> {
        let replaced = standard_terminals();
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let first = replaced.iter().position(|t| *t)?;
        let tty: File = streams[first].try_clone_to_owned().ok()?.into();
        let cooked = tcgetattr(&tty).ok()?;
        let pipeline = streams.iter().take(2).any(|s| is_pipe(*s));
        Some(Self { tty, replaced, pipeline, cooked, raw: false })
    }

    pub(super) fn replaced(&self) -> [bool; 3] {
        self.replaced
    }

    pub(super) fn begins_in_foreground(&self) -> bool {
        !self.pipeline && self.in_foreground()
    }

    /// Whether egret's process group is the terminal's foreground group.
    pub(super) fn in_foreground(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|g| g == getpgrp())
    }

    /// Gives the inner terminal this one's modes and size.
    pub(super) fn dress(&self, master: &OwnedFd) -> io::Result<()> {
        tcsetattr(master, SetArg::TCSANOW, &self.cooked)?;
        self.copy_size(master)
    }

    pub(super) fn copy_size(&self, master: &OwnedFd) -> io::Result<()> {
        tty::set_size(master, tty::size(&self.tty)?)
    }

    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }

    /// Raw mode, remembering what was there. Only ever called in the foreground.
    pub(super) fn make_raw(&mut self) -> io::Result<()> {
        if !self.raw {
            self.cooked = tcgetattr(&self.tty)?;
            let mut raw = self.cooked.clone();
            cfmakeraw(&mut raw);
            tcsetattr(&self.tty, SetArg::TCSADRAIN, &raw)?;
            self.raw = true;
        }
        Ok(())
    }

    /// Takes the terminal for the command although egret is part of a pipeline: it asked.
    pub(super) fn take(&mut self) -> io::Result<()> {
        self.pipeline = false;
        self.make_raw()
    }

    /// Puts the modes back as they were.
    pub(super) fn restore(&mut self) {
        if self.raw {
            self.raw = false;
            let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, &self.cooked);
        }
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        self.restore();
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|s| {
        let kind = SFlag::from_bits_truncate(s.st_mode) & SFlag::S_IFMT;
        kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK
    })
}

/// Bytes waiting in one direction; small, so that a slow side slows the other.
const BUFFER: usize = 16 * 1024;

/// Both directions between the outer terminal and the master of the inner one.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) outer: Outer,
    master: File,
    to_inside: Vec<u8>,
    to_outside: Vec<u8>,
    input_ended: bool,
    output_ended: bool,
}

/// What the relay waits for: (descriptor, events); -1 is skipped by poll(2).
pub(super) type Interest = (RawFd, PollFlags);

impl Relay {
    pub(super) fn new(outer: Outer, master: OwnedFd) -> io::Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR))?;
        let relay = Self {
            outer,
            master: master.into(),
            to_inside: Vec::new(),
            to_outside: Vec::new(),
            input_ended: false,
            output_ended: false,
        };
        Ok(relay)
    }

    /// First the outer terminal, then the master. Input is read only while the outer terminal is
    /// raw, that is, while egret owns it.
    pub(super) fn interests(&self) -> [Interest; 2] {
        let mut outer = PollFlags::empty();
        let mut master = PollFlags::empty();
        if self.outer.is_raw() && !self.input_ended && self.to_inside.len() < BUFFER {
            outer |= PollFlags::POLLIN;
        }
        if !self.to_outside.is_empty() {
            outer |= PollFlags::POLLOUT;
        }
        if !self.output_ended && self.to_outside.len() < BUFFER {
            master |= PollFlags::POLLIN;
        }
        if !self.to_inside.is_empty() {
            master |= PollFlags::POLLOUT;
        }
        // Without interest the descriptor is left out: a hang-up would wake poll for ever.
        let fd = |f: &File, e: PollFlags| if e.is_empty() { -1 } else { f.as_raw_fd() };
        [(fd(&self.outer.tty, outer), outer), (fd(&self.master, master), master)]
    }

    /// Moves what can be moved, after poll said what is ready.
    pub(super) fn step(&mut self, outer: PollFlags, master: PollFlags) {
        let readable = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        if master.intersects(readable) && self.to_outside.len() < BUFFER {
            self.output_ended |= fill(&mut self.master, &mut self.to_outside);
        }
        if outer.intersects(readable) && self.outer.is_raw() && self.to_inside.len() < BUFFER {
            self.input_ended |= fill(&mut self.outer.tty, &mut self.to_inside);
        }
        if outer.intersects(PollFlags::POLLOUT) {
            drain(&mut self.outer.tty, &mut self.to_outside);
        }
        if master.intersects(PollFlags::POLLOUT) {
            drain(&mut self.master, &mut self.to_inside);
        }
    }

    pub(super) fn resized(&self) {
        if let Ok(size) = tty::size(&self.outer.tty) {
            let _ = tty::set_size(&self.master, size);
        }
    }

    /// Writes out what the command had still printed when everything inside was gone.
    pub(super) fn finish(&mut self) {
        while !self.output_ended {
            self.output_ended = fill(&mut self.master, &mut self.to_outside);
            let before = self.to_outside.len();
            while !self.to_outside.is_empty() {
                if !drain(&mut self.outer.tty, &mut self.to_outside) {
                    return;
                }
            }
            if before == 0 && !self.output_ended {
                return;
            }
        }
    }
}

/// Reads once. Returns whether this side has ended (EIO: the other side of a pty is closed).
fn fill(from: &mut File, buffer: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match from.read(&mut chunk) {
        Ok(0) => true,
        Ok(n) => {
            buffer.extend(&chunk[..n]);
            false
        }
        Err(e) => !retryable(&e),
    }
}

/// Writes once, at most what a terminal surely takes without blocking for long. What cannot be
/// written to a terminal that is gone is dropped. Returns whether it makes sense to go on.
fn drain(to: &mut File, buffer: &mut Vec<u8>) -> bool {
    match to.write(&buffer[..buffer.len().min(4096)]) {
        Ok(n) => {
            buffer.drain(..n);
            true
        }
        Err(e) if retryable(&e) => true,
        Err(_) => {
            buffer.clear();
            false
        }
    }
}

fn retryable(e: &io::Error) -> bool {
    matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EAGAIN | Errno::EINTR))
}

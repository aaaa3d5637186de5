//! Talks to a child over its three pipes at once, until it has closed its output, a deadline has
//! passed or it has written too much.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

/// How much of standard error is kept; the rest is read and dropped.
const MAX_STDERR: usize = 2048;

/// The three pipes of a child, and what has gone through them.
pub(super) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    question: Vec<u8>,
    written: usize,
    answer: Zeroizing<Vec<u8>>,
    limit: usize,
    said: Vec<u8>,
}

/// What a child wrote.
pub(super) struct Collected {
    pub(super) answer: Zeroizing<Vec<u8>>,
    pub(super) stderr: Vec<u8>,
    /// Why reading ended before the child closed its output; `None` if it did close it.
    pub(super) stopped: Option<Stopped>,
}

/// Why reading ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Late,
    TooMuch,
}

impl Pipes {
    /// Takes the pipes of `child`. `question` goes to its input; of its output at most `limit`
    /// bytes are accepted.
    pub(super) fn of(child: &mut Child, question: Vec<u8>, limit: usize) -> io::Result<Self> {
        let pipes = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            question,
            written: 0,
            // Reserved at once: a vector that grows leaves copies behind.
            answer: Zeroizing::new(Vec::with_capacity(limit + 1)),
            limit,
            said: Vec::new(),
        };
        for fd in [fd(&pipes.stdin), fd(&pipes.stdout), fd(&pipes.stderr)].into_iter().flatten() {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(pipes)
    }

    /// Until both outputs are closed, the deadline has passed, or there was too much.
    pub(super) fn run(mut self, deadline: Instant) -> io::Result<Collected> {
        let stopped = loop {
            if self.stdout.is_none() && self.stderr.is_none() {
                break None;
            }
            if !self.wait(deadline)? {
                break Some(Stopped::Late);
            }
            self.write()?;
            self.read_answer()?;
            self.read_stderr()?;
            if self.answer.len() > self.limit {
                break Some(Stopped::TooMuch);
            }
        };
        Ok(Collected { answer: self.answer, stderr: self.said, stopped })
    }

    /// False when the deadline passed first.
    fn wait(&self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Rounded up, so that the last millisecond does not spin.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let want = [
            (fd(&self.stdin), PollFlags::POLLOUT),
            (fd(&self.stdout), PollFlags::POLLIN),
            (fd(&self.stderr), PollFlags::POLLIN),
        ];
        let mut fds: Vec<_> =
            want.into_iter().filter_map(|(fd, flags)| Some(PollFd::new(fd?, flags))).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        let rest = self.question.get(self.written..).unwrap_or_default();
        match stdin.write(rest) {
            Ok(n) => self.written += n,
            Err(e) if again(&e) => return Ok(()),
            // A command need not read what it is asked.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => self.written = self.question.len(),
            Err(e) => return Err(e),
        }
        if self.written == self.question.len() {
            self.stdin = None;
        }
        Ok(())
    }

    fn read_answer(&mut self) -> io::Result<()> {
        let Some(stdout) = &mut self.stdout else { return Ok(()) };
        let room = (self.limit + 1).saturating_sub(self.answer.len());
        let mut chunk = Zeroizing::new([0; 4096]);
        let chunk = &mut chunk[..room.min(4096)];
        match stdout.read(chunk) {
            Ok(0) => self.stdout = None,
            Ok(n) => self.answer.extend_from_slice(&chunk[..n]),
            Err(e) if again(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn read_stderr(&mut self) -> io::Result<()> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        let mut chunk = [0; 4096];
        match stderr.read(&mut chunk) {
            Ok(0) => self.stderr = None,
            Ok(n) => {
                let room = MAX_STDERR.saturating_sub(self.said.len());
                self.said.extend_from_slice(&chunk[..n.min(room)]);
            }
            Err(e) if again(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn fd(pipe: &Option<impl AsFd>) -> Option<BorrowedFd<'_>> {
    pipe.as_ref().map(AsFd::as_fd)
}

fn again(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

//! The warden's end of the socket to the interceptor: orders out, reports back.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::control::frame;
use crate::intercept::moment::Moment;
use crate::intercept::wire::{Numbered, Order, Report};

/// How long an order may take. Parsing the policies of all agents is the longest.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an order may wait for room in the socket, which an interceptor that hangs leaves full.
const ROOM_SECONDS: i64 = 5;

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(
        "the interceptor is not there; it is being started again, and everything is refused meanwhile"
    )]
    Gone,
    #[error("the interceptor did not answer in time")]
    Silent,
    #[error("the interceptor refused: {0}")]
    Refused(String),
    #[error("the interceptor answered something else than was asked")]
    Confused,
    #[error("the interceptor could not be told: {0}")]
    Send(#[source] io::Error),
}

type Waiting = Mutex<HashMap<u64, Sender<Report>>>;

/// A connection to one interceptor. When it is gone every order fails.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    next: AtomicU64,
    waiting: Arc<Waiting>,
    /// When a beat was last heard, in milliseconds since `since`.
    beat: Arc<AtomicU64>,
    since: Instant,
}

impl Link {
    /// Takes the socket over, and listens to it on a thread of its own.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(ROOM_SECONDS))?;
        let waiting: Arc<Waiting> = Arc::default();
        let (since, beat) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let ear = socket.try_clone()?;
        let (told, heard) = (Arc::clone(&waiting), Arc::clone(&beat));
        std::thread::Builder::new().name("egret-reports".into()).spawn(move || {
            while let Ok(Some((Numbered { n, what }, _))) =
                frame::receive::<Numbered<Report>>(&ear, frame::ALL_POLICIES)
            {
                if matches!(what, Report::Beat) {
                    heard.store(millis(since), Ordering::Relaxed);
                }
                if let Some(waiter) = lock(&told).remove(&n) {
                    let _ = waiter.send(what); // it may have given up
                }
            }
            // Dropping the senders tells everybody who waits.
            lock(&told).clear();
        })?;
        Ok(Self { socket, next: AtomicU64::new(1), waiting, beat, since })
    }

    /// Gives an order and waits for its report.
    pub(super) fn ask(&self, what: Order, fds: &[BorrowedFd<'_>]) -> Result<Report, LinkError> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, hear) = channel();
        lock(&self.waiting).insert(n, tell);
        if let Err(error) = frame::send(self.socket.as_fd(), &Numbered { n, what }, fds) {
            lock(&self.waiting).remove(&n);
            return Err(match error.raw_os_error() {
                Some(libc::EPIPE | libc::ECONNRESET) => LinkError::Gone,
                Some(libc::EAGAIN) => LinkError::Silent,
                _ => LinkError::Send(error),
            });
        }
        match hear.recv_timeout(PATIENCE) {
            Ok(Report::Failed(why)) => Err(LinkError::Refused(why)),
            Ok(report) => Ok(report),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Err(LinkError::Gone),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                lock(&self.waiting).remove(&n);
                Err(LinkError::Silent)
            }
        }
    }

    /// Gives an order whose report says only that it was done.
    pub(super) fn tell(&self, what: Order, fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        match self.ask(what, fds)? {
            Report::Done => Ok(()),
            _ => Err(LinkError::Confused),
        }
    }

    /// Says that the warden lives. Nobody waits for the answer.
    pub(super) fn tick(&self) -> io::Result<()> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        frame::send(
            self.socket.as_fd(),
            &Numbered { n, what: Order::Tick { sent: Moment::now() } },
            &[],
        )
    }

    /// How long no tick was answered.
    pub(super) fn silence(&self) -> Duration {
        Duration::from_millis(millis(self.since).saturating_sub(self.beat.load(Ordering::Relaxed)))
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashMap<u64, Sender<Report>>> {
    // Entries come and go whole.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

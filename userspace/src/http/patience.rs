//! Time limits for a peer that stops in the middle: silence is measured from the last thing that
//! moved, and only while something is waited for.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A time limit that begins anew whenever something has moved.
pub struct Silence {
    limit: Duration,
    /// Made when something is waited for the first time.
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Silence {
    pub fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, waiting: false }
    }

    /// Something moved.
    pub fn moved(&mut self) {
        self.waiting = false;
    }

    /// Nothing moves at present: ready when that has lasted for the limit.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            // A limit too far away to be told is none.
            let Some(until) = Instant::now().checked_add(self.limit) else { return Poll::Pending };
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(until),
                None => self.sleep = Some(Box::pin(sleep_until(until))),
            }
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// A peer that never falls silent, and sends next to nothing: how much came in the time that was
/// spent waiting for it.
#[derive(Debug)]
pub struct Rate {
    /// Bytes per second.
    least: u64,
    window: Duration,
    waiting: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Rate {
    /// At least `least` bytes per second, on average over each `window` of waiting.
    pub fn new(least: u64, window: Duration) -> Self {
        Self { least, window, waiting: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// Nothing is there at present.
    pub fn waits(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// `n` bytes came. False when a window is over in which too few did.
    pub fn moved(&mut self, n: u64, now: Instant) -> bool {
        self.bytes += n;
        if let Some(since) = self.waiting.take() {
            self.waited += now.saturating_duration_since(since);
        }
        if self.waited < self.window {
            return true;
        }
        let enough =
            u128::from(self.bytes) * 1000 >= u128::from(self.least) * self.waited.as_millis();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

impl fmt::Debug for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Silence").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Attached to the requests of a connection: whether its peer stopped reading.
#[derive(Clone, Debug, Default)]
pub struct Stalled(Arc<AtomicBool>);

impl Stalled {
    /// The peer read nothing for the whole limit, and the connection was given up.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The connection is given up.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What the answers of one connection are waiting for.
#[derive(Debug, Default)]
pub struct Pace {
    /// Answers whose body is not at its end, and requests without an answer yet.
    busy: AtomicUsize,
    /// Bodies of which the peer took all there was: they wait for the upstream.
    upstream: AtomicUsize,
    /// Requests without an answer yet.
    unanswered: AtomicUsize,
    /// Counts whenever an exchange begins or its body is asked for more.
    moves: AtomicU64,
}

impl Pace {
    /// An exchange begins; it ends when the value is dropped.
    pub fn begin(self: &Arc<Self>) -> Exchange {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
        Exchange { pace: Arc::clone(self), waits: Waits::Answer }
    }

    /// Whether no exchange is open.
    pub fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Whether an open exchange waits for its peer to read.
    pub fn waits_for_peer(&self) -> bool {
        let elsewhere =
            self.upstream.load(Ordering::Relaxed) + self.unanswered.load(Ordering::Relaxed);
        self.busy.load(Ordering::Relaxed) > elsewhere
    }

    /// Completes when `condition` has held for `limit` and nothing moved meanwhile, looking once
    /// in that time.
    pub async fn still(&self, limit: Duration, condition: impl Fn(&Self) -> bool) {
        let mut last = None;
        loop {
            let moves = self.moves.load(Ordering::Relaxed);
            let holds = condition(self);
            if holds && last == Some(moves) {
                return;
            }
            last = holds.then_some(moves);
            tokio::time::sleep(limit).await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Answer,
    Upstream,
    Peer,
}

/// One exchange of a connection, for its [`Pace`].
#[derive(Debug)]
pub struct Exchange {
    pace: Arc<Pace>,
    waits: Waits,
}

impl Exchange {
    /// The body was asked for more. `upstream`: there was nothing yet.
    pub fn polled(&mut self, upstream: bool) {
        self.pace.moves.fetch_add(1, Ordering::Relaxed);
        self.now(if upstream { Waits::Upstream } else { Waits::Peer });
    }

    fn now(&mut self, waits: Waits) {
        if self.waits != waits {
            if let Some(counter) = self.counter(waits) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(counter) = self.counter(self.waits) {
                counter.fetch_sub(1, Ordering::Relaxed);
            }
            self.waits = waits;
        }
    }

    fn counter(&self, waits: Waits) -> Option<&AtomicUsize> {
        match waits {
            Waits::Answer => Some(&self.pace.unanswered),
            Waits::Upstream => Some(&self.pace.upstream),
            Waits::Peer => None,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.now(Waits::Peer);
        self.pace.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose peer must go on reading what is written.
#[derive(Debug)]
pub struct Patient<IO> {
    io: IO,
    silence: Silence,
    stalled: Stalled,
}

impl<IO> Patient<IO> {
    pub fn new(io: IO, limit: Duration, stalled: Stalled) -> Self {
        Self { io, silence: Silence::new(limit), stalled }
    }

    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.silence.moved();
            return written;
        }
        self.silence.poll_over(cx).map(|()| {
            self.stalled.set();
            Err(io::ErrorKind::TimedOut.into())
        })
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Patient<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Patient<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.bounded(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.io).poll_shutdown(cx);
        self.bounded(cx, closed)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_trickle_is_seen_for_what_it_is() {
        let second = Duration::from_secs(1);
        let trickle = |bytes: u64, waits: bool| {
            let (mut rate, mut now) = (Rate::new(100, 10 * second), Instant::now());
            (0..30).all(|_| {
                if waits {
                    rate.waits(now);
                }
                now += second;
                rate.moved(bytes, now)
            })
        };
        assert!(trickle(100, true), "control: fast enough");
        assert!(!trickle(99, true));
        assert!(trickle(1, false), "nobody waited for it: the upstream was the slow one");
    }

    #[tokio::test]
    async fn a_peer_that_stopped_reading_is_given_up() {
        let (mut agent, egret) = tokio::io::duplex(4);
        let stalled = Stalled::default();
        let mut io = Patient::new(egret, Duration::from_millis(20), stalled.clone());
        io.write_all(b"1234").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        agent.read_exact(&mut [0; 4]).await.unwrap();
        io.write_all(b"1234").await.unwrap();
        assert!(!stalled.is_set(), "silence counts only while something is waited for");
        let error = io.write_all(b"5").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(stalled.is_set());
    }
}

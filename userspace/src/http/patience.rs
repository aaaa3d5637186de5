//! Time limits for a peer that stops in the middle: silence is measured from the last thing that
//! moved, and only while something is waited for.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
            self.stalled.0.store(true, Ordering::Release);
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

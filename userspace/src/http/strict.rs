//! Stands between the agent's HTTP/1 connection and the parser that serves it: every byte passes
//! unchanged, and only once the head it belongs to was checked.
//!
//! Heads and bodies are followed exactly as they alternate on a connection that is kept alive or
//! pipelined. A malformed head is never passed on. A head that is always refused stands in its
//! place, so that the answers before it keep their order and the refusal is written like any
//! other; the connection reads nothing after it. Bytes behind a head that asks to leave HTTP wait
//! until the answer has said whether it does.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunked::Chunks;
use super::head::{self, Framing, HeadLimits, Parsed};
use super::patience::Silence;

/// What the parser is given for a malformed head. Its method is one that [`head::check`] and
/// admission refuse, so no agent can send it and it is never forwarded, whoever sees it.
const STAND_IN: &[u8] = b"- * HTTP/1.1\r\nconnection: close\r\n\r\n";
const STAND_IN_METHOD: &str = "-";

/// How long, and for how many bytes, a refused connection is read after the refusal was written.
/// Closing a socket with unread bytes resets it, and the agent might lose the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Attached to a request that stands in for a malformed one: why it is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub &'static str);

/// A body is malformed, whose head had passed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub struct MalformedBody(pub &'static str);

/// What both sides of the parser tell each other about one connection.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Why the head was malformed that the stand-in stands for.
    malformed: Option<&'static str>,
    /// Requests that were answered, in their order.
    answered: u64,
    /// The last answer was 101: what follows is not HTTP.
    left: bool,
    /// Waits for an answer.
    waker: Option<Waker>,
}

impl Gate {
    /// Why this request only stands in for a malformed one, if it does.
    pub fn unreadable<B>(&self, request: &Request<B>) -> Option<Unreadable> {
        let stands_in = request.method().as_str() == STAND_IN_METHOD;
        stands_in.then(|| self.lock().malformed.map(Unreadable)).flatten()
    }

    /// The next request in order has its answer. `left`: it is 101.
    pub fn answered(&self, left: bool) {
        let mut shared = self.lock();
        shared.answered += 1;
        shared.left = left;
        if let Some(waker) = shared.waker.take() {
            waker.wake();
        }
    }

    /// Whether the connection leaves HTTP after request `n` (counted from 1).
    fn poll_left(&self, n: u64, cx: &Context<'_>) -> Poll<bool> {
        let mut shared = self.lock();
        if shared.answered < n {
            shared.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(shared.left)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        // No invariant spans a panic in these short sections.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's side of an HTTP/1 connection, checked as it is read.
#[derive(Debug)]
pub struct Strict<IO> {
    io: IO,
    gate: Arc<Gate>,
    limits: HeadLimits,
    state: State,
    /// Heads that were passed on.
    passed: u64,
    /// Bytes that the parser was not given; the first `cleared` of them it may have.
    held: BytesMut,
    cleared: usize,
    linger: Option<(Silence, usize)>,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunks),
    /// It depends on the answer to the request with this number.
    Undecided(u64),
    /// To nothing that is HTTP: the connection was upgraded.
    Through,
    /// To a malformed head or what follows one; nothing more is read.
    Refused,
    /// To a malformed body.
    Broken(&'static str),
}

impl<IO> Strict<IO> {
    pub fn new(io: IO, limits: HeadLimits, gate: Arc<Gate>) -> Self {
        Self {
            io,
            gate,
            limits,
            state: State::Head,
            passed: 0,
            held: BytesMut::new(),
            cleared: 0,
            linger: None,
        }
    }

    /// Follows heads and bodies through `bytes`, which are the next; how many of them may pass.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        // Where the request begins that `at` is in, if it is among these bytes.
        let mut begin = None;
        while at < bytes.len() {
            match &mut self.state {
                State::Head => match head::check(&bytes[at..], self.limits) {
                    Parsed::NeedMore => return at,
                    Parsed::Malformed(why) => return self.refuse(why, at),
                    Parsed::Found(head) => {
                        begin = Some(at);
                        at += head.len;
                        self.passed += 1;
                        self.state = match head.framing {
                            Framing::Length(n) => State::Length(n),
                            Framing::Chunked => State::Chunked(Chunks::default()),
                            Framing::None if head.leaves_http => State::Undecided(self.passed),
                            Framing::None => State::Head,
                        };
                    }
                },
                State::Length(left) => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += n;
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = State::Head;
                    }
                }
                State::Chunked(chunks) => match (chunks.scan(&bytes[at..]), begin) {
                    (Ok(scanned), _) => {
                        at += scanned.used;
                        if scanned.done {
                            self.state = State::Head;
                        }
                    }
                    // The head was not passed on yet: the whole request is refused.
                    (Err(why), Some(begin)) => return self.refuse(why, begin),
                    (Err(why), None) => {
                        self.state = State::Broken(why);
                        return 0;
                    }
                },
                State::Undecided(_) | State::Through | State::Refused | State::Broken(_) => break,
            }
        }
        at
    }

    /// Nothing from `at` on may pass.
    fn refuse(&mut self, why: &'static str, at: usize) -> usize {
        self.state = State::Refused;
        self.gate.lock().malformed = Some(why);
        at
    }

    /// Follows the bytes that are held; `pass` of them were found to be in order.
    fn follow_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.cleared = self.follow(&held);
        self.held = held;
        if matches!(self.state, State::Refused | State::Broken(_)) {
            self.held.truncate(self.cleared);
            self.stand_in();
        }
    }

    fn stand_in(&mut self) {
        if matches!(self.state, State::Refused) {
            self.held.extend_from_slice(STAND_IN);
            self.cleared = self.held.len();
        }
    }

    /// Gives the parser what it may have of the bytes that are held.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.cleared.min(buf.remaining());
        buf.put_slice(&self.held[..n]);
        self.held.advance(n);
        self.cleared -= n;
        if self.held.is_empty() {
            self.held = BytesMut::new(); // give the memory back
        }
    }
}

impl<IO: AsyncRead + Unpin> Strict<IO> {
    /// Reads once and takes what may pass into `buf`; the rest is held. `false`: nothing passed,
    /// and something has changed that the caller should look at.
    fn poll_more(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() {
            return Poll::Ready(Ok(true)); // the end
        }
        if self.held.is_empty() {
            let n = self.follow(bytes);
            match self.state {
                State::Refused => self.stand_in(),
                State::Broken(_) => {}
                _ => self.held.extend_from_slice(&bytes[n..]),
            }
            buf.set_filled(before + n);
            return Poll::Ready(Ok(n > 0));
        }
        // Inside a head nothing new can be found before its next line is complete. A head is
        // thereby read at most once per line, however small the pieces are in which it comes.
        let news = memchr::memchr(b'\n', bytes).is_some();
        self.held.extend_from_slice(bytes);
        buf.set_filled(before);
        if news || self.held.len() >= self.limits.bytes {
            self.follow_held();
        }
        Poll::Ready(Ok(false))
    }

    /// Waits for the answer that says what the next bytes are. Meanwhile the end of the
    /// connection is noticed, and bytes that come early are held.
    fn poll_decided(
        &mut self,
        n: u64,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        if let Poll::Ready(left) = self.gate.poll_left(n, cx) {
            if left {
                self.state = State::Through;
                self.cleared = self.held.len();
            } else {
                self.state = State::Head;
                self.follow_held();
            }
            return Poll::Ready(Ok(false));
        }
        while self.held.len() < self.limits.bytes {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let bytes = &buf.filled()[before..];
            if bytes.is_empty() {
                // The end is told at once where nothing came before it.
                return if self.held.is_empty() { Poll::Ready(Ok(true)) } else { Poll::Pending };
            }
            self.held.extend_from_slice(bytes);
            buf.set_filled(before);
        }
        Poll::Pending
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Strict<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.cleared > 0 {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            let done = match &this.state {
                State::Through => return Pin::new(&mut this.io).poll_read(cx, buf),
                State::Broken(why) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, MalformedBody(why));
                    return Poll::Ready(Err(error));
                }
                // The answer to the stand-in ends the connection; nobody waits for more.
                State::Refused => return Poll::Pending,
                State::Undecided(n) => {
                    let n = *n;
                    ready!(this.poll_decided(n, cx, buf))?
                }
                State::Head | State::Length(_) | State::Chunked(_) => {
                    ready!(this.poll_more(cx, buf))?
                }
            };
            if done {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Strict<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            if !matches!(this.state, State::Refused | State::Broken(_)) {
                return Poll::Ready(Ok(()));
            }
        }
        let (patience, read) = this.linger.get_or_insert_with(|| (Silence::new(LINGER), 0));
        let mut rest = [0; 4096];
        while *read < LINGER_BYTES && patience.poll_over(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut rest);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut rest)) {
                Ok(()) if !rest.filled().is_empty() => *read += rest.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;

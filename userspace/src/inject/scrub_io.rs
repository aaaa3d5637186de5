//! A connection that left HTTP (101), without secrets in what it brings back.
//!
//! What may be the beginning of a secret waits for what follows; after a moment of silence a few
//! bytes are let go ([`ScrubStream::let_go`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::scrub::{SILENCE, ScrubStream, Scrubber};

/// Bytes read at once.
const READ: usize = 16 * 1024;

/// Reads are cleaned, writes pass as they are.
pub struct ScrubIo<IO> {
    inner: IO,
    stream: ScrubStream,
    buffer: BytesMut,
    clean: Bytes,
    silence: Option<Pin<Box<Sleep>>>,
    ended: bool,
    hits: Arc<AtomicU64>,
}

impl<IO> ScrubIo<IO> {
    /// `hits` counts the copies of secrets that were masked.
    pub fn new(inner: IO, scrubber: Arc<Scrubber>, hits: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            stream: ScrubStream::new(scrubber),
            buffer: BytesMut::new(),
            clean: Bytes::new(),
            silence: None,
            ended: false,
            hits,
        }
    }

    fn finish(&mut self) {
        self.clean = self.stream.finish();
        self.silence = None;
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ScrubIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.clean.is_empty() {
                let n = this.clean.len().min(out.remaining());
                out.put_slice(&this.clean[..n]);
                this.clean.advance(n);
                this.hits.store(this.stream.hits(), Ordering::Relaxed);
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            this.buffer.resize(READ, 0);
            let mut buffer = ReadBuf::new(&mut this.buffer);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => match buffer.filled().len() {
                    0 => {
                        this.ended = true;
                        this.finish();
                    }
                    n => {
                        let data = this.buffer.split_to(n).freeze();
                        this.clean = this.stream.push(data);
                        this.silence = None;
                    }
                },
                Poll::Pending => {
                    if !this.stream.may_let_go() {
                        return Poll::Pending;
                    }
                    let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
                    ready!(silence.as_mut().poll(cx));
                    this.silence = None;
                    this.clean = this.stream.let_go();
                }
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ScrubIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

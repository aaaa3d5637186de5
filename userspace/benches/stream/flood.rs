//! Bodies without an end in sight.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

const PIECE: usize = 64 * 1024;

/// As many bytes, from one piece of memory.
pub(crate) struct Flood {
    left: u64,
    piece: Bytes,
    moved: Arc<AtomicU64>,
}

impl Flood {
    pub(crate) fn new(bytes: u64, moved: Arc<AtomicU64>) -> Self {
        Self { left: bytes, piece: Bytes::from(vec![b'x'; PIECE]), moved }
    }
}

impl Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let n = self.left.min(PIECE as u64);
        self.left -= n;
        self.moved.fetch_add(n, Ordering::Relaxed);
        let n = usize::try_from(n).unwrap_or(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..n)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Reads to the end; how much it was.
pub(crate) async fn swallow(mut body: Incoming, moved: &AtomicU64) -> u64 {
    let mut all = 0;
    while let Some(frame) = body.frame().await {
        let n = frame.expect("a body").data_ref().map_or(0, |d| d.len() as u64);
        moved.fetch_add(n, Ordering::Relaxed);
        all += n;
    }
    all
}

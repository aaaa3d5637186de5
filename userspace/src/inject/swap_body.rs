//! A request's body on its way out: placeholders swapped, canaries refused.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::header::HeaderName;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::error::BoxError;
use super::swap::{Place, Step, Swaps};

pin_project! {
    /// See [`super::Injection::request_body`]. Holds back only bytes that may be the beginning of
    /// a placeholder.
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        swaps: Option<Arc<Swaps>>,
        stripped: Vec<HeaderName>,
        held: Vec<u8>,
        // Trailers that wait until the held bytes are out.
        trailers: Option<Frame<Bytes>>,
        done: bool,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, swaps: Option<Arc<Swaps>>, stripped: Vec<HeaderName>) -> Self {
        Self { inner, swaps, stripped, held: Vec::new(), trailers: None, done: false }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        loop {
            if *this.done {
                return Poll::Ready(this.trailers.take().map(Ok));
            }
            match ready!(this.inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => match step(this.swaps.as_deref(), this.held, data, false) {
                        Ok(out) if out.is_empty() => {}
                        Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                        Err(e) => return fail(this.done, this.held, e),
                    },
                    Err(frame) => {
                        *this.done = true;
                        match clean_trailers(frame, this.swaps.as_deref(), this.stripped) {
                            Ok(frame) => *this.trailers = frame,
                            Err(e) => return fail(this.done, this.held, e),
                        }
                    }
                },
                Some(Err(e)) => return fail(this.done, this.held, e.into()),
                None => *this.done = true,
            }
            if *this.done && !this.held.is_empty() {
                match step(this.swaps.as_deref(), this.held, Bytes::new(), true) {
                    Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out)))),
                    Err(e) => return fail(this.done, this.held, e),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.trailers.is_none() && (self.done || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.swaps {
            Some(swaps) if swaps.changes_body_length() => SizeHint::default(),
            _ => super::scrub_body::plus(&self.inner.size_hint(), self.held.len()),
        }
    }
}

fn fail<T>(done: &mut bool, held: &mut Vec<u8>, e: BoxError) -> Poll<Option<Result<T, BoxError>>> {
    *done = true;
    held.clear();
    Poll::Ready(Some(Err(e)))
}

/// What of `held` and `data` may go on; the rest stays in `held`.
fn step(
    swaps: Option<&Swaps>,
    held: &mut Vec<u8>,
    data: Bytes,
    last: bool,
) -> Result<Bytes, BoxError> {
    let Some(swaps) = swaps else { return Ok(data) };
    let hay = if held.is_empty() {
        data
    } else {
        let mut joined = std::mem::take(held);
        joined.extend_from_slice(&data);
        Bytes::from(joined)
    };
    Ok(match swaps.body_step(&hay, last)? {
        Step::Same { held: n } => {
            let end = hay.len() - n;
            held.extend_from_slice(&hay[end..]);
            hay.slice(..end)
        }
        Step::Changed { out, held: n } => {
            held.extend_from_slice(&hay[hay.len() - n..]);
            Bytes::from(out)
        }
    })
}

/// Trailers can be merged into the headers by whoever receives them, so they must not bring back
/// what was stripped there.
fn clean_trailers(
    frame: Frame<Bytes>,
    swaps: Option<&Swaps>,
    stripped: &[HeaderName],
) -> Result<Option<Frame<Bytes>>, BoxError> {
    let Ok(mut trailers) = frame.into_trailers() else { return Ok(None) };
    for name in stripped {
        trailers.remove(name);
    }
    if let Some(swaps) = swaps {
        swaps.refuse_in_headers(&trailers, Place::Trailer)?;
    }
    Ok(Some(Frame::trailers(trailers)))
}

impl<B> std::fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody")
            .field("watched", &self.swaps.is_some())
            .finish_non_exhaustive()
    }
}

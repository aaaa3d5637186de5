//! A request's body on its way out: placeholders swapped, canaries refused.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use ::http::header::HeaderName;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::error::{BoxError, InjectError};
use super::scrub::SILENCE;
use super::swap::{Place, Step, Swaps};

pin_project! {
    /// See [`super::Injection::request_body`]. Holds back only bytes that may be the beginning of
    /// a placeholder, and those only until nothing has followed for a moment.
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        swaps: Option<Arc<Swaps>>,
        refusal: Arc<OnceLock<InjectError>>,
        stripped: Vec<HeaderName>,
        held: Vec<u8>,
        // How many bytes at the start of `held` were let go all the same.
        gone: usize,
        // Running while a few bytes wait for what follows.
        silence: Option<Pin<Box<Sleep>>>,
        // Trailers that wait until the held bytes are out.
        trailers: Option<Frame<Bytes>>,
        done: bool,
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(
        inner: B,
        swaps: Option<Arc<Swaps>>,
        refusal: Arc<OnceLock<InjectError>>,
        stripped: Vec<HeaderName>,
    ) -> Self {
        Self {
            inner,
            swaps,
            refusal,
            stripped,
            held: Vec::new(),
            gone: 0,
            silence: None,
            trailers: None,
            done: false,
        }
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
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let out = match ready!(self.as_mut().poll_swapped(cx)) {
                Ok(Some(out)) => out,
                Ok(None) => return Poll::Ready(self.project().trailers.take().map(Ok)),
                Err(e) => {
                    let this = self.project();
                    *this.done = true;
                    this.held.clear();
                    if let Some(refusal) = e.downcast_ref::<InjectError>() {
                        let _ = this.refusal.set(refusal.clone());
                    }
                    return Poll::Ready(Some(Err(e)));
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.len() == self.gone
            && self.trailers.is_none()
            && (self.done || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.swaps {
            Some(swaps) if swaps.changes_body_length() => SizeHint::default(),
            _ => super::scrub_body::plus(&self.inner.size_hint(), self.held.len() - self.gone),
        }
    }
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// One step: bytes that may go on (perhaps none yet), or `None` at the end of the data.
    fn poll_swapped(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BoxError>> {
        let this = self.project();
        let swaps = this.swaps.as_deref();
        if *this.done {
            return Poll::Ready(Ok(None));
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            if this.held.len() == *this.gone {
                return Poll::Pending;
            }
            // Whoever answers may wait for these bytes. What they begin is no secret, and the rest
            // of it is still found.
            let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
            ready!(silence.as_mut().poll(cx));
            *this.silence = None;
            let out = Bytes::copy_from_slice(&this.held[*this.gone..]);
            *this.gone = this.held.len();
            return Poll::Ready(Ok(Some(out)));
        };
        *this.silence = None;
        let frame = match frame {
            Some(frame) => Some(frame.map_err(Into::into)?.into_data()),
            None => None,
        };
        if let Some(Ok(data)) = frame {
            return Poll::Ready(step(swaps, this.held, this.gone, data, false).map(Some));
        }
        if let Some(Err(trailers)) = frame {
            *this.trailers = clean_trailers(trailers, swaps, this.stripped)?;
        }
        *this.done = true;
        Poll::Ready(step(swaps, this.held, this.gone, Bytes::new(), true).map(Some))
    }
}

/// What of `held` and `data` may go on; the rest stays in `held`.
fn step(
    swaps: Option<&Swaps>,
    held: &mut Vec<u8>,
    gone: &mut usize,
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
    let from = std::mem::take(gone);
    let (out, n) = match swaps.body_step(&hay, from, last)? {
        Step::Same { held: n } => (hay.slice(from.min(hay.len() - n)..hay.len() - n), n),
        Step::Changed { out, held: n } => (Bytes::from(out), n),
    };
    let end = hay.len() - n;
    held.extend_from_slice(&hay[end..]);
    *gone = from.saturating_sub(end);
    Ok(out)
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

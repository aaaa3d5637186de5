//! An answer on its way back: its head and its body without secrets.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use ::http::header;
use ::http::response::Parts;
use ::http::{Method, StatusCode};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::coding::{Coded, Decoder};
use super::error::BoxError;
use super::scrub::{SILENCE, ScrubStream, Scrubber};

/// What scrubbing found; the counts grow while the body streams.
#[derive(Clone, Debug, Default)]
pub struct ScrubReport(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    opaque: AtomicBool,
}

impl ScrubReport {
    /// How many copies of secrets were masked, in the head and so far in the body.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Ordering::Relaxed)
    }

    /// Whether the body was coded in a way that cannot be opened, so that only its raw bytes
    /// were searched.
    pub fn opaque(&self) -> bool {
        self.0.opaque.load(Ordering::Relaxed)
    }
}

impl Scrubber {
    /// Cleans the head of an answer and wraps its body. `method` is that of the request.
    ///
    /// A body in gzip, deflate, br or zstd is decoded and goes on plain: its `Content-Encoding`
    /// and `Content-Length` are removed. A plain body keeps its length, and so does a range. Other
    /// codings, and coded ranges, are searched as they are, and the report says so.
    pub fn response<B>(
        self: &Arc<Self>,
        method: &Method,
        parts: &mut Parts,
        body: B,
    ) -> ScrubBody<B> {
        let report = ScrubReport::default();
        let hits = self.headers(&mut parts.headers);
        report.0.hits.store(hits, Ordering::Relaxed);
        // An HTTP/1 reason phrase is the upstream's text too.
        parts.extensions.remove::<hyper::ext::ReasonPhrase>();

        let range = parts.status == StatusCode::PARTIAL_CONTENT;
        let bodiless = *method == Method::HEAD
            || parts.status.is_informational()
            || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let decoder = match Coded::of(&parts.headers) {
            _ if bodiless => None,
            Coded::Plain => None,
            Coded::Known(coding) if !range => {
                parts.headers.remove(header::CONTENT_ENCODING);
                parts.headers.remove(header::CONTENT_LENGTH);
                // What is said of the coded bytes is not true of the plain ones.
                for name in
                    ["accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"]
                {
                    parts.headers.remove(name);
                }
                Some(Decoder::new(coding))
            }
            Coded::Known(_) | Coded::Unknown => {
                report.0.opaque.store(true, Ordering::Relaxed);
                None
            }
        };
        let stream = if range { ScrubStream::of_part } else { ScrubStream::new };
        ScrubBody {
            inner: body,
            scrubber: Arc::clone(self),
            stream: stream(Arc::clone(self)),
            head_hits: hits,
            decoder,
            silence: None,
            trailers: None,
            state: State::Reading,
            report,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The inner body may have more.
    Reading,
    /// The inner body has ended; what was held back is still to come.
    Flushing,
    /// Only trailers are left, if any.
    Done,
}

pin_project! {
    /// See [`Scrubber::response`].
    pub struct ScrubBody<B> {
        #[pin]
        inner: B,
        scrubber: Arc<Scrubber>,
        stream: ScrubStream,
        head_hits: u64,
        decoder: Option<Decoder>,
        // Running while a few bytes wait for what follows.
        silence: Option<Pin<Box<Sleep>>>,
        trailers: Option<Frame<Bytes>>,
        state: State,
        report: ScrubReport,
    }
}

impl<B> ScrubBody<B> {
    /// The counts, to be read when the body has ended.
    pub fn report(&self) -> ScrubReport {
        self.report.clone()
    }
}

impl<B> Body for ScrubBody<B>
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
            let out = match ready!(self.as_mut().poll_clean(cx)) {
                Ok(Some(out)) => out,
                Ok(None) => return Poll::Ready(self.project().trailers.take().map(Ok)),
                Err(e) => {
                    let this = self.project();
                    (*this.state, *this.decoder, *this.trailers) = (State::Done, None, None);
                    return Poll::Ready(Some(Err(e)));
                }
            };
            let this = self.as_mut().project();
            let hits = *this.head_hits + this.stream.hits();
            this.report.0.hits.store(hits, Ordering::Relaxed);
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let nothing_held = self.stream.held() == 0 && self.trailers.is_none();
        match self.state {
            State::Done => self.trailers.is_none(),
            State::Flushing => false,
            State::Reading => nothing_held && self.decoder.is_none() && self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.decoder {
            Some(_) => SizeHint::default(),
            None => plus(&self.inner.size_hint(), self.stream.held()),
        }
    }
}

impl<B> ScrubBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// One step: clean bytes (perhaps none yet), or `None` at the end of the data.
    fn poll_clean(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, BoxError>> {
        let this = self.project();
        // What the decoder still has comes before anything new.
        if let Some(decoder) = this.decoder
            && let Some(data) = decoder.next()?
        {
            return Poll::Ready(Ok(Some(this.stream.push(data))));
        }
        match *this.state {
            State::Reading => {}
            State::Flushing => {
                *this.state = State::Done;
                return Poll::Ready(Ok(Some(this.stream.finish())));
            }
            State::Done => return Poll::Ready(Ok(None)),
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            if !this.stream.may_let_go() {
                return Poll::Pending;
            }
            let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
            ready!(silence.as_mut().poll(cx));
            *this.silence = None;
            return Poll::Ready(Ok(Some(this.stream.let_go())));
        };
        *this.silence = None;
        let frame = match frame {
            Some(frame) => frame.map_err(Into::into)?,
            None => {
                end(this.state, this.decoder.as_ref());
                return Poll::Ready(Ok(Some(Bytes::new())));
            }
        };
        let out = match (frame.into_data(), this.decoder) {
            (Ok(data), Some(decoder)) => {
                decoder.feed(data);
                Bytes::new()
            }
            (Ok(data), None) => this.stream.push(data),
            (Err(frame), decoder) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    *this.head_hits += this.scrubber.headers(&mut trailers);
                    *this.trailers = Some(Frame::trailers(trailers));
                }
                end(this.state, decoder.as_ref());
                Bytes::new()
            }
        };
        Poll::Ready(Ok(Some(out)))
    }
}

fn end(state: &mut State, decoder: Option<&Decoder>) {
    *state = State::Flushing;
    if let Some(decoder) = decoder {
        decoder.end();
    }
}

/// A size hint with `held` bytes more.
pub(super) fn plus(hint: &SizeHint, held: usize) -> SizeHint {
    let held = held as u64;
    let mut sum = SizeHint::new();
    if let Some(upper) = hint.upper() {
        sum.set_upper(upper.saturating_add(held));
    }
    sum.set_lower(hint.lower().saturating_add(held));
    sum
}

impl<B> std::fmt::Debug for ScrubBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubBody").field("report", &self.report).finish_non_exhaustive()
    }
}

//! Bodies on their way through: streamed, counted, cut at a limit, and the place where the end
//! of an exchange is noticed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::chunked::{FORBIDDEN_TRAILER, is_forbidden_trailer};
use super::limits::Allowance;
use super::patience::Silence;
use super::strict::MalformedBody;
use crate::outcome::Reason;

/// An error of either side's stream.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body without a second box around what hyper gives.
#[derive(Debug)]
pub enum Body {
    /// Known text, such as a refusal; may be empty.
    Full(Full<Bytes>),
    /// From a peer, as it arrives.
    Incoming(Incoming),
    /// Wrapped by another stage.
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    pub fn empty() -> Self {
        Self::Full(Full::default())
    }

    pub fn text(bytes: impl Into<Bytes>) -> Self {
        Self::Full(Full::new(bytes.into()))
    }

    /// Wraps another body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        use http_body_util::BodyExt;
        Self::Boxed(body.map_err(Into::into).boxed_unsync())
    }
}

impl From<Incoming> for Body {
    fn from(body: Incoming) -> Self {
        Self::Incoming(body)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(b) => Pin::new(b).poll_frame(cx).map_err(|never| match never {}),
            Self::Incoming(b) => Pin::new(b).poll_frame(cx).map_err(Into::into),
            Self::Boxed(b) => Pin::new(b).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(b) => b.is_end_stream(),
            Self::Incoming(b) => b.is_end_stream(),
            Self::Boxed(b) => b.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(b) => b.size_hint(),
            Self::Incoming(b) => b.size_hint(),
            Self::Boxed(b) => b.size_hint(),
        }
    }
}

/// What an upload has come to; shared with whoever records the outcome.
#[derive(Debug, Default)]
pub struct UploadState {
    bytes: AtomicU64,
    done: AtomicBool,
    fault: OnceLock<Reason>,
}

impl UploadState {
    /// Body bytes given to the upstream so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The whole body was given to the upstream.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Why the body was cut off, where the agent or the rule's limit is the cause.
    pub fn fault(&self) -> Option<Reason> {
        self.fault.get().copied()
    }
}

/// A body was cut off by egret.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.meaning())]
pub struct Cut(pub Reason);

/// A request body on its way to the upstream.
#[derive(Debug)]
pub struct Upload {
    inner: Body,
    state: Arc<UploadState>,
    allowance: Option<Allowance>,
    silence: Silence,
}

impl Upload {
    /// `idle`: how long the agent may send nothing while the upstream waits for more.
    pub fn new(
        inner: Body,
        allowance: Option<Allowance>,
        idle: Duration,
    ) -> (Self, Arc<UploadState>) {
        let state = Arc::new(UploadState::default());
        if inner.is_end_stream() {
            state.done.store(true, Ordering::Release);
        }
        let silence = Silence::new(idle);
        (Self { inner, state: Arc::clone(&state), allowance, silence }, state)
    }

    /// Whether a frame may pass, and that it did.
    fn pass(&self, frame: &Frame<Bytes>) -> Result<(), BoxError> {
        let n = frame.data_ref().map_or(0, |d| d.len() as u64);
        if let Some(allowance) = &self.allowance {
            allowance.upload(n).map_err(|reason| self.fail(reason, Cut(reason)))?;
        }
        if let Some(trailers) = frame.trailers_ref()
            && trailers.keys().any(|name| is_forbidden_trailer(name.as_str()))
        {
            return Err(self.fail(Reason::MalformedRequest, MalformedBody(FORBIDDEN_TRAILER)));
        }
        self.state.bytes.fetch_add(n, Ordering::Relaxed);
        if self.inner.is_end_stream() {
            self.state.done.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn fail(&self, reason: Reason, error: impl Into<BoxError>) -> BoxError {
        let _ = self.state.fault.set(reason); // the first cause is the cause
        error.into()
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.silence.poll_over(cx));
            let late = Reason::ClientTimeout;
            return Poll::Ready(Some(Err(self.fail(late, Cut(late)))));
        };
        self.silence.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.pass(&frame).map(|()| frame)),
            Some(Err(error)) => {
                if is_malformed(&*error) {
                    let _ = self.state.fault.set(Reason::MalformedRequest);
                }
                Some(Err(error))
            }
            None => {
                self.state.done.store(true, Ordering::Release);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Whether an error comes from the strict reading of the agent's bytes.
fn is_malformed(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An io::Error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if wrapped.is_some_and(|e| e.is::<MalformedBody>()) || error.is::<MalformedBody>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Told once how a download ended.
pub trait OnEnd: Send {
    /// `complete`: the whole body reached the agent. `cut`: it was cut off for this reason.
    fn ended(self: Box<Self>, down: u64, complete: bool, cut: Option<Reason>);
}

/// An answer's body on its way to the agent.
pub struct Download {
    inner: Body,
    bytes: u64,
    complete: bool,
    cut: Option<Reason>,
    allowance: Option<Allowance>,
    on_end: Option<Box<dyn OnEnd>>,
    /// For a body that comes from elsewhere.
    silence: Option<Silence>,
    /// Tells the connection that this body is not at its end.
    busy: Option<Arc<()>>,
}

impl Download {
    /// A body that ends an exchange with the upstream. `idle`: how long the upstream may be
    /// silent inside it.
    pub fn new(
        inner: Body,
        allowance: Option<Allowance>,
        on_end: Box<dyn OnEnd>,
        idle: Duration,
    ) -> Self {
        let mut download = Self::from(inner);
        download.allowance = allowance;
        download.on_end = Some(on_end);
        download.silence = Some(Silence::new(idle));
        download
    }

    /// The same, holding `busy` until it is dropped.
    #[must_use]
    pub fn holding(mut self, busy: Arc<()>) -> Self {
        self.busy = Some(busy);
        self
    }

    fn cut_off(&mut self, reason: Reason) -> BoxError {
        self.cut = Some(reason);
        Cut(reason).into()
    }
}

impl From<Body> for Download {
    /// A body of egret's own.
    fn from(inner: Body) -> Self {
        Self {
            inner,
            bytes: 0,
            complete: false,
            cut: None,
            allowance: None,
            on_end: None,
            silence: None,
            busy: None,
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            ready!(self.silence.as_mut().map_or(Poll::Pending, |s| s.poll_over(cx)));
            return Poll::Ready(Some(Err(self.cut_off(Reason::UpstreamTimeout))));
        };
        if let Some(silence) = &mut self.silence {
            silence.moved();
        }
        match &frame {
            Some(Ok(frame)) => {
                let n = frame.data_ref().map_or(0, |d| d.len() as u64);
                if let Some(allowance) = &self.allowance
                    && let Err(reason) = allowance.download(n)
                {
                    return Poll::Ready(Some(Err(self.cut_off(reason))));
                }
                self.bytes += n;
            }
            Some(Err(_)) => {}
            None => self.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper does not poll a body again that says it is at its end.
        let complete = self.cut.is_none() && (self.complete || self.inner.is_end_stream());
        if let Some(on_end) = self.on_end.take() {
            on_end.ended(self.bytes, complete, self.cut);
        }
    }
}

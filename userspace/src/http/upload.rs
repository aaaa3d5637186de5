//! A request's body on its way to the upstream: streamed, counted, cut at a limit, and taken away
//! from whoever sends it when its exchange must end.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::body::{Body, BoxError, Cut};
use super::chunked::{FORBIDDEN_TRAILER, is_forbidden_trailer};
use super::limits::Allowance;
use super::patience::{Rate, Silence};
use super::strict::MalformedBody;
use crate::outcome::Reason;

/// What an upload has come to; shared with whoever records the outcome.
#[derive(Debug)]
pub struct UploadState {
    source: Mutex<Source>,
    bytes: AtomicU64,
    done: AtomicBool,
    answered: AtomicBool,
    fault: OnceLock<Reason>,
    kept: OnceLock<Kept>,
}

/// The agent's end of the body.
#[derive(Debug)]
struct Source {
    /// `None` once it was cut.
    body: Option<Body>,
    /// Who waits for it.
    waiting: Option<Waker>,
}

struct Kept(#[expect(dead_code, reason = "kept to be dropped")] Box<dyn Any + Send + Sync>);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

impl UploadState {
    fn new(body: Body) -> Self {
        let done = body.is_end_stream();
        Self {
            source: Mutex::new(Source { body: Some(body), waiting: None }),
            bytes: AtomicU64::new(0),
            done: AtomicBool::new(done),
            answered: AtomicBool::new(false),
            fault: OnceLock::new(),
            kept: OnceLock::new(),
        }
    }

    /// Body bytes given to the upstream so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The whole body was given to the upstream.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The upstream has begun to answer. From now on both sides may speak when they like, and the
    /// agent's silence is no fault.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Release);
    }

    /// Why the body was cut off, where the agent or the rule's limit is the cause.
    pub fn fault(&self) -> Option<Reason> {
        self.fault.get().copied()
    }

    /// Ends the upload now: the agent's end of it is dropped, also while the upstream takes
    /// nothing, and the upstream gets no more of it.
    pub fn cut(&self, reason: Reason) {
        let _ = self.fault.set(reason); // the first cause is the cause
        let (body, waiting) = {
            let mut source = self.source();
            (source.body.take(), source.waiting.take())
        };
        drop(body);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Keeps a value until the upload has ended. For one value.
    pub fn keep(&self, value: impl Any + Send + Sync) {
        let _ = self.kept.set(Kept(Box::new(value)));
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        // A body that panicked is not polled again: its exchange ends with the panic.
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut source = self.source();
        let Some(body) = &mut source.body else {
            let reason = self.fault().unwrap_or(Reason::Aborted);
            return Poll::Ready(Some(Err(Cut(reason).into())));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if polled.is_pending() {
            match &mut source.waiting {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source().body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source().body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

/// A request body on its way to the upstream.
#[derive(Debug)]
pub struct Upload {
    state: Arc<UploadState>,
    allowance: Option<Allowance>,
    silence: Silence,
    rate: Option<Rate>,
}

/// What a request's body must keep up while the upstream waits for more and has not begun to
/// answer.
#[derive(Clone, Copy, Debug)]
pub struct UploadPace {
    /// How long the agent may send nothing.
    pub idle: Duration,
    /// Bytes per second, at least, on average over `idle`.
    pub rate: Option<u64>,
}

impl Upload {
    /// The body, and what others may ask of it.
    pub fn new(
        body: Body,
        allowance: Option<Allowance>,
        pace: UploadPace,
    ) -> (Self, Arc<UploadState>) {
        let state = Arc::new(UploadState::new(body));
        let silence = Silence::new(pace.idle);
        let rate = pace.rate.map(|least| Rate::new(least, pace.idle));
        (Self { state: Arc::clone(&state), allowance, silence, rate }, state)
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
        if self.state.is_end_stream() {
            self.state.done.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn is_too_slow(&mut self, frame: &Frame<Bytes>) -> bool {
        let n = frame.data_ref().map_or(0, |d| d.len() as u64);
        let enough = self.rate.as_mut().is_none_or(|rate| rate.moved(n, Instant::now()));
        !enough && !self.state.answered.load(Ordering::Acquire)
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
        let Poll::Ready(frame) = self.state.poll_source(cx) else {
            if let Some(rate) = &mut self.rate {
                rate.waits(Instant::now());
            }
            ready!(self.silence.poll_over(cx));
            if self.state.answered.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let late = Reason::ClientTimeout;
            return Poll::Ready(Some(Err(self.fail(late, Cut(late)))));
        };
        self.silence.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) if self.is_too_slow(&frame) => {
                let late = Reason::ClientTimeout;
                Some(Err(self.fail(late, Cut(late))))
            }
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
        self.state.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.state.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Others may still ask how it went; the agent's end of it is not needed for that.
        let body = self.state.source().body.take();
        drop(body);
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const PACE: UploadPace = UploadPace { idle: Duration::from_secs(3600), rate: None };

    /// A body that says nothing, and tells when it is dropped.
    fn silent() -> (Body, tokio::sync::oneshot::Receiver<()>) {
        let (held, dropped) = tokio::sync::oneshot::channel();
        let stream = SilentBody { _held: held };
        (Body::boxed(stream), dropped)
    }

    struct SilentBody {
        _held: tokio::sync::oneshot::Sender<()>,
    }

    impl HttpBody for SilentBody {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_cut_reaches_the_one_who_waits_for_more() {
        let (body, dropped) = silent();
        let (mut upload, state) = Upload::new(body, None, PACE);
        let waiting = tokio::spawn(async move { upload.frame().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "control");
        state.cut(Reason::NoRule);
        assert!(waiting.await.unwrap().unwrap().is_err());
        assert!(dropped.await.is_err());
        assert_eq!(state.fault(), Some(Reason::NoRule));
        assert!(!state.is_done());
    }

    #[tokio::test]
    async fn a_cut_reaches_the_agent_while_nobody_asks_for_more() {
        let (body, dropped) = silent();
        let (mut upload, state) = Upload::new(body, None, PACE);
        state.cut(Reason::NoRule);
        assert!(dropped.await.is_err());
        assert!(upload.frame().await.unwrap().is_err());
    }

    #[test]
    fn what_is_kept_goes_with_the_upload() {
        let value = Arc::new(());
        let (upload, state) = Upload::new(silent().0, None, PACE);
        state.keep(Arc::clone(&value));
        drop(state);
        assert_eq!(Arc::strong_count(&value), 2, "control");
        drop(upload);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}

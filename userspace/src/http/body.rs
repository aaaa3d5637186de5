//! Bodies on their way through, and the answer's: streamed, counted, cut at a limit, and the place
//! where the end of an exchange is noticed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use super::farewell::{Farewell, Over};
use super::limits::Allowance;
use super::patience::{Exchange, Silence};
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

/// A body was cut off by egret.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.meaning())]
pub struct Cut(pub Reason);

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
    /// Tells the connection what this body waits for.
    exchange: Option<Exchange>,
    /// Where the agent is told in trailers why its stream ends.
    farewell: Option<Farewell>,
    /// That was said, and nothing follows.
    over: bool,
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

    /// The same, as the body of an exchange.
    #[must_use]
    pub fn paced(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// The same, for a gRPC client.
    #[must_use]
    pub fn with_farewell(mut self, farewell: Option<Farewell>) -> Self {
        self.farewell = farewell;
        self
    }

    /// The last that the agent hears.
    fn cut_off(&mut self, over: &Over) -> Result<Frame<Bytes>, BoxError> {
        self.cut = Some(over.reason);
        let Some(farewell) = self.farewell.take() else {
            return Err(Cut(over.reason).into());
        };
        farewell.end(over.reason);
        self.over = true;
        Ok(Frame::trailers(over.trailers()))
    }

    fn cut_for(&mut self, reason: Reason) -> Result<Frame<Bytes>, BoxError> {
        self.cut_off(&Over { reason, message: None })
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
            exchange: None,
            farewell: None,
            over: false,
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
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(farewell) = &mut self.farewell
            && let Poll::Ready(over) = farewell.poll_over(cx)
        {
            return Poll::Ready(Some(self.cut_off(&over)));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Some(exchange) = &mut self.exchange {
            exchange.polled(polled.is_pending());
        }
        let Poll::Ready(frame) = polled else {
            ready!(self.silence.as_mut().map_or(Poll::Pending, |s| s.poll_over(cx)));
            return Poll::Ready(Some(self.cut_for(Reason::UpstreamTimeout)));
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
                    return Poll::Ready(Some(self.cut_for(reason)));
                }
                self.bytes += n;
            }
            Some(Err(_)) => {
                if let Some(over) = self.farewell.as_ref().and_then(Farewell::fault) {
                    return Poll::Ready(Some(self.cut_off(&over)));
                }
            }
            None => self.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
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

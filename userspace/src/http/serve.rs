//! hyper serves HTTP/1 and HTTP/2 to the agent, within limits; each request is a call of the
//! service by itself. HTTP/1 is read through [`Strict`], so hyper sees only what has one reading.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Download;
use super::head::HeadLimits;
use super::line::{Line, Streams};
use super::patience::{Pace, Patient, Stalled};
use super::refuse::is_grpc;
use super::strict::{Gate, Strict};
use super::upload::UploadPace;
use super::websocket::Held;
use crate::policy::HttpSettings;
use crate::tls::terminate::Spoken;

/// How much of a head, of concurrency and of time one agent connection may use.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// From the first byte of a connection, or the end of the last request, to a complete head.
    pub head_timeout: Duration,
    /// Bytes of one head.
    pub head_bytes: usize,
    /// Headers of one head.
    pub headers: usize,
    /// Requests at one time on one HTTP/2 connection.
    pub streams: u32,
    /// Silence of the agent inside a request's body, while the upstream waits for more and has
    /// not begun to answer.
    pub upload_idle: Duration,
    /// Bytes per second that a request's body has at least, on average over `upload_idle` spent
    /// waiting for the agent. `None`: as slow as it likes.
    pub upload_rate: Option<u64>,
    /// Silence of the upstream inside an answer's body. Event streams are silent for long.
    pub download_idle: Duration,
    /// For the agent to read any of what was written to it.
    pub write_idle: Duration,
    /// For an HTTP/2 connection without a request; HTTP/1 has `head_timeout`.
    pub h2_idle: Duration,
    /// HTTP/2 streams that the agent may have reset before egret saw them, and streams that
    /// egret may have reset for errors of the agent; one more ends the connection.
    pub h2_resets: usize,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(60),
            head_bytes: 64 * 1024,
            headers: 128,
            streams: 128,
            upload_idle: Duration::from_secs(60),
            upload_rate: None,
            download_idle: Duration::from_secs(3600),
            write_idle: Duration::from_secs(300),
            h2_idle: Duration::from_secs(600),
            h2_resets: 64,
        }
    }
}

impl ServeLimits {
    /// These limits, with what the operator's policy says instead.
    #[must_use]
    pub fn with(self, http: &HttpSettings) -> Self {
        Self {
            head_timeout: http.head_timeout.unwrap_or(self.head_timeout),
            head_bytes: http.head.unwrap_or(self.head_bytes),
            headers: http.headers.unwrap_or(self.headers),
            streams: http.streams.unwrap_or(self.streams),
            upload_idle: http.body_timeout.unwrap_or(self.upload_idle),
            upload_rate: http.body_rate.or(self.upload_rate),
            download_idle: self.download_idle,
            write_idle: http.read_timeout.unwrap_or(self.write_idle),
            h2_idle: http.idle_timeout.unwrap_or(self.h2_idle),
            h2_resets: http.resets.unwrap_or(self.h2_resets),
        }
    }

    /// How fast and how steadily the body of a request with these headers must come.
    pub fn upload(&self, request: &HeaderMap) -> UploadPace {
        let idle = self.upload_idle(request);
        UploadPace { idle, rate: self.upload_rate.filter(|_| idle == self.upload_idle) }
    }

    /// How long the agent may be silent inside the body of a request with these headers. A gRPC
    /// stream is a conversation: either side may be silent for as long as the other.
    fn upload_idle(&self, request: &HeaderMap) -> Duration {
        if is_grpc(request) { self.download_idle } else { self.upload_idle }
    }
}

/// A flow-control window that does not stall a stream on a machine-local leg.
const WINDOW: u32 = 1 << 20;

/// For an HTTP/2 client that was told to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves requests until the agent or a limit ends the connection. When `leave` completes, no new
/// request is taken, and the connection ends with those that are open.
///
/// `answer` is called once per request, also for requests that run at the same time. Each request
/// carries [`Stalled`] and its [`Line`]; one that stands for a malformed head carries
/// [`super::strict::Unreadable`].
pub async fn serve<IO, F, Fut>(
    io: IO,
    spoken: Spoken,
    limits: &ServeLimits,
    answer: F,
    leave: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let stalled = Stalled::default();
    let io = Patient::new(io, limits.write_idle, stalled.clone());
    let answer = {
        let stalled = stalled.clone();
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(stalled.clone());
            answer(request)
        }
    };
    match spoken {
        Spoken::H1 => serve_h1(io, limits, answer, leave).await,
        Spoken::H2 => serve_h2(io, limits, answer, &stalled, leave).await,
    }
}

async fn serve_h1<IO, F, Fut>(
    io: IO,
    limits: &ServeLimits,
    answer: F,
    leave: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let (gate, line) = (Arc::new(Gate::default()), Line::default());
    let head = HeadLimits { bytes: limits.head_bytes, fields: limits.headers };
    let io = Strict::new(io, head, Arc::clone(&gate));
    let of_request = line.clone();
    let service = service_fn(move |mut request| {
        if let Some(unreadable) = gate.unreadable(&request) {
            request.extensions_mut().insert(unreadable);
        }
        request.extensions_mut().insert(of_request.clone());
        let (answering, gate) = (answer(request), Arc::clone(&gate));
        async move {
            let response = answering.await;
            gate.answered(response.status() == StatusCode::SWITCHING_PROTOCOLS);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = line.is_cut() => return Ok(()),
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => ended,
        () = line.is_cut() => Ok(()),
    }
}

async fn serve_h2<IO, F, Fut>(
    io: IO,
    limits: &ServeLimits,
    answer: F,
    stalled: &Stalled,
    leave: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let pace = Arc::new(Pace::default());
    let service = {
        let (pace, answer) = (Arc::clone(&pace), Arc::new(answer));
        service_fn(move |mut request: Request<Incoming>| {
            let (exchange, answer) = (pace.begin(), Arc::clone(&answer));
            if request.method() == Method::CONNECT {
                request.extensions_mut().insert(Held::new(pace.begin()));
            }
            async move {
                request.extensions_mut().insert(Streams::line());
                Ok::<_, Infallible>(answer(request).await.map(|body| body.paced(exchange)))
            }
        })
    };
    let connection = hyper::server::conn::http2::Builder::new(Streams)
        .timer(TokioTimer::new())
        .enable_connect_protocol() // for WebSockets (RFC 8441)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.h2_resets)
        .max_local_error_reset_streams(limits.h2_resets)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = leave => {}
        () = taken_nothing(&pace, limits.write_idle, stalled) => return Ok(()),
        () = pace.still(limits.h2_idle, Pace::is_idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = taken_nothing(&pace, limits.write_idle, stalled) => Ok(()),
        () = pace.still(FAREWELL, Pace::is_idle) => Ok(()),
    }
}

/// HTTP/2 has windows of its own: an agent may read, and yet take nothing.
async fn taken_nothing(pace: &Pace, limit: Duration, stalled: &Stalled) {
    pace.still(limit, Pace::waits_for_peer).await;
    stalled.set();
}

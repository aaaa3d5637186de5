//! hyper serves HTTP/1 and HTTP/2 to the agent, within limits; each request is a call of the
//! service by itself. HTTP/1 is read through [`Strict`], so hyper sees only what has one reading.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Download;
use super::head::HeadLimits;
use super::patience::{Patient, Stalled};
use super::strict::{Gate, Strict};
use crate::shutdown::Watcher;
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
    /// Silence of the agent inside a request's body, while the upstream waits for more.
    pub upload_idle: Duration,
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
            download_idle: Duration::from_secs(3600),
            write_idle: Duration::from_secs(300),
            h2_idle: Duration::from_secs(600),
            h2_resets: 64,
        }
    }
}

/// A flow-control window that does not stall a stream on a machine-local leg.
const WINDOW: u32 = 1 << 20;

/// For an HTTP/2 client that was told to go.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves requests until the agent, a limit or the shutdown ends the connection. `answer` is
/// called once per request, also for requests that run at the same time. Each request carries
/// [`Stalled`]; one that stands for a malformed head carries [`super::strict::Unreadable`].
pub async fn serve<IO, F, Fut>(
    io: IO,
    spoken: Spoken,
    limits: &ServeLimits,
    answer: F,
    shutdown: &mut Watcher,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let stalled = Stalled::default();
    let io = Patient::new(io, limits.write_idle, stalled.clone());
    let answer = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(stalled.clone());
        answer(request)
    };
    match spoken {
        Spoken::H1 => serve_h1(io, limits, answer, shutdown).await,
        Spoken::H2 => serve_h2(io, limits, answer, shutdown).await,
    }
}

async fn serve_h1<IO, F, Fut>(
    io: IO,
    limits: &ServeLimits,
    answer: F,
    shutdown: &mut Watcher,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let gate = Arc::new(Gate::default());
    let head = HeadLimits { bytes: limits.head_bytes, fields: limits.headers };
    let io = Strict::new(io, head, Arc::clone(&gate));
    let service = service_fn(move |mut request| {
        if let Some(unreadable) = gate.unreadable(&request) {
            request.extensions_mut().insert(unreadable);
        }
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
        () = shutdown.draining() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_h2<IO, F, Fut>(
    io: IO,
    limits: &ServeLimits,
    answer: F,
    shutdown: &mut Watcher,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Response<Download>> + Send + 'static,
{
    let activity = Activity::default();
    let service = {
        let activity = activity.clone();
        service_fn(move |request| {
            let busy = activity.begin();
            let answering = answer(request);
            async move { Ok::<_, Infallible>(answering.await.map(|body| body.holding(busy))) }
        })
    };
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
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
        () = shutdown.draining() => {
            connection.as_mut().graceful_shutdown();
            return connection.await;
        }
        () = activity.idle(limits.h2_idle) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.idle(FAREWELL) => Ok(()),
    }
}

/// Whether an HTTP/2 connection has requests.
#[derive(Clone, Debug, Default)]
struct Activity {
    /// Held once more by every exchange until its answer's body is dropped.
    busy: Arc<()>,
    begun: Arc<AtomicU64>,
}

impl Activity {
    fn begin(&self) -> Arc<()> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.busy)
    }

    /// Completes when there was no request for `limit`, looking once in that time.
    async fn idle(&self, limit: Duration) {
        // This one and the service's own.
        const NOBODY: usize = 2;
        let mut last = None;
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            let nobody = Arc::strong_count(&self.busy) <= NOBODY;
            if nobody && last == Some(begun) {
                return;
            }
            last = nobody.then_some(begun);
            tokio::time::sleep(limit).await;
        }
    }
}

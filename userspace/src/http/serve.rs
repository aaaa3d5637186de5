//! hyper serves HTTP/1 and HTTP/2 to the agent, within limits; each request is a call of the
//! service by itself.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Download;
use crate::shutdown::Watcher;
use crate::tls::terminate::Spoken;

/// How much of a head and of concurrency one agent connection may use.
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
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(60),
            head_bytes: 64 * 1024,
            headers: 128,
            streams: 128,
        }
    }
}

/// A flow-control window that does not stall a stream on a machine-local leg.
const WINDOW: u32 = 1 << 20;

/// Serves requests until the agent or the shutdown ends the connection. `answer` is called once
/// per request, also for requests that run at the same time.
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
    let service = service_fn(move |request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    match spoken {
        Spoken::H1 => {
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
        Spoken::H2 => {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(2 * WINDOW)
                .serve_connection(TokioIo::new(io), service);
            let mut connection = pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = shutdown.draining() => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
    }
}

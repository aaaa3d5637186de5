//! Upstream servers on loopback that note what reached them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use egret::policy::{Host, HostName};
use egret::tls::authority::Authority;
use egret::tls::leaf::LeafMinter;
use egret::tls::terminate::{Spoken, Terminator};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub h2: bool,
}

#[derive(Clone, Default)]
pub struct Notes {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    /// Requests whose body arrived to its end, where the answer does not echo it.
    pub whole: Arc<AtomicUsize>,
    /// The trailers of those requests.
    pub trailers: Arc<Mutex<Vec<HeaderMap>>>,
    /// Raw bytes, for upstreams that do not speak HTTP.
    pub raw: Arc<Mutex<Vec<u8>>>,
    /// Exchanges that were broken off, and raw connections that ended.
    pub ended: Arc<AtomicUsize>,
}

impl Notes {
    pub fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| s.line.clone()).collect()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn whole(&self) -> usize {
        self.whole.load(Ordering::SeqCst)
    }

    /// Waits for the end of `n` exchanges that were broken off, or raw connections.
    pub async fn ended(&self, n: usize) {
        until(|| self.ends() >= n).await;
    }

    pub fn ends(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap().clone()
    }
}

/// Waits for what must come; a test that waits long has failed.
pub async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it did not come");
}

pub struct Upstream {
    pub address: SocketAddr,
    pub notes: Notes,
    /// The authority that signed its certificate, in PEM.
    pub ca: String,
}

pub type EchoBody = BoxBody<Bytes, hyper::Error>;

pub fn text(text: impl Into<Bytes>) -> EchoBody {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// A little, and then nothing.
fn silent(notes: Notes) -> EchoBody {
    let (sender, body) = channel();
    tokio::spawn(async move {
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        sender.closed().await;
        notes.end();
    });
    body.boxed()
}

/// More than anybody reads.
fn endless(notes: Notes) -> EchoBody {
    let (sender, body) = channel();
    tokio::spawn(async move {
        while sender.send(Bytes::from(vec![b'x'; 65536])).await.is_ok() {}
        notes.end();
    });
    body.boxed()
}

/// A body that is what is sent, until the sender is dropped.
pub fn channel() -> (tokio::sync::mpsc::Sender<Bytes>, Channel) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, Channel(receiver))
}

#[derive(Debug)]
pub struct Channel(tokio::sync::mpsc::Receiver<Bytes>);

/// A request's body that is noted as broken off unless it arrives to its end.
pub struct Arriving {
    body: Incoming,
    whole: bool,
    notes: Notes,
}

impl Arriving {
    pub fn new(body: Incoming, notes: &Notes) -> Self {
        Self { body, whole: false, notes: notes.clone() }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.whole |= matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.whole && !self.body.is_end_stream() {
            self.notes.end();
        }
    }
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(cx).map(|b| b.map(|b| Ok(http_body::Frame::data(b))))
    }
}

/// HTTP over TLS with a certificate for `certified` by an authority of its own.
pub async fn https(certified: &str) -> Upstream {
    https_by(&Arc::new(minter("upstream")), certified).await
}

/// An authority and its leaves.
pub fn minter(name: &str) -> LeafMinter {
    LeafMinter::new(Authority::generate(name).unwrap()).unwrap()
}

/// HTTP over TLS with a certificate for `certified` by `minter`. It is always dialled as
/// `api.test`.
pub async fn https_by(minter: &Arc<LeafMinter>, certified: &str) -> Upstream {
    let name = |n: &str| Host::Name(HostName::parse(n).unwrap());
    let leaf = minter.leaf(&name(certified)).unwrap();
    let (listener, upstream) = listen(minter.authority().pem()).await;
    let notes = upstream.notes.clone();
    let dialled = name("api.test");
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            notes.connections.fetch_add(1, Ordering::SeqCst);
            let (leaf, host, notes) = (Arc::clone(&leaf), dialled.clone(), notes.clone());
            tokio::spawn(async move {
                if let Ok((io, spoken)) = Terminator::default().accept(io, &host, leaf).await {
                    serve(io, spoken, notes).await;
                }
            });
        }
    });
    upstream
}

/// HTTP without TLS.
pub async fn http() -> Upstream {
    let (listener, upstream) = listen(String::new()).await;
    let notes = upstream.notes.clone();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.unwrap();
            notes.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(io, Spoken::H1, notes.clone()));
        }
    });
    upstream
}

/// Notes raw bytes and sends them back.
pub async fn echo() -> Upstream {
    let (listener, upstream) = listen(String::new()).await;
    let notes = upstream.notes.clone();
    tokio::spawn(async move {
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            notes.connections.fetch_add(1, Ordering::SeqCst);
            let notes = notes.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = io.read(&mut buffer).await {
                    notes.raw.lock().unwrap().extend_from_slice(&buffer[..n]);
                    if io.write_all(&buffer[..n]).await.is_err() || io.flush().await.is_err() {
                        break;
                    }
                }
                notes.end();
                let _ = io.shutdown().await;
            });
        }
    });
    upstream
}

async fn listen(ca: String) -> (TcpListener, Upstream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Upstream { address, notes: Notes::default(), ca })
}

async fn serve<IO>(io: IO, spoken: Spoken, notes: Notes)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(notes.clone(), request));
    let io = TokioIo::new(io);
    let _ = match spoken {
        Spoken::H1 => {
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .with_upgrades()
                .await
        }
        Spoken::H2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
    };
}

async fn answer(
    notes: Notes,
    mut request: Request<Incoming>,
) -> Result<Response<EchoBody>, Infallible> {
    notes.seen.lock().unwrap().push(Seen {
        line: format!("{} {}", request.method(), request.uri().path_and_query().unwrap()),
        headers: request.headers().clone(),
        h2: request.version() == http::Version::HTTP_2,
    });
    Ok(match request.uri().path() {
        "/echo" => {
            let body = Arriving::new(request.into_body(), &notes);
            Response::new(body.boxed())
        }
        "/early" => {
            let mut body = Arriving::new(request.into_body(), &notes);
            tokio::spawn(async move {
                while let Some(Ok(frame)) = body.frame().await {
                    if let Some(data) = frame.data_ref() {
                        body.notes.raw.lock().unwrap().extend_from_slice(data);
                    }
                }
            });
            Response::new(text("early"))
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", "yes".parse().unwrap());
            Response::new(text("body").with_trailers(async { Some(Ok(trailers)) }).boxed())
        }
        "/silent" => Response::new(silent(notes)),
        "/endless" => Response::new(endless(notes)),
        "/endless-grpc" => Response::builder()
            .header("content-type", "application/grpc")
            .body(endless(notes))
            .unwrap(),
        "/redirect" => Response::builder()
            .status(302)
            .header("location", "https://elsewhere.example/")
            .header("alt-svc", "h3=\":443\"")
            .body(text(""))
            .unwrap(),
        "/ws" | "/ws-of-another" => {
            let mut key = request.headers().get("sec-websocket-key").cloned();
            if request.uri().path() == "/ws-of-another" {
                key = Some(HeaderValue::from_static("another"));
            }
            let accept = key.map_or(String::new(), |key| {
                let text = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
                let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
                BASE64_STANDARD.encode(sum)
            });
            let upgrading = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrading.await.unwrap());
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = io.read(&mut buffer).await {
                    notes.raw.lock().unwrap().extend_from_slice(&buffer[..n]);
                    if io.write_all(&buffer[..n]).await.is_err() || io.flush().await.is_err() {
                        break;
                    }
                }
                notes.end();
                let _ = io.shutdown().await;
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept)
                .body(text(""))
                .unwrap()
        }
        _ => {
            let body = Arriving::new(request.into_body(), &notes);
            let body = body.collect().await.map(|b| {
                notes.trailers.lock().unwrap().extend(b.trailers().cloned());
                b.to_bytes().len()
            });
            notes.whole.fetch_add(usize::from(body.is_ok()), Ordering::SeqCst);
            Response::new(text(format!("hello {body:?}")))
        }
    })
}

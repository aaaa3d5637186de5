//! The least that an interceptor does: ends TLS with a minted leaf, passes each request on over a
//! pooled TLS connection, streams the answer back. No policy, no records, no limits.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::{self, NAME};

struct Upstream {
    port: u16,
    connector: TlsConnector,
    waiting: Mutex<Vec<SendRequest<Incoming>>>,
}

/// Serves until it is killed.
pub(crate) fn run(folder: &Path) {
    let config = tls::server(folder, "limit");
    let port = std::fs::read_to_string(folder.join("upstream.port")).expect("the upstream's port");
    let client = tls::client(&folder.join("upstream.pem"));
    let upstream = Arc::new(Upstream {
        port: port.parse().expect("a port"),
        connector: TlsConnector::from(Arc::new(client)),
        waiting: Mutex::default(),
    });
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("its address").port());
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (acceptor, upstream) = (TlsAcceptor::from(config.clone()), Arc::clone(&upstream));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| pass(Arc::clone(&upstream), request));
                let serving = hyper::server::conn::http1::Builder::new();
                let _ = serving.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn pass(
    upstream: Arc<Upstream>,
    request: Request<Incoming>,
) -> Result<Response<Returning>, hyper::Error> {
    let mut sender = upstream.sender().await;
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| Returning { body, back: Some((sender, upstream)) }))
}

impl Upstream {
    async fn sender(&self) -> SendRequest<Incoming> {
        let ready = self.waiting.lock().expect("no panic").pop();
        match ready {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await,
        }
    }

    async fn connect(&self) -> SendRequest<Incoming> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("the upstream");
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = self.connector.connect(name, stream).await.expect("a handshake");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        sender
    }
}

/// An answer's body that gives its connection back at its end.
struct Returning {
    body: Incoming,
    back: Option<(SendRequest<Incoming>, Arc<Upstream>)>,
}

impl Body for Returning {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some((sender, upstream)) = self.back.take()
            && self.body.is_end_stream()
        {
            upstream.waiting.lock().expect("no panic").push(sender);
        }
    }
}

//! The service behind the interceptor: it swallows what is posted, and `/down/N` is N bytes.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::flood::{Flood, swallow};
use crate::tls;

/// Serves until it is killed.
pub(crate) fn run(folder: &Path) {
    let mut config = Arc::unwrap_or_clone(tls::server(folder, "upstream"));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        std::fs::write(folder.join("upstream.port"), port.to_string()).expect("a file");
        println!("{port}");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let (io, service) = (TokioIo::new(stream), service_fn(answer));
                let _ = if h2 {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                } else {
                    http1::Builder::new().serve_connection(io, service).await
                };
            });
        }
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Flood>, Infallible> {
    let bytes = request.uri().path().strip_prefix("/down/").and_then(|n| n.parse().ok());
    swallow(request.into_body(), &Arc::default()).await;
    let body = Flood::new(bytes.unwrap_or(2), Arc::default());
    Ok(Response::builder().header("content-type", "text/plain").body(body).expect("a response"))
}

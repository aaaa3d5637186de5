//! The service behind the interceptors: 1 KiB at any path, and 100 MiB at `/bulk`.

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::tls;

/// Bytes of the large answer.
pub(crate) const BULK: usize = 100 << 20;

/// Serves until it is killed.
pub(crate) fn run(folder: &Path) {
    let config = tls::server(folder, "upstream");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        std::fs::write(folder.join("upstream.port"), port.to_string()).expect("a file");
        println!("{port}");
        let bulk = Bytes::from(vec![b'x'; BULK]);
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (acceptor, bulk) = (TlsAcceptor::from(config.clone()), bulk.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| answer(request, bulk.clone()));
                let serving = hyper::server::conn::http1::Builder::new();
                let _ = serving.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(
    request: Request<Incoming>,
    bulk: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body =
        if request.uri().path() == "/bulk" { bulk } else { Bytes::from_static(&[b'y'; 1024]) };
    let response = Response::builder().header("content-type", "text/plain");
    Ok(response.body(Full::new(body)).expect("a response"))
}

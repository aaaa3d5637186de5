//! Memory while gigabytes stream through, in both directions, over HTTP/1 and HTTP/2, with a credential
//! (so that requests are searched and answers scrubbed) and without.
//!
//! ```text
//! EGRET_BENCH_GIB=10 cargo bench -p egret --bench stream
//! ```
//! The interceptor is a process of its own; what is printed is what /proc says of it. Nothing is
//! asserted: what matters is that the columns do not grow from left to right.
#![expect(clippy::print_stdout, reason = "its result is a table for a person")]
#![expect(clippy::disallowed_methods, reason = "peers of the interceptor, without a Permit")]
#![allow(dead_code, reason = "it shares the processes of another bench, and needs a part of them")]

#[path = "../interceptor/governed.rs"]
mod governed;
#[path = "../interceptor/process.rs"]
mod process;
#[path = "../interceptor/tls.rs"]
mod tls;

mod flood;
mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flood::{Flood, swallow};
use http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use process::Peer;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const GIB: u64 = 1 << 30;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["role", "upstream", folder] => upstream::run(folder.as_ref()),
        ["role", "plain", folder] => governed::run(folder.as_ref(), false),
        ["role", "egret", folder] => governed::run(folder.as_ref(), true),
        _ => measure(),
    }
}

fn measure() {
    let gib = std::env::var("EGRET_BENCH_GIB").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let folder = tempfile::tempdir().expect("a folder for keys and the audit log");
    let _upstream = Peer::start("upstream", folder.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!("resident memory of the interceptor in MB: before, after each GiB, and the most");
    for role in ["plain", "egret"] {
        for h2 in [false, true] {
            for up in [true, false] {
                let peer = Peer::start(role, folder.path());
                let pem = folder.path().join(format!("{role}.pem"));
                let mut config = tls::client(&pem);
                config.alpn_protocols =
                    vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
                let way = Way { port: peer.port, connector: Arc::new(config).into(), h2, up };
                let row = runtime.block_on(watched(&peer, &way, gib));
                let protocol = if h2 { "HTTP/2" } else { "HTTP/1" };
                let direction = if up { "up" } else { "down" };
                println!("{role:6} {protocol} {direction:5} {row}");
            }
        }
    }
}

struct Way {
    port: u16,
    connector: TlsConnector,
    h2: bool,
    up: bool,
}

/// Streams, and looks at the interceptor meanwhile.
async fn watched(peer: &Peer, way: &Way, gib: u64) -> String {
    let moved = Arc::new(AtomicU64::new(0));
    let mut most = peer.resident_mb();
    let mut row = format!("{most:6.1} |");
    let mut next = GIB;
    let streaming = stream(way, gib * GIB, Arc::clone(&moved));
    tokio::pin!(streaming);
    loop {
        let done = tokio::select! {
            () = &mut streaming => true,
            () = tokio::time::sleep(Duration::from_millis(20)) => false,
        };
        let now = peer.resident_mb();
        most = most.max(now);
        while moved.load(Ordering::Relaxed) >= next {
            row.push_str(&format!(" {now:6.1}"));
            next += GIB;
        }
        if done {
            return format!("{row} | {most:6.1}");
        }
    }
}

/// One request that carries `bytes` there, or whose answer carries them back.
async fn stream(way: &Way, bytes: u64, moved: Arc<AtomicU64>) {
    let stream = TcpStream::connect(("127.0.0.1", way.port)).await.expect("a connection");
    let name = ServerName::try_from(tls::NAME).expect("a name");
    let stream = TokioIo::new(way.connector.connect(name, stream).await.expect("a handshake"));
    let (method, path, body) = if way.up {
        ("POST", "/up".to_owned(), Flood::new(bytes, Arc::clone(&moved)))
    } else {
        ("GET", format!("/down/{bytes}"), Flood::new(0, Arc::default()))
    };
    let request = Request::builder().method(method);
    let response = if way.h2 {
        let request = request.uri(format!("https://{}{path}", tls::NAME)).body(body);
        let handshake = http2::handshake(TokioExecutor::new(), stream);
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request.expect("a request")).await
    } else {
        let request = request.uri(path).header("host", tls::NAME).body(body);
        let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1");
        tokio::spawn(connection);
        sender.send_request(request.expect("a request")).await
    };
    let response = response.expect("an answer");
    assert_eq!(response.status(), 200, "the bench measures what passes");
    let counter = if way.up { Arc::default() } else { moved };
    let came = swallow(response.into_body(), &counter).await;
    assert!(way.up || came == bytes, "{came} bytes came");
}

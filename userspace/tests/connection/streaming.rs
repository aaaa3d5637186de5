//! What streams goes on streaming: a piece passes before the next one is written, and nobody runs
//! ahead of a peer that does not read.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use egret::policy::{Limits, Policy, Protocol, Rule};
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::credentials::SECRET;
use super::origin::Legs;
use super::talk::{Kind, Talk};
use super::upstream::{Arriving, Channel, Notes, channel};
use super::world::{World, allow, policy};

/// So long may what must come take; only a failure takes it.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// What was written and not yet taken.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Codes pieces of one body so that each can be read when it has come.
struct Packer {
    sink: Sink,
    encoder: Box<dyn Write + Send>,
}

impl Packer {
    fn new(coding: Coding) -> Self {
        let sink = Sink::default();
        let into = sink.clone();
        let encoder: Box<dyn Write + Send> = match coding {
            Coding::Plain => Box::new(into),
            Coding::Gzip => {
                Box::new(flate2::write::GzEncoder::new(into, flate2::Compression::default()))
            }
            Coding::Deflate => {
                Box::new(flate2::write::ZlibEncoder::new(into, flate2::Compression::default()))
            }
            Coding::Brotli => Box::new(brotli::CompressorWriter::new(into, 4096, 5, 20)),
            Coding::Zstd => Box::new(zstd::Encoder::new(into, 3).unwrap().auto_finish()),
        };
        Self { sink, encoder }
    }

    fn pack(&mut self, text: &str) -> Bytes {
        self.encoder.write_all(text.as_bytes()).unwrap();
        self.encoder.flush().unwrap();
        std::mem::take(&mut *self.sink.0.lock().unwrap()).into()
    }

    /// The end of the coded body.
    fn end(self) -> Bytes {
        drop(self.encoder);
        std::mem::take(&mut *self.sink.0.lock().unwrap()).into()
    }
}

/// Reads until `enough` says so.
async fn hear(body: &mut Incoming, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut heard = Vec::new();
    while !enough(&heard) {
        let frame = timeout(PATIENCE, body.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("nothing after {}", heard.escape_ascii()));
        heard.extend_from_slice(frame.expect("not at its end").unwrap().data_ref().unwrap());
    }
    heard
}

/// An upstream that writes an event only when the agent has read the one before.
async fn events(legs: Legs, coding: Coding, secret: bool) {
    let what = format!("{legs:?} {coding:?} secret: {secret}");
    let (say, body) = channel();
    let body = Arc::new(Mutex::new(Some(body)));
    let origin = legs
        .origin(move |_| {
            let body: Channel = body.lock().unwrap().take().unwrap();
            let answer = Response::builder().header("content-type", "text/event-stream");
            let answer = match coding {
                Coding::Plain => answer,
                Coding::Gzip => answer.header("content-encoding", "gzip"),
                Coding::Deflate => answer.header("content-encoding", "deflate"),
                Coding::Brotli => answer.header("content-encoding", "br"),
                Coding::Zstd => answer.header("content-encoding", "zstd"),
            };
            async move { answer.body(body.boxed()).unwrap() }
        })
        .await;
    let world = if secret { origin.secret_world() } else { origin.world() };
    let mut client = legs.client(&world).await;
    let request = legs.request("GET", "/events").body(Full::default()).unwrap();
    let answer = timeout(PATIENCE, client.send(request)).await.expect("a head before any event");
    assert_eq!(answer.headers()["content-type"], "text/event-stream", "{what}: {answer:?}");
    let opened = secret && coding != Coding::Plain;
    let coded = answer.headers().contains_key("content-encoding");
    assert_eq!(coded, coding != Coding::Plain && !opened, "{what}");
    let mut body = answer.into_body();
    let mut packer = Packer::new(coding);
    for n in 0..5 {
        let event = format!("data: event {n} echoes {SECRET}\n\n");
        let packed = packer.pack(&event);
        say.send(packed.clone()).await.unwrap();
        if secret {
            let heard = hear(&mut body, |b| b.ends_with(b"\n\n")).await;
            let heard = String::from_utf8(heard).unwrap();
            assert!(heard.starts_with(&format!("data: event {n} echoes ")), "{what}: {heard}");
            assert!(!heard.contains(SECRET), "{what}: {heard}");
        } else {
            let heard = hear(&mut body, |b| b.len() >= packed.len()).await;
            assert_eq!(heard, packed, "{what}");
        }
    }
    let last = packer.end();
    let left = if secret { Bytes::new() } else { last.clone() };
    if !last.is_empty() {
        say.send(last).await.unwrap();
    }
    drop(say);
    let rest = timeout(PATIENCE, body.collect()).await.expect("an end").unwrap().to_bytes();
    assert_eq!(rest, left, "{what}: nothing is kept back, nothing is added");
}

#[tokio::test]
async fn each_event_passes_before_the_next_is_written() {
    for legs in Legs::ALL {
        events(legs, Coding::Plain, false).await;
        events(legs, Coding::Gzip, false).await;
        for coding in [Coding::Plain, Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            events(legs, coding, true).await;
        }
    }
}

/// No more than this is on its way at once, in bytes: the buffers of two sockets of the kernel, both
/// ways, and egret's own.
const MOST: usize = 64 << 20;

/// After so long without a move nothing moves any more.
const STILL: Duration = Duration::from_millis(700);

/// The bytes of a stream, each known by its place.
fn piece(at: usize, length: usize) -> Bytes {
    (at..at + length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Says until nobody takes any more: how much was taken.
async fn fill(talk: &mut Talk) -> usize {
    let mut said = 0;
    while said < 2 * MOST {
        let took = match talk {
            Talk::Http { say, .. } => {
                let sent = timeout(STILL, say.send(piece(said, 65_536))).await;
                sent.map(|sent| sent.map_or_else(|e| panic!("{e} after {said}"), |()| 65_536))
            }
            Talk::Raw(io) => {
                timeout(STILL, io.write(&piece(said, 65_536))).await.map(Result::unwrap)
            }
        };
        match took {
            Ok(n) => said += n,
            Err(_) => return said,
        }
    }
    said
}

/// Hears exactly those bytes, in their order.
async fn drain(what: &str, talk: Talk, length: usize) {
    let mut at = 0;
    let check = |at: &mut usize, bytes: &[u8]| {
        assert!(bytes == piece(*at, bytes.len()), "{what}: other bytes at {at}");
        *at += bytes.len();
    };
    match talk {
        Talk::Http { say, mut hear } => {
            drop(say);
            loop {
                let frame = timeout(PATIENCE, hear.frame()).await;
                let frame =
                    frame.unwrap_or_else(|_| panic!("{what}: nothing after {at} of {length}"));
                let Some(frame) = frame else { break };
                check(&mut at, frame.unwrap().data_ref().unwrap());
            }
        }
        Talk::Raw(io) => {
            // What TLS has taken of the last piece is not all on its way yet.
            let (mut reader, mut writer) = tokio::io::split(io);
            let flushing = tokio::spawn(async move {
                writer.flush().await.unwrap();
                writer
            });
            let mut buffer = vec![0; 65_536];
            while at < length {
                let n = timeout(PATIENCE, reader.read(&mut buffer)).await;
                let n = n.unwrap_or_else(|_| panic!("{what}: nothing after {at} of {length}"));
                let n = n.unwrap();
                assert!(n > 0, "{what}: an end after {at} of {length}");
                check(&mut at, &buffer[..n]);
            }
            drop(flushing.await.unwrap());
        }
    }
    assert_eq!(at, length, "{what}");
}

/// The upstream sends back what it gets. An agent that says without hearing is stopped, and all that
/// it said comes back when it listens.
#[tokio::test]
async fn who_does_not_read_is_not_written_to_without_end() {
    for legs in Legs::ALL {
        let origin = legs.origin(async |request| Response::new(request.into_body().boxed())).await;
        for world in [origin.world(), origin.secret_world()] {
            let asked = legs.ask(&world, "/echo").await;
            let hear = asked.answer.await.unwrap().unwrap().into_body();
            let mut talk = Talk::Http { say: asked.say, hear };
            let said = fill(&mut talk).await;
            assert!((1..MOST).contains(&said), "{legs:?}: {said}");
            drain(&format!("{legs:?}"), talk, said).await;
        }
    }
    for kind in [Kind::Upgraded, Kind::Tcp, Kind::Tls] {
        let up = kind.upstream().await;
        let world = World::new(policy(vec![kind.rule()], &[("api.test", &up)]));
        let mut talk = kind.begin(&world, &up).await;
        let said = fill(&mut talk).await;
        assert!((1..MOST).contains(&said), "{kind:?}: {said}");
        drain(&format!("{kind:?}"), talk, said).await;
    }
}

/// A gRPC stream that egret cuts off ends with a status and the reason, and not with a reset.
#[tokio::test]
async fn a_grpc_stream_that_is_cut_off_says_why() {
    let legs = Legs { agent_h2: true, origin_h2: true };
    let notes = Notes::default();
    let noted = notes.clone();
    let origin = legs
        .origin(move |request| {
            let body = Arriving::new(request.into_body(), &noted).boxed();
            let answer = Response::builder().header("content-type", "application/grpc");
            async move { answer.body(body).unwrap() }
        })
        .await;
    let limited = |upload, download| {
        let limits = Limits { upload, download, ..Limits::default() };
        origin.policy(vec![Rule { limits, ..allow("api.test", 443, Protocol::Https) }])
    };
    let none = || limited(None, None);
    let cases = [
        ("policy", none(), "7", "no_rule", "the policy changed"),
        ("download", limited(None, Some(20)), "8", "download_limit", ""),
        ("upload", limited(Some(20), None), "8", "upload_limit", ""),
    ];
    for (what, policy, status, reason, words) in cases {
        let world = World::new(policy);
        let before = notes.ends();
        let asked = legs.ask(&world, "/grpc").await;
        let hear = asked.answer.await.unwrap().unwrap().into_body();
        let mut talk = Talk::Http { say: asked.say, hear };
        talk.goes_on("ten bytes.").await;
        if what == "policy" {
            world.replace(none());
            talk.goes_on("goes on").await;
            world.replace(Policy::deny_all("test"));
        }
        let Talk::Http { say, mut hear } = talk else { unreachable!() };
        let _ = say.send(Bytes::from_static(b"eleven more")).await;
        let last = timeout(PATIENCE, hear.frame()).await.expect("an end").expect("trailers");
        let trailers = last.unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], status, "{what}: {trailers:?}");
        let message = trailers["grpc-message"].to_str().unwrap();
        assert!(message.contains(reason) && message.contains(words), "{what}: {message}");
        assert!(timeout(PATIENCE, hear.frame()).await.expect("an end").is_none());
        timeout(PATIENCE, say.closed()).await.unwrap_or_else(|_| panic!("{what}: it is taken on"));
        notes.ended(before + 1).await;
        let records = world.full_records(2).await;
        assert_eq!(records.len(), 2, "{what}: {records:?}");
        assert_eq!(records[1].reason.unwrap().as_str(), reason, "{what}");
    }
}

//! What happens to answers.

use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use ::http::{Method, Response};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD,
};
use bytes::Bytes;
use http_body::Body as _;
use proptest::prelude::*;

use super::super::{ScrubReport, ScrubStream, Scrubber};
use super::{Collected, Frames, collect, contains, host, set};
use crate::policy::CredentialKind::{Basic, Bearer};

const SECRET: &str = "ghp_S3cr3t/+~?\"é";

fn scrubber() -> Arc<Scrubber> {
    static ONE: LazyLock<Arc<Scrubber>> = LazyLock::new(|| {
        let basic = Basic { username: "bot".into() };
        let set = set(&[("a", Bearer, SECRET), ("b", basic, "pa55word-of-b")]);
        set.scrubber_for(&host("api.test")).unwrap()
    });
    Arc::clone(&ONE)
}

/// What the agent gets for this answer.
fn answer(
    response: ::http::response::Builder,
    method: &Method,
    body: Frames,
) -> (::http::response::Parts, Collected, ScrubReport) {
    let (mut parts, body) = response.body(body).unwrap().into_parts();
    let body = scrubber().response(method, &mut parts, body);
    let report = body.report();
    (parts, collect(body), report)
}

fn pct(text: &str, lower: bool) -> String {
    let escaped = super::super::query::escape(text.as_bytes());
    if lower {
        escaped
            .replace("%2F", "%2f")
            .replace("%2B", "%2b")
            .replace("%3F", "%3f")
            .replace("%C3%A9", "%c3%a9")
    } else {
        escaped
    }
}

/// The secret as servers echo it.
fn echoes() -> Vec<String> {
    let mut all = vec![
        SECRET.to_owned(),
        pct(SECRET, false),
        pct(SECRET, true),
        serde_json::Value::from(SECRET).to_string(),
        SECRET.replace('"', "\\\"").replace('/', "\\/"),
        STANDARD.encode("bot:pa55word-of-b"),
    ];
    for before in ["", "x", "xy", "Bearer "] {
        all.push(STANDARD.encode(format!("{before}{SECRET}")));
        all.push(URL_SAFE_NO_PAD.encode(format!("{before}{SECRET} and more")));
    }
    all
}

/// Whether `text` still shows the secret, in any echo that [`echoes`] knows: in base64, whether
/// any run of it decodes to the secret.
fn shows(text: &[u8]) -> bool {
    let secret_in = |t: &[u8]| {
        let unslashed = String::from_utf8_lossy(t).replace("\\/", "/").replace("\\\"", "\"");
        let plain: Vec<u8> = percent_encoding::percent_decode(unslashed.as_bytes()).collect();
        [SECRET, "pa55word-of-b"]
            .iter()
            .any(|s| contains(t, s.as_bytes()) || contains(&plain, s.as_bytes()))
    };
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/-_".contains(b);
    secret_in(text)
        || text.split(|b| !base64(b)).any(|run| {
            let run: Vec<u8> = run
                .iter()
                .map(|b| match b {
                    b'-' => b'+',
                    b'_' => b'/',
                    b => *b,
                })
                .collect();
            (0..4).any(|skip| {
                let run = run.get(skip..).unwrap_or_default();
                let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
                LENIENT.decode(whole).is_ok_and(|plain| secret_in(&plain))
            })
        })
}

/// Base64 that begins and ends anywhere.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[test]
fn the_judge_of_these_tests_sees_every_echo() {
    for echo in echoes() {
        assert!(shows(format!("<<{echo}>>").as_bytes()), "{echo}");
    }
    assert!(!shows(b"nothing of it, ghp_S3cr3t"));
}

#[test]
fn echoes_in_headers_are_masked() {
    for echo in echoes() {
        for name in ["x-echo", "set-cookie", "www-authenticate", "location"] {
            let value = ::http::HeaderValue::from_bytes(format!("k={echo}; x").as_bytes()).unwrap();
            let response = Response::builder().header(name, &value).header("x-b", "kept");
            let (parts, _, report) = answer(response, &Method::GET, Frames::of([]));
            let got = parts.headers[name].as_bytes();
            assert!(!shows(got), "{name}: {echo}: {got:?}");
            assert_eq!(got.len(), value.len(), "{name}: {echo}");
            assert!(got.starts_with(b"k=") && got.ends_with(b"; x"));
            assert_eq!(parts.headers["x-b"], "kept");
            assert_eq!(report.hits(), 1, "{name}: {echo}");
        }
    }
}

#[test]
fn trailers_and_reason_phrases_too() {
    let mut response = Response::builder();
    let phrase = hyper::ext::ReasonPhrase::try_from(SECRET.as_bytes().to_vec());
    response.extensions_mut().unwrap().insert(phrase.unwrap());
    let body = Frames::of([&b"data"[..]]).trailers("x-a", "pa55word-of-b");
    let (parts, got, report) = answer(response, &Method::GET, body);
    assert!(parts.extensions.get::<hyper::ext::ReasonPhrase>().is_none());
    assert_eq!(got.trailers.unwrap()["x-a"], "*".repeat(13));
    assert_eq!(got.data, b"data");
    assert_eq!(report.hits(), 1);
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

fn compress(coding: &str, data: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => gzip(data),
        "gzip in two" => [gzip(&data[..data.len() / 2]), gzip(&data[data.len() / 2..])].concat(),
        "deflate" => {
            let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
        "raw deflate" => {
            let mut e = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(data).unwrap();
            out
        }
        "zstd" => zstd::encode_all(data, 1).unwrap(),
        other => panic!("{other}"),
    }
}

const CODINGS: [&str; 6] = ["gzip", "gzip in two", "deflate", "raw deflate", "br", "zstd"];

fn header_of(coding: &str) -> &str {
    match coding {
        "gzip in two" => "GZip",
        "raw deflate" => "deflate",
        other => other,
    }
}

#[test]
fn coded_bodies_are_opened() {
    for coding in CODINGS {
        for size in [0, 1, 100_000] {
            let filler: String = ('a'..='y').cycle().take(size).collect();
            let plain = format!("{filler}{SECRET}{filler}");
            let coded = compress(coding, plain.as_bytes());
            let response = Response::builder()
                .header("content-encoding", header_of(coding))
                .header("content-length", coded.len())
                .header("accept-ranges", "bytes");
            let body = Frames::of(coded.chunks(7));
            let (parts, got, report) = answer(response, &Method::GET, body);
            assert!(got.error.is_none(), "{coding} {size}: {:?}", got.error);
            let mask = "*".repeat(SECRET.len());
            assert_eq!(got.data, plain.replace(SECRET, &mask).into_bytes(), "{coding} {size}");
            assert!(parts.headers.is_empty(), "{coding}: {:?}", parts.headers);
            assert_eq!(report.hits(), 1);
            assert!(!report.opaque());
        }
    }
}

#[test]
fn damaged_and_short_coded_bodies_are_errors() {
    for coding in CODINGS {
        let coded = compress(coding, "some text ".repeat(1000).as_bytes());
        let short = &coded[..coded.len() - 5];
        let mut damaged = coded.clone();
        damaged[..4].copy_from_slice(b"\xff\xff\xff\xff");
        for bad in [short, &damaged] {
            let response = Response::builder().header("content-encoding", header_of(coding));
            let (_, got, _) = answer(response, &Method::GET, Frames::of(bad.chunks(100)));
            assert!(got.error.is_some(), "{coding}");
        }
    }
}

#[test]
fn a_bomb_is_unpacked_one_buffer_at_a_time() {
    for coding in CODINGS {
        let bomb = compress(coding, &vec![b'0'; 8 << 20]);
        let response = Response::builder().header("content-encoding", header_of(coding));
        let (mut parts, body) = response.body(Frames::of([&bomb[..]])).unwrap().into_parts();
        let mut body = scrubber().response(&Method::GET, &mut parts, body);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut total = 0;
        while let std::task::Poll::Ready(Some(frame)) =
            std::pin::Pin::new(&mut body).poll_frame(&mut cx)
        {
            let len = frame.unwrap().into_data().unwrap().len();
            assert!(len <= 16 * 1024 + 200, "{coding}: {len}");
            total += len;
        }
        assert_eq!(total, 8 << 20, "{coding}");
    }
}

/// What has been flushed arrives at once: nothing waits for more than a possible secret.
#[test]
fn events_are_not_delayed() {
    let event = b"data: hello\n\n";
    let mut plain = ScrubStream::new(scrubber());
    assert_eq!(plain.push(Bytes::from_static(event)), &event[..]);
    assert_eq!(plain.push(Bytes::from_static(b"data: ghp_")), "data: ");
    assert_eq!(plain.push(Bytes::from_static(b"!\n")), "ghp_!\n");
    assert_eq!(plain.finish(), "");

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let (tx, rx) = std::sync::mpsc::channel::<Bytes>();
    let response = Response::builder().header("content-encoding", "gzip");
    let (mut parts, inner) = response.body(Queue(rx)).unwrap().into_parts();
    let mut body = scrubber().response(&Method::GET, &mut parts, inner);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..3 {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
        tx.send(std::mem::take(encoder.get_mut()).into()).unwrap();
        let mut got = Vec::new();
        while let std::task::Poll::Ready(Some(frame)) =
            std::pin::Pin::new(&mut body).poll_frame(&mut cx)
        {
            got.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(got, event);
    }
}

/// A body of what is in a channel, pending when it is empty.
struct Queue(std::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Queue {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.try_recv() {
            Ok(data) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(data)))),
            Err(_) => std::task::Poll::Pending,
        }
    }
}

#[test]
fn untouched_frames_are_the_same_memory() {
    let mut stream = ScrubStream::new(scrubber());
    let frame = Bytes::from("nothing to see".repeat(100));
    let out = stream.push(frame.clone());
    assert_eq!(out.as_ptr(), frame.as_ptr());
    assert_eq!(out, frame);
}

#[test]
fn lengths_stay_where_the_body_is_plain() {
    let plain = format!("a{SECRET}b");
    for (status, opaque_coding) in
        [(200, None), (206, None), (200, Some("compress")), (206, Some("gzip"))]
    {
        let mut response = Response::builder().status(status).header("content-length", plain.len());
        if let Some(coding) = opaque_coding {
            response = response.header("content-encoding", coding);
        }
        let body = Frames::of([plain.as_bytes()]);
        let (parts, got, report) = answer(response, &Method::GET, body);
        assert_eq!(parts.headers["content-length"], plain.len().to_string());
        assert_eq!(got.data.len(), plain.len());
        assert!(!shows(&got.data), "{status}");
        assert_eq!(report.opaque(), opaque_coding.is_some());
    }
}

#[test]
fn answers_without_a_body_keep_their_headers() {
    for (method, status, kept) in
        [(Method::HEAD, 200, true), (Method::GET, 304, true), (Method::GET, 200, false)]
    {
        let response = Response::builder()
            .status(status)
            .header("content-encoding", "gzip")
            .header("content-length", "100");
        let (parts, got, _) = answer(response, &method, Frames::of([]));
        assert!(got.error.is_none(), "{:?}", got.error);
        assert_eq!(parts.headers.contains_key("content-encoding"), kept);
        assert_eq!(parts.headers.contains_key("content-length"), kept);
    }
}

/// A range that cuts a secret in two shows at most three bytes of it at either edge.
#[test]
fn ranges_cannot_be_pieced_together() {
    let text = format!("{}{SECRET}{}", "-".repeat(2000), "-".repeat(2000));
    let (start, end) = (2000, 2000 + SECRET.len());
    for cut in start..=end {
        for (piece, visible) in
            [(&text.as_bytes()[..cut], cut - start), (&text.as_bytes()[cut..], end - cut)]
        {
            let mut stream = ScrubStream::of_part(scrubber());
            let mut out = Vec::new();
            for chunk in piece.chunks(5) {
                out.extend_from_slice(&stream.push(Bytes::copy_from_slice(chunk)));
            }
            out.extend_from_slice(&stream.finish());
            assert_eq!(out.len(), piece.len());
            let clear = out.iter().filter(|b| !b"-*".contains(b)).count();
            let want = if visible < 4 { visible } else { 0 };
            assert_eq!(clear, want, "cut at {cut}: {}", String::from_utf8_lossy(&out));
        }
    }
}

proptest! {
    /// Whatever surrounds the echoes and however the stream is cut: no secret comes out, the
    /// length stays, and what is not part of an echo stays too.
    #[test]
    fn no_cut_lets_a_secret_through(
        pieces in proptest::collection::vec((any::<prop::sample::Index>(), "[<>{}:, \n]{1,9}"), 0..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
    ) {
        let echoes = echoes();
        let mut text = String::new();
        for (echo, between) in &pieces {
            text += between;
            text += echo.get(echoes.as_slice()).as_str();
        }
        let (_, got, report) = answer(Response::builder(), &Method::GET, Frames::cut(text.as_bytes(), &cuts));
        prop_assert!(!shows(&got.data), "{}", String::from_utf8_lossy(&got.data));
        prop_assert_eq!(got.data.len(), text.len());
        prop_assert_eq!(report.hits(), pieces.len() as u64);
        for (was, is) in text.bytes().zip(&got.data) {
            prop_assert!(*is == was || *is == b'*');
            let outside = b"<>{}:, \n".contains(&was);
            prop_assert!(*is == was || !outside);
        }
    }

    /// Bytes that hold no secret come out as they went in, however they are cut and coded.
    #[test]
    fn everything_else_is_left_alone(
        mut data in proptest::collection::vec(any::<u8>(), 0..3000),
        teaser in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec(any::<usize>(), 0..40),
        coding in 0..=CODINGS.len(),
    ) {
        // End on the beginning of a secret, so that something is held back.
        let n = teaser.index(SECRET.len());
        data.extend_from_slice(&SECRET.as_bytes()[..n]);
        let (response, coded) = match CODINGS.get(coding) {
            None => (Response::builder(), data.clone()),
            Some(c) => (
                Response::builder().header("content-encoding", header_of(c)),
                compress(c, &data),
            ),
        };
        let (_, got, report) = answer(response, &Method::GET, Frames::cut(&coded, &cuts));
        prop_assert!(got.error.is_none(), "{:?}", got.error);
        prop_assert_eq!(report.hits(), 0);
        prop_assert_eq!(got.data, data);
    }

    /// The streaming core against secrets that overlap themselves and each other.
    #[test]
    fn overlapping_secrets_are_all_masked(
        text in "[ab]{0,120}", cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        let secrets = ["abababab", "babababb", "aaaaaaaaaa"];
        let set = set(&[("x", Bearer, secrets[0]), ("y", Bearer, secrets[1]), ("z", Bearer, secrets[2])]);
        let scrubber = set.scrubber_for(&host("api.test")).unwrap();
        let mut stream = ScrubStream::new(scrubber);
        let mut out = Vec::new();
        for frame in Frames::cut(text.as_bytes(), &cuts).0 {
            out.extend_from_slice(&stream.push(frame.into_data().unwrap()));
        }
        out.extend_from_slice(&stream.finish());
        let mut want = text.clone().into_bytes();
        for s in secrets {
            for at in 0..text.len() {
                if text[at..].starts_with(s) {
                    want[at..at + s.len()].fill(b'*');
                }
            }
        }
        prop_assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(want).unwrap());
    }
}

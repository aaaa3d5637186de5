//! HTTP/2 by hand-written frames: what a well-behaved client cannot send is reset or refused,
//! floods end the connection, and the same request well-formed passes.

use egret::http::serve::ServeLimits;
use egret::policy::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream::{self, Upstream};
use super::world::{API, World, allow, policy};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

type Fields<'a> = &'a [(&'a str, &'a str)];

const GET: Fields<'_> =
    &[(":method", "GET"), (":scheme", "https"), (":authority", "api.test"), (":path", "/x")];
const POST: Fields<'_> =
    &[(":method", "POST"), (":scheme", "https"), (":authority", "api.test"), (":path", "/x")];

/// How a stream or the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals, neither indexed nor compressed.
fn block(fields: Fields<'_>) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        let mut length = text.len();
        if length < 127 {
            out.push(u8::try_from(length).unwrap());
        } else {
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            out.push(u8::try_from(length).unwrap());
        }
        out.extend_from_slice(text.as_bytes());
    }
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

fn request(fields: Fields<'_>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn with(fields: Fields<'_>, more: Fields<'_>) -> Vec<u8> {
    request(&[fields, more].concat())
}

/// The fields with another value for one of them.
fn but(name: &str, value: &str) -> Vec<u8> {
    let fields: Vec<_> =
        GET.iter().map(|(n, v)| if *n == name { (*n, value) } else { (*n, *v) }).collect();
    request(&fields)
}

fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = GET.iter().copied().filter(|(n, _)| *n != name).collect();
    request(&fields)
}

/// A POST with a body and trailers on stream 1.
fn posting(fields: Fields<'_>, body: &[u8], trailers: Option<Fields<'_>>) -> Vec<u8> {
    let last = if trailers.is_none() { END_STREAM } else { 0 };
    let mut out = frame(HEADERS, END_HEADERS, 1, &block(&[POST, fields].concat()));
    out.extend(frame(DATA, last, 1, body));
    if let Some(trailers) = trailers {
        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    out
}

fn world(up: &Upstream) -> World {
    World::new(policy(vec![allow("api.test", 443, Protocol::Https)], &[("api.test", up)]))
}

/// Sends frames on a new connection and gives the end of stream 1, or of the connection.
async fn ask(world: &World, frames: &[u8]) -> End {
    let io = world.connect_tls(API, 443, "api.test", b"h2").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend_from_slice(frames);
    let writing = tokio::spawn(async move {
        // A connection that was ended takes no more.
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let end = read_end(&mut reader).await;
    drop(writing.await.unwrap());
    end
}

async fn read_end(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> End {
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() {
            return End::Closed;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if reader.read_exact(&mut payload).await.is_err() {
            return End::Closed;
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        match head[3] {
            HEADERS if stream == 1 => return End::Status(status(&payload)),
            RST_STREAM if stream == 1 => return End::Reset(code(0)),
            GOAWAY if code(4) != 0 => return End::GoAway(code(4)),
            _ => {}
        }
    }
}

/// The status at the beginning of a header block; it is first and from the static table or a
/// literal whose name is.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x8c => 400,
        // Three digits as they are, or in Huffman's code of five bits each.
        _ if block[1] == 3 => std::str::from_utf8(&block[2..5]).unwrap().parse().unwrap(),
        _ => {
            let bits = block[2..4].iter().fold(0u16, |bits, b| bits << 8 | u16::from(*b));
            let digit = |shift: u16| match bits >> shift & 0x1f {
                code @ 0..=2 => code,
                // The codes of the digits above 2 have six bits.
                _ => 9,
            };
            digit(11) * 100 + digit(6) * 10 + digit(1)
        }
    }
}

#[tokio::test]
async fn what_http_2_forbids_is_reset_or_refused() {
    use End::{GoAway, Reset, Status};
    const RESET: End = Reset(PROTOCOL_ERROR);
    let cases: &[(&str, Vec<u8>, End)] = &[
        ("control", request(GET), Status(200)),
        ("control: host as :authority", with(GET, &[("host", "API.test")]), Status(200)),
        ("control: te", with(GET, &[("te", "trailers")]), Status(200)),
        (
            "control: host alone",
            {
                let rest = [GET[0], GET[1], GET[3], ("host", "api.test")];
                request(&rest)
            },
            Status(200),
        ),
        ("upper case", with(GET, &[("X-Upper", "1")]), RESET),
        ("connection", with(GET, &[("connection", "close")]), RESET),
        ("keep-alive", with(GET, &[("keep-alive", "5")]), RESET),
        ("proxy-connection", with(GET, &[("proxy-connection", "close")]), RESET),
        ("transfer-encoding", with(GET, &[("transfer-encoding", "chunked")]), RESET),
        ("upgrade", with(GET, &[("upgrade", "websocket")]), RESET),
        ("te", with(GET, &[("te", "gzip")]), RESET),
        ("no :method", without(":method"), RESET),
        ("no :scheme", without(":scheme"), RESET),
        ("no :path", without(":path"), RESET),
        ("no :authority", without(":authority"), Status(400)),
        ("empty :path", but(":path", ""), RESET),
        ("* for GET", but(":path", "*"), Status(400)),
        ("a path without /", but(":path", "x"), RESET),
        ("a backslash", but(":path", "/a\\b"), Status(400)),
        ("a quotation mark", but(":path", "/a\"b"), Status(400)),
        ("a field like a framing one", with(GET, &[("transfer_encoding", "x")]), Status(400)),
        ("another scheme", but(":scheme", "http"), Status(400)),
        ("an odd scheme", but(":scheme", "file"), Status(400)),
        ("userinfo", but(":authority", "u@api.test"), Status(400)),
        ("a list", but(":authority", "api.test,other.test"), Status(400)),
        ("host unlike :authority", with(GET, &[("host", "other.test")]), Status(400)),
        ("two hosts", with(GET, &[("host", "api.test"), ("host", "api.test")]), Status(400)),
        ("lower-case method", but(":method", "get"), Status(400)),
        ("the stand-in's method", but(":method", "-"), Status(400)),
        (":status", with(GET, &[(":status", "200")]), RESET),
        ("an unknown pseudo-header", with(GET, &[(":x", "1")]), RESET),
        ("a pseudo-header twice", with(GET, &[(":path", "/y")]), RESET),
        ("a pseudo-header late", with(GET, &[("a", "b"), (":protocol", "x")]), RESET),
        ("lengths", with(POST, &[("content-length", "0"), ("content-length", "0")]), Status(400)),
        ("CR LF in a value", with(GET, &[("x", "a\r\nhost: b")]), RESET),
        ("NUL in a value", with(GET, &[("x", "a\0b")]), RESET),
        ("a space in a name", with(GET, &[("x y", "a")]), RESET),
        ("fewer bytes than said", with(POST, &[("content-length", "3")]), RESET),
        ("data on stream 0", frame(DATA, 0, 0, b"x"), GoAway(PROTOCOL_ERROR)),
    ];
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let mut passed = 0;
    for (what, frames, expected) in cases {
        let end = ask(&world, frames).await;
        // A value that cannot be a field's is an error of the whole connection in h2.
        let stricter = *expected == RESET && matches!(end, GoAway(_));
        assert!(end == *expected || stricter, "{what}: {end:?}");
        passed += usize::from(*expected == Status(200));
    }
    assert_eq!(up.notes.lines().len(), passed, "{:?}", up.notes.lines());
}

#[tokio::test]
async fn a_body_unlike_its_head_or_with_forbidden_trailers_never_arrives_whole() {
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let cases = [
        ("too long", posting(&[("content-length", "1")], b"abc", None)),
        ("too short", posting(&[("content-length", "9")], b"abc", None)),
        ("connection", posting(&[], b"abc", Some(&[("connection", "x")]))),
        ("a length", posting(&[], b"abc", Some(&[("content-length", "3")]))),
        ("a host", posting(&[], b"abc", Some(&[("host", "other.test")]))),
        ("authorization", posting(&[], b"abc", Some(&[("authorization", "Bearer x")]))),
    ];
    for (what, frames) in &cases {
        let end = ask(&world, frames).await;
        assert!(end != End::Status(200), "{what}: {end:?}");
    }
    assert_eq!(up.notes.whole(), 0);
    let control = posting(&[("content-length", "3")], b"abc", Some(&[("x-sum", "1")]));
    assert_eq!(ask(&world, &control).await, End::Status(200));
    // h2 drops a pseudo-header there without a word; nobody behind it sees it.
    let pseudo = posting(&[], b"abc", Some(&[(":path", "/y"), ("x-sum", "2")]));
    ask(&world, &pseudo).await;
    assert_eq!(up.notes.lines().last().unwrap(), "POST /x");
    for trailers in up.notes.trailers.lock().unwrap().iter() {
        assert!(trailers.len() == 1 && trailers.contains_key("x-sum"), "{trailers:?}");
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    const MOST: usize = 8;
    let up = upstream::https("api.test").await;
    let limits = ServeLimits { h2_resets: MOST, ..ServeLimits::default() };
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::limited(policy(rules, &[("api.test", &up)]), limits);
    let block = block(GET);
    let opened_and_reset = |n: u32| -> Vec<u8> {
        (0..n)
            .flat_map(|i| {
                let stream = 2 * i + 3;
                let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
                [open, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
            })
            .collect()
    };
    let flood = opened_and_reset(2000);
    assert_eq!(ask(&world, &flood).await, End::GoAway(ENHANCE_YOUR_CALM));
    let reached = up.notes.lines().len();
    assert!(reached < 1000, "{reached}");
    // A client that changes its mind now and then is served.
    let mut few = request(GET);
    few.extend(opened_and_reset(2));
    assert_eq!(ask(&world, &few).await, End::Status(200));
}

#[tokio::test]
async fn streams_that_are_malformed_again_and_again_end_the_connection() {
    let up = upstream::https("api.test").await;
    let limits = ServeLimits { h2_resets: 8, ..ServeLimits::default() };
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::limited(policy(rules, &[("api.test", &up)]), limits);
    let bad = block(&[GET, &[("connection", "close")]].concat());
    let flood: Vec<u8> =
        (1..1000).flat_map(|i| frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, &bad)).collect();
    assert_eq!(ask(&world, &flood).await, End::GoAway(ENHANCE_YOUR_CALM));
    assert!(up.notes.lines().is_empty());
}

#[tokio::test]
async fn a_flood_of_continuations_or_fields_is_bounded() {
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let begin = frame(HEADERS, END_STREAM, 1, &block(GET));

    let mut empty = begin.clone();
    for _ in 0..5000 {
        empty.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    assert_eq!(ask(&world, &empty).await, End::GoAway(ENHANCE_YOUR_CALM));

    let field = block(&[("x-field", &"x".repeat(1000))]);
    let mut many = begin.clone();
    for _ in 0..2000 {
        many.extend(frame(CONTINUATION, 0, 1, &field));
    }
    assert!(matches!(ask(&world, &many).await, End::GoAway(_)));

    // A bomb: one field goes into the table once and is named over and over again, by a byte.
    let mut bomb = block(GET);
    bomb.push(0x40);
    bomb.extend_from_slice(&block(&[("x", &"y".repeat(4000))])[1..]);
    bomb.extend([0xbe; 10_000]);
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let end = ask(&world, &bomb).await;
    assert!(!matches!(end, End::Status(200)), "{end:?}");
    assert!(up.notes.lines().is_empty());

    let mut few = begin;
    few.extend(frame(CONTINUATION, 0, 1, &field));
    few.extend(frame(CONTINUATION, END_HEADERS, 1, &field));
    assert_eq!(ask(&world, &few).await, End::Status(200), "control");
}

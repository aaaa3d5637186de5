//! HTTP/2 by hand: frames that no library would write, how a peer ended what they began, and the
//! admission table of HTTP/2.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub type Fields<'a> = &'a [(&'a str, &'a str)];

pub const GET: Fields<'_> =
    &[(":method", "GET"), (":scheme", "https"), (":authority", "api.test"), (":path", "/x")];
pub const POST: Fields<'_> =
    &[(":method", "POST"), (":scheme", "https"), (":authority", "api.test"), (":path", "/x")];

/// How a stream or the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// A header block of literals, neither indexed nor compressed.
pub fn block(fields: Fields<'_>) -> Vec<u8> {
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

pub fn request(fields: Fields<'_>) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

pub fn with(fields: Fields<'_>, more: Fields<'_>) -> Vec<u8> {
    request(&[fields, more].concat())
}

/// The fields with another value for one of them.
pub fn but(name: &str, value: &str) -> Vec<u8> {
    let fields: Vec<_> =
        GET.iter().map(|(n, v)| if *n == name { (*n, value) } else { (*n, *v) }).collect();
    request(&fields)
}

pub fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = GET.iter().copied().filter(|(n, _)| *n != name).collect();
    request(&fields)
}

/// A POST with a body and trailers on stream 1.
pub fn posting(fields: Fields<'_>, body: &[u8], trailers: Option<Fields<'_>>) -> Vec<u8> {
    let last = if trailers.is_none() { END_STREAM } else { 0 };
    let mut out = frame(HEADERS, END_HEADERS, 1, &block(&[POST, fields].concat()));
    out.extend(frame(DATA, last, 1, body));
    if let Some(trailers) = trailers {
        out.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)));
    }
    out
}

/// Sends frames on a new connection and gives the end of stream 1, or of the connection.
pub async fn ask<IO>(io: IO, frames: &[u8]) -> End
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let bytes = opening(frames);
    let writing = tokio::spawn(async move {
        // A connection that was ended takes no more.
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let end = read_end(&mut reader).await;
    drop(writing.await.unwrap());
    end
}

/// What a client says first, and then the frames.
pub fn opening(frames: &[u8]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend_from_slice(frames);
    bytes
}

async fn read_end(reader: &mut (impl AsyncRead + Unpin)) -> End {
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

/// What is sent on stream 1, and what egret says to it. Those that end with 200 are controls.
pub fn cases() -> Vec<(&'static str, Vec<u8>, End)> {
    use End::{GoAway, Reset, Status};
    const RESET: End = Reset(PROTOCOL_ERROR);
    vec![
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
    ]
}

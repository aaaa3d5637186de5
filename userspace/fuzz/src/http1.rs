//! hyper as the other reader of an HTTP/1 connection: the requests that it sees in given bytes,
//! without a network and without waiting.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use egret::http::chunked::Chunks;
use egret::http::head::{Framing, HeadLimits, Parsed, check};
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One request as a reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub version: http::Version,
    /// Names in lower case, and values, in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// `None`: it did not end, or is malformed.
    pub body: Option<Vec<u8>>,
}

pub const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };

/// A peer that says what it was given to say and then stays silent.
pub struct Script(VecDeque<Bytes>);

impl Script {
    /// `bytes`, in pieces whose sizes follow from `cuts`; in one piece if there are none.
    pub fn new(bytes: &[u8], cuts: &[u8]) -> Self {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut pieces = VecDeque::new();
        for cut in cuts {
            let n = usize::from(*cut).min(rest.len());
            if n > 0 {
                pieces.push_back(rest.split_to(n));
            }
        }
        if !rest.is_empty() {
            pieces.push_back(rest);
        }
        Self(pieces)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.0.pop_front() else { return Poll::Pending };
        let n = piece.len().min(buf.remaining());
        buf.put_slice(&piece.split_to(n));
        if !piece.is_empty() {
            self.0.push_front(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, b: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(b.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper sees. `wrap` may put a reader of its own before it, and is told of each answer.
pub fn hyper_sees<IO>(script: Script, wrap: impl FnOnce(Script) -> IO, answered: impl Fn()) -> Vec<Seen>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let polls = 64 + 4 * script.len();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (seen, answered) = (Rc::clone(&seen), &answered);
        async move {
            let (parts, body) = request.into_parts();
            let at = seen.borrow().len();
            let fields = parts.headers.iter();
            seen.borrow_mut().push(Seen {
                method: parts.method.to_string(),
                target: parts.uri.to_string(),
                version: parts.version,
                fields: fields.map(|(n, v)| (n.to_string(), v.as_bytes().to_vec())).collect(),
                body: None,
            });
            if let Ok(whole) = body.collect().await {
                seen.borrow_mut()[at].body = Some(whole.to_bytes().to_vec());
            }
            answered();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.max_buf_size(LIMITS.bytes).max_headers(LIMITS.fields);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wrap(script)), service));
    // Everything is there already, so each poll comes as far as it can.
    for _ in 0..polls {
        if connection.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            break;
        }
    }
    seen.take()
}

/// The requests that egret's own readers of bytes see, the unfinished last one included, and
/// whether what follows them is malformed.
pub fn egret_sees(mut bytes: &[u8]) -> (Vec<Seen>, bool) {
    let mut all = Vec::new();
    loop {
        let head = match check(bytes, LIMITS) {
            Parsed::Found(head) => head,
            Parsed::NeedMore => return (all, false),
            Parsed::Malformed(_) => return (all, true),
        };
        let mut seen = fields(&bytes[..head.len]);
        bytes = &bytes[head.len..];
        match head.framing {
            Framing::None => seen.body = Some(Vec::new()),
            Framing::Length(n) => {
                if let Some((body, rest)) =
                    usize::try_from(n).ok().and_then(|n| bytes.split_at_checked(n))
                {
                    (seen.body, bytes) = (Some(body.to_vec()), rest);
                }
            }
            Framing::Chunked => match Chunks::default().scan(bytes) {
                Ok(scanned) if scanned.done => {
                    seen.body = Some(unchunked(&bytes[..scanned.used]));
                    bytes = &bytes[scanned.used..];
                }
                Ok(_) => {}
                // Head and body came together: nothing of the request passes.
                Err(_) => return (all, true),
            },
        }
        let ended = seen.body.is_some();
        all.push(seen);
        if !ended {
            return (all, false);
        }
    }
}

/// A head that was found to be in order, as it is written.
fn fields(head: &[u8]) -> Seen {
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let line = text(lines.next().unwrap_or_default());
    let words: Vec<&str> = line.split(' ').collect();
    let field = |l: &[u8]| {
        let colon = l.iter().position(|b| *b == b':').expect("a field has a colon");
        (text(&l[..colon]).to_ascii_lowercase(), l[colon + 1..].trim_ascii().to_vec())
    };
    Seen {
        method: words[0].into(),
        target: words[1].into(),
        version: match words[2] {
            "HTTP/1.0" => http::Version::HTTP_10,
            _ => http::Version::HTTP_11,
        },
        fields: lines.take_while(|l| !l.is_empty()).map(field).collect(),
        body: None,
    }
}

/// The data of a body in chunks that was found to be in order.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let lf = body.iter().position(|b| *b == b'\n').expect("the line of a size");
        let size = std::str::from_utf8(&body[..lf]).expect("digits").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&body[lf + 1..lf + 1 + size]);
        body = &body[lf + 1 + size + 2..];
    }
}

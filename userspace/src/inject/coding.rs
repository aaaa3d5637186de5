//! Content codings: what the agent may ask for, and opening what comes back.
//!
//! The decoders read from a [`Feed`] that says "would block" when it is empty, so that a body is
//! decoded as it arrives and never more than one buffer at a time, however well it is packed.

use std::io::{self, BufRead, ErrorKind, Read};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::{self, HeaderMap, HeaderValue};
use bytes::{Buf as _, Bytes, BytesMut};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// How much is decoded at a time, in bytes.
const DECODED: usize = 16 * 1024;

/// The codings that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// What the `Content-Encoding` of an answer means for scrubbing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coded {
    Plain,
    Known(Coding),
    /// Cannot be opened.
    Unknown,
}

impl Coding {
    fn parse(token: &str) -> Option<Self> {
        match token.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Coded {
    /// By `Content-Encoding`; several codings on top of each other are not opened.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut tokens = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let Ok(text) = value.to_str() else { return Self::Unknown };
            tokens.extend(
                text.split(',')
                    .map(str::trim)
                    .filter(|t| !t.is_empty() && !t.eq_ignore_ascii_case("identity")),
            );
        }
        match tokens.as_slice() {
            [] => Self::Plain,
            [one] => Coding::parse(one).map_or(Self::Unknown, Self::Known),
            _ => Self::Unknown,
        }
    }
}

/// Leaves in `Accept-Encoding` only what can be opened; asks for plain text if nothing is left.
pub(super) fn limit_accept_encoding(headers: &mut HeaderMap) {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return;
    }
    let mut kept: Vec<&str> = Vec::new();
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        let items = value.to_str().unwrap_or("").split(',').map(str::trim);
        kept.extend(items.filter(|item| {
            let name = item.split(';').next().unwrap_or("").trim();
            Coding::parse(name).is_some() || name.eq_ignore_ascii_case("identity")
        }));
    }
    let new = HeaderValue::from_str(&kept.join(", "))
        .ok()
        .filter(|v| !v.is_empty())
        .unwrap_or(HeaderValue::from_static("identity"));
    headers.insert(header::ACCEPT_ENCODING, new);
}

/// Opens one coded body.
pub(super) struct Decoder {
    feed: Feed,
    reader: Option<Box<dyn Read + Send + Sync>>,
    coding: Coding,
    buffer: BytesMut,
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        Self { feed: Feed::default(), reader: None, coding, buffer: BytesMut::new() }
    }

    /// Adds coded bytes; only after [`Self::next`] has answered `None`.
    pub(super) fn feed(&self, data: Bytes) {
        self.feed.with(|f| f.data = data);
    }

    /// Says that no more coded bytes follow.
    pub(super) fn end(&self) {
        self.feed.with(|f| f.ended = true);
    }

    /// The next decoded bytes, at most 16 KiB; `None` if more coded bytes are needed first, or
    /// at the end. Fails if the body is damaged or ends too early.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(DECODED, 0);
        let read = match self.reader()? {
            Some(reader) => reader.read(&mut buffer),
            None => Ok(0),
        };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        let decoded = buffer.split_to(n).freeze();
        self.buffer = buffer;
        Ok((n > 0).then_some(decoded))
    }

    /// Made when the first byte is there, because `deflate` is two formats in practice. `None`
    /// before that.
    fn reader(&mut self) -> io::Result<Option<&mut Box<dyn Read + Send + Sync>>> {
        if self.reader.is_none() {
            let first = match self.feed.fill_buf() {
                Ok(bytes) => bytes.first().copied(),
                Err(_) => return Ok(None),
            };
            let feed = self.feed.clone();
            self.reader = Some(match (first, self.coding) {
                // A coded body without a byte: HEAD-like answers of sloppy servers.
                (None, _) => Box::new(io::empty()),
                (_, Coding::Gzip) => Box::new(MultiGzDecoder::new(feed)),
                // RFC 9110 means zlib, whose first byte's low half is 8; some send raw deflate.
                (Some(b), Coding::Deflate) if b & 0x0f == 8 && b >> 4 <= 7 => {
                    Box::new(ZlibDecoder::new(feed))
                }
                (_, Coding::Deflate) => Box::new(DeflateDecoder::new(feed)),
                (_, Coding::Brotli) => Box::new(brotli::Decompressor::new(feed, 4096)),
                (_, Coding::Zstd) => {
                    let mut decoder = zstd::stream::read::Decoder::with_buffer(feed)?;
                    // RFC 9659: a window of at most 8 MiB.
                    decoder.window_log_max(23)?;
                    Box::new(decoder)
                }
            });
        }
        Ok(self.reader.as_mut())
    }
}

/// Coded bytes between the body that brings them and the decoder that reads them.
#[derive(Clone, Default)]
struct Feed {
    shared: Arc<Mutex<Fed>>,
    current: Bytes,
}

#[derive(Default)]
struct Fed {
    data: Bytes,
    ended: bool,
}

impl Feed {
    fn with<T>(&self, f: impl FnOnce(&mut Fed) -> T) -> T {
        f(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            let (data, ended) = self.with(|f| (std::mem::take(&mut f.data), f.ended));
            if data.is_empty() && !ended {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.current = data;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, n: usize) {
        self.current.advance(n);
    }
}

impl Read for Feed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current[..n]);
        self.consume(n);
        Ok(n)
    }
}

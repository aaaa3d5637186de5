//! Reads just enough of a connection to know what is spoken on it, and keeps those bytes: what
//! was read here is replayed to whoever serves the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::client_hello::{self, ClientHello, MAX_HELLO, Parsed};

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4), as far as it cannot be
/// anything else.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is spoken on a connection, by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    Tls(ClientHello),
    /// HTTP/2 without TLS, by prior knowledge.
    PlainH2,
    /// Anything else; whoever reads on must be strict.
    Plain,
}

/// Why nothing could be learned.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    #[error("the agent closed the connection before it said anything")]
    Closed,
    #[error("the agent said nothing that could be understood in time")]
    Timeout,
    #[error("the TLS ClientHello is malformed: {0}")]
    Malformed(&'static str),
    #[error("reading from the agent failed")]
    Io(#[from] io::Error),
}

/// Reads until [`Opening`] is known, for at most `limit`.
pub async fn peek<IO: AsyncRead + Unpin>(
    mut io: IO,
    limit: Duration,
) -> (Result<Opening, PeekError>, Rewind<IO>) {
    let mut bytes = BytesMut::with_capacity(2048);
    let read = tokio::time::timeout(limit, read_opening(&mut io, &mut bytes)).await;
    (read.unwrap_or(Err(PeekError::Timeout)), Rewind { bytes, io })
}

async fn read_opening<IO: AsyncRead + Unpin>(
    io: &mut IO,
    bytes: &mut BytesMut,
) -> Result<Opening, PeekError> {
    // Records cost five bytes each on top of the hello itself.
    while bytes.len() <= MAX_HELLO + 1024 {
        if io.read_buf(bytes).await? == 0 {
            return Err(PeekError::Closed);
        }
        match client_hello::parse(bytes) {
            Parsed::Found(hello) => return Ok(Opening::Tls(hello)),
            Parsed::Malformed(why) => return Err(PeekError::Malformed(why)),
            Parsed::NeedMore => {}
            Parsed::NotTls if bytes.starts_with(H2_PREFACE) => return Ok(Opening::PlainH2),
            Parsed::NotTls if H2_PREFACE.starts_with(bytes) => {}
            Parsed::NotTls => return Ok(Opening::Plain),
        }
    }
    Err(PeekError::Malformed("too many bytes without a complete ClientHello"))
}

/// A connection whose first bytes were read already and come again.
#[derive(Debug)]
pub struct Rewind<IO> {
    bytes: BytesMut,
    io: IO,
}

impl<IO> Rewind<IO> {
    /// Nothing was read yet.
    pub fn untouched(io: IO) -> Self {
        Self { bytes: BytesMut::new(), io }
    }

    /// The bytes read so far that nobody has consumed.
    pub fn pending(&self) -> &[u8] {
        &self.bytes
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewind<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            return Poll::Ready(Ok(()));
        }
        let n = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..n]);
        self.bytes.advance(n);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new(); // the buffer is not needed again: give it back
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewind<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn opening(chunks: &[&[u8]], close: bool) -> (Result<Opening, PeekError>, Vec<u8>) {
        let (mut agent, egret) = tokio::io::duplex(4096);
        for chunk in chunks {
            agent.write_all(chunk).await.unwrap();
        }
        let kept = if close {
            drop(agent);
            None
        } else {
            Some(agent)
        };
        let (opening, mut rewind) = peek(egret, Duration::from_millis(50)).await;
        drop(kept);
        let mut replayed = Vec::new();
        rewind.read_to_end(&mut replayed).await.unwrap();
        (opening, replayed)
    }

    #[tokio::test]
    async fn bytes_are_replayed_whatever_they_are() {
        let (seen, bytes) = opening(&[b"GET / HT", b"TP/1.1\r\n\r\n"], false).await;
        assert_eq!(seen.unwrap(), Opening::Plain);
        assert_eq!(bytes, b"GET / HTTP/1.1\r\n\r\n");
        let (seen, bytes) = opening(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nrest"], false).await;
        assert_eq!(seen.unwrap(), Opening::PlainH2);
        assert!(bytes.ends_with(b"rest"));
    }

    #[tokio::test]
    async fn silence_and_rubbish_end() {
        let (seen, _) = opening(&[], true).await;
        assert!(matches!(seen, Err(PeekError::Closed)), "{seen:?}");
        let (seen, _) = opening(&[&[0x16, 3, 1]], false).await;
        assert!(matches!(seen, Err(PeekError::Timeout)), "{seen:?}");
        let (seen, _) = opening(&[&[0x16, 3, 1, 0, 0]], false).await;
        assert!(matches!(seen, Err(PeekError::Malformed(_))), "{seen:?}");
    }
}

//! Pure: the framing of a body in chunks, followed byte for byte.
//!
//! Sizes are plain hexadecimal numbers, every line ends with exactly CR LF, extensions are
//! refused (nobody needs them, and readers disagree about where they end), and trailers may not
//! hold what belongs into a head.

use super::head;

/// Most bytes of all trailers together.
const LONGEST_TRAILERS: usize = 8 * 1024;

/// Digits of a chunk's size; 2^60 bytes overflow nobody.
const MOST_DIGITS: u8 = 15;

/// A scanner of one body; it is told the bytes as they pass.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// The line of a trailer that is not complete, and the bytes of all so far.
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size {
        size: u64,
        digits: u8,
    },
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    Done,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes that belong to the body.
    pub used: usize,
    /// The body is at its end; what follows is something else.
    pub done: bool,
}

impl Chunks {
    /// Follows the body through the next bytes.
    ///
    /// # Errors
    /// What is malformed. The scanner is of no use then.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, &'static str> {
        let mut used = 0;
        while used < bytes.len() && self.state != State::Done {
            used += self.step(&bytes[used..])?;
        }
        Ok(Scanned { used, done: self.state == State::Done })
    }

    /// One byte, or as much data as there is; `bytes` is not empty.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let first = bytes[0];
        self.state = match self.state {
            State::Start => State::Size { size: hex(first)?, digits: 1 },
            State::Size { size, .. } if first == b'\r' => State::SizeEnd(size),
            State::Size { digits: MOST_DIGITS, .. } => return Err("a chunk's size is too long"),
            State::Size { size, digits } => {
                State::Size { size: size << 4 | hex(first)?, digits: digits + 1 }
            }
            State::SizeEnd(size) => {
                exactly(first, b'\n')?;
                if size == 0 { State::Trailer } else { State::Data(size) }
            }
            State::Data(left) => {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - n as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                return Ok(n);
            }
            State::DataCr => {
                exactly(first, b'\r')?;
                State::DataLf
            }
            State::DataLf => {
                exactly(first, b'\n')?;
                State::Start
            }
            State::Trailer => return self.trailer(bytes),
            State::Done => State::Done,
        };
        Ok(1)
    }

    /// Takes bytes up to the end of a trailer's line.
    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let end = memchr::memchr(b'\n', bytes);
        let n = end.map_or(bytes.len(), |lf| lf + 1);
        self.trailers += n;
        if self.trailers > LONGEST_TRAILERS {
            return Err("the trailers are too long");
        }
        self.line.extend_from_slice(&bytes[..n]);
        if end.is_none() {
            return Ok(n);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r\n").ok_or("a trailer ends without CR")?;
        if line.is_empty() {
            self.state = State::Done;
            return Ok(n);
        }
        if !line.iter().copied().all(head::is_text) {
            return Err("a trailer holds a control character");
        }
        let (name, _) = head::field(line)?;
        if str::from_utf8(name).is_ok_and(is_forbidden_trailer) {
            return Err(FORBIDDEN_TRAILER);
        }
        Ok(n)
    }
}

/// What is said of a body with such a trailer.
pub const FORBIDDEN_TRAILER: &str = "a trailer holds what belongs into the head";

/// Fields that a receiver might merge into the head, where they would change framing, routing,
/// authentication or the meaning of the content after the decision (RFC 9110 section 6.5.1).
const FORBIDDEN: [&str; 27] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field of this name may not stand in a request's trailers, in any case of letters.
pub fn is_forbidden_trailer(name: &str) -> bool {
    FORBIDDEN.iter().any(|f| f.eq_ignore_ascii_case(name))
}

fn hex(byte: u8) -> Result<u64, &'static str> {
    match byte {
        b'0'..=b'9' => Ok(u64::from(byte - b'0')),
        b'a'..=b'f' => Ok(u64::from(byte - b'a') + 10),
        b'A'..=b'F' => Ok(u64::from(byte - b'A') + 10),
        b';' | b' ' | b'\t' => Err("a chunk has an extension"),
        _ => Err("a chunk's size is not a plain hexadecimal number"),
    }
}

fn exactly(byte: u8, expected: u8) -> Result<(), &'static str> {
    if byte == expected { Ok(()) } else { Err("a chunk does not end where its size says") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &[u8]) -> Result<Scanned, &'static str> {
        Chunks::default().scan(text)
    }

    #[test]
    fn well_formed_bodies_end_where_they_end() {
        for body in [
            "0\r\n\r\n",
            "000\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n1\r\n\n\r\n00\r\n\r\n",
            "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-End:\tyes \r\n\r\n",
        ] {
            let all = [body.as_bytes(), b"GET /"].concat();
            let end = Ok(Scanned { used: body.len(), done: true });
            assert_eq!(scan(&all), end, "{body:?}");
            let mut chunks = Chunks::default();
            for (n, byte) in body.bytes().enumerate() {
                let done = n + 1 == body.len();
                assert_eq!(chunks.scan(&[byte]), Ok(Scanned { used: 1, done }), "{body:?} {n}");
            }
        }
    }

    #[test]
    fn abuse_is_malformed() {
        let long = format!("0\r\nX: {}\r\n\r\n", "a".repeat(LONGEST_TRAILERS));
        for body in [
            "\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "-1\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "3;a=b\r\nabc\r\n0\r\n\r\n",
            "3;\r\nabc\r\n",
            "3\nabc\r\n",
            "3\rabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc0\r\n\r\n",
            "g\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000003\r\nabc\r\n",
            "0\r\nX: a\n\r\n",
            "0\r\n\n",
            "0\r\nX : a\r\n\r\n",
            "0\r\n X: a\r\n\r\n",
            "0\r\nX: a\0b\r\n\r\n",
            "0\r\nX: a\rb\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nContent-Length: 3\r\n\r\n",
            "0\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "0\r\nHost: other.test\r\n\r\n",
            "0\r\nAuthorization: Bearer x\r\n\r\n",
            "0\r\nTrailer: x\r\n\r\n",
            &long,
        ] {
            assert!(scan(body.as_bytes()).is_err(), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn where_reads_are_cut_changes_nothing(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("3\r\nabc\r\n".to_owned()),
                    Just("0\r\n".to_owned()),
                    Just("X: y\r\n".to_owned()),
                    Just("\r\n".to_owned()),
                    "[0-9a-g;\r\n ]{1,3}",
                ],
                0..6,
            ),
            cut in 0usize..40,
        ) {
            let text = pieces.concat().into_bytes();
            let cut = cut.min(text.len());
            let whole = scan(&text);
            let mut chunks = Chunks::default();
            let parts = chunks.scan(&text[..cut]).and_then(|first| {
                if first.done {
                    return Ok(first);
                }
                let rest = chunks.scan(&text[cut..])?;
                Ok(Scanned { used: cut + rest.used, done: rest.done })
            });
            prop_assert_eq!(whole.is_err(), parts.is_err());
            if let (Ok(whole), Ok(parts)) = (whole, parts) {
                prop_assert_eq!(whole, parts);
            }
        }
    }
}

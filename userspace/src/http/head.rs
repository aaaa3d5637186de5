//! Pure: one HTTP/1 request head, byte for byte. What two readers could understand differently is
//! malformed here, before a parser that repairs things sees it.
//!
//! A parser that is made to get along accepts bare LF, folded lines, a fragment in the target, a
//! length beside a transfer coding or the same length twice, and gives a head in which nothing of
//! that can be seen any more. So the bytes are read here first, by the letter of RFC 9112 and a
//! little narrower.

use memchr::memchr;

use super::admission::parse_authority;

/// How much one head may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, with the empty line at the end.
    pub bytes: usize,
    /// Header fields.
    pub fields: usize,
}

/// How the end of the body that follows is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// As many bytes as Content-Length says; not 0.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A head that has one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, with the empty line.
    pub len: usize,
    pub framing: Framing,
    /// It has an Upgrade field, or is a CONNECT: what follows may not be HTTP.
    pub leaves_http: bool,
}

/// What the bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Found(Head),
    /// They may be the beginning of a head.
    NeedMore,
    /// No bytes that follow can make this a head.
    Malformed(&'static str),
}

/// Longest request target; more is not a request that policy could be asked about.
const LONGEST_TARGET: usize = 16 * 1024;

const LONGEST_METHOD: usize = 32;

/// Reads one head at the beginning of `bytes`; more bytes may follow it.
pub fn check(bytes: &[u8], limits: HeadLimits) -> Parsed {
    match read(bytes, limits) {
        Ok(Some(head)) => Parsed::Found(head),
        Ok(None) => Parsed::NeedMore,
        Err(why) => Parsed::Malformed(why),
    }
}

type Why = &'static str;

fn read(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, Why> {
    let mut lines = Lines { bytes, at: 0, limit: limits.bytes };
    let Some(line) = lines.next()? else { return Ok(None) };
    let request = RequestLine::read(line)?;
    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let Some(line) = lines.next()? else { return Ok(None) };
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.fields {
            return Err("the head has too many fields");
        }
        fields.note(line, &request)?;
    }
    fields.finish(&request, lines.at).map(Some)
}

/// Lines that end with exactly CR LF.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    limit: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end; `None` while its end is not there.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Why> {
        const TOO_LONG: Why = "the head is too long";
        let rest = &self.bytes[self.at..];
        let Some(lf) = memchr(b'\n', rest) else {
            if self.bytes.len() >= self.limit {
                return Err(TOO_LONG);
            }
            let open = rest.strip_suffix(b"\r").unwrap_or(rest);
            return if open.iter().copied().all(is_text) { Ok(None) } else { Err(CONTROL) };
        };
        if self.at + lf + 1 > self.limit {
            return Err(TOO_LONG);
        }
        let Some(line) = rest[..lf].strip_suffix(b"\r") else {
            return Err("a line of the head ends without CR");
        };
        if !line.iter().copied().all(is_text) {
            return Err(CONTROL);
        }
        self.at += lf + 1;
        Ok(Some(line))
    }
}

const CONTROL: Why = "the head holds a control character";

/// What may stand in a line at all: no controls but HTAB.
pub(super) fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

/// RFC 9110 section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

struct RequestLine<'a> {
    connect: bool,
    /// The authority of a target in absolute form.
    authority: Option<&'a str>,
    /// HTTP/1.0.
    old: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<Self, Why> {
        if line.is_empty() {
            return Err("an empty line stands where a request should begin");
        }
        let mut words = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("the request line is not method, target and version with single spaces");
        };
        if !is_method(method) {
            return Err("the method is not written in upper case");
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ => return Err("the version is neither HTTP/1.1 nor HTTP/1.0"),
        };
        let connect = method == b"CONNECT";
        let authority = check_target(target, method)?;
        Ok(Self { connect, authority, old })
    }
}

/// Upper-case letters with `-` or `_` between them, as every registered method is written.
pub(super) fn is_method(method: &[u8]) -> bool {
    method.len() <= LONGEST_METHOD
        && method.first().is_some_and(u8::is_ascii_uppercase)
        && method.iter().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'))
}

/// The authority that a target in absolute form names.
fn check_target<'a>(target: &'a [u8], method: &[u8]) -> Result<Option<&'a str>, Why> {
    if target.len() > LONGEST_TARGET {
        return Err("the target is too long");
    }
    if target.contains(&b'#') {
        return Err("the target has a fragment");
    }
    if target.contains(&b'\\') {
        return Err("the target holds a backslash");
    }
    let text = str::from_utf8(target)
        .ok()
        .filter(|t| t.bytes().all(is_target_byte))
        .ok_or("the target holds bytes that must be percent-encoded")?;
    if method == b"CONNECT" {
        return match parse_authority(text) {
            Some((_, Some(_))) => Ok(None),
            _ => Err("the target of CONNECT is not host and port"),
        };
    }
    if text == "*" {
        return if method == b"OPTIONS" {
            Ok(None)
        } else {
            Err("`*` is a target of OPTIONS only")
        };
    }
    if text.starts_with('/') {
        return Ok(None);
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("the target is neither a path nor an http or https address")?;
    match rest.find(['/', '?']) {
        Some(end) if rest.as_bytes()[end] == b'/' => Ok(Some(&rest[..end])),
        _ => Err("the target has no path"),
    }
}

/// Visible ASCII without what no URI may hold. `{`, `|`, `}` and `^` are not allowed by RFC 3986
/// either, but clients send them and all readers read them alike.
fn is_target_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'`')
}

/// A field line: its name, and its value without white space around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Why> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a field is folded over lines");
    }
    let colon = memchr(b':', line).ok_or("a field has no colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("a field's name is not a token followed by a colon");
    }
    Ok((name, value.trim_ascii()))
}

/// What the fields say of framing and authority.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    fn note(&mut self, line: &'a [u8], request: &RequestLine<'_>) -> Result<(), Why> {
        let (name, value) = field(line)?;
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"host") {
            self.note_host(value, request)
        } else if is(b"content-length") {
            self.note_length(value)
        } else if is(b"transfer-encoding") {
            // A tab before or after is white space too, and known to be read in two ways.
            let plain = !line.contains(&b'\t') && value.eq_ignore_ascii_case(b"chunked");
            self.note_coding(plain, request)
        } else if is(b"content_length") || is(b"transfer_encoding") {
            Err("a field's name is that of a framing field but for `_`")
        } else {
            self.upgrade |= is(b"upgrade");
            Ok(())
        }
    }

    fn note_host(&mut self, value: &'a [u8], request: &RequestLine<'_>) -> Result<(), Why> {
        if self.host.is_some() {
            return Err("more than one Host");
        }
        let host = str::from_utf8(value).ok().filter(|h| parse_authority(h).is_some());
        let host = host.ok_or("Host is not one host name or address with a port")?;
        if request.authority.is_some_and(|a| !a.eq_ignore_ascii_case(host)) {
            return Err("Host is unlike the target's authority");
        }
        self.host = Some(host);
        Ok(())
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), Why> {
        if self.length.is_some() {
            return Err("more than one Content-Length");
        }
        let length = plain_length(value).ok_or("Content-Length is not a plain number")?;
        self.length = Some(length);
        Ok(())
    }

    fn note_coding(&mut self, plain: bool, request: &RequestLine<'_>) -> Result<(), Why> {
        if request.old {
            return Err("Transfer-Encoding outside HTTP/1.1");
        }
        if self.chunked || !plain {
            return Err("a Transfer-Encoding other than one `chunked`");
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(self, request: &RequestLine<'_>, len: usize) -> Result<Head, Why> {
        if self.host.is_none() {
            return Err("no Host");
        }
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err("Content-Length and Transfer-Encoding together"),
            (None, true) => Framing::Chunked,
            (Some(0) | None, false) => Framing::None,
            (Some(n), false) => Framing::Length(n),
        };
        if request.connect && framing != Framing::None {
            return Err("a CONNECT with a body");
        }
        Ok(Head { len, framing, leaves_http: self.upgrade || request.connect })
    }
}

/// Digits only, without zeros in front, and far from what would overflow.
pub(super) fn plain_length(value: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    if !plain || (value.len() > 1 && value[0] == b'0') {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;

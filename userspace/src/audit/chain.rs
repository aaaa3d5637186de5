//! Pure: the hash chain. A line is `{"schema":1,"seq":N,…,"prev":"P","hash":"H"}` where P is the
//! hash of the line before and H is SHA-256 over P's 32 bytes and the line's own bytes up to
//! `,"hash"`. Verification works on the bytes as they stand, never on a parsed copy, so no two
//! different lines can pass for each other.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A link's hash. Printed as 64 lower-case hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// The number of a record in its journal; the first is 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const HASH_KEY: &[u8] = b",\"hash\":\"";
const PREV_KEY: &[u8] = b",\"prev\":\"";
/// `,"hash":"` + 64 digits + `"}`
const HASH_TAIL: usize = 9 + 64 + 2;
/// `,"prev":"` + 64 digits + `"`
const PREV_TAIL: usize = 9 + 64 + 1;
const HEAD: &[u8] = b"{\"schema\":1,\"seq\":";

impl Hash {
    /// What the first line of a journal names as the hash before it. It depends on the journal's
    /// name, so that one journal cannot stand in for another.
    pub fn genesis(journal: &str) -> Self {
        let mut h = Sha256::new();
        h.update(b"egret audit 1\0");
        h.update(journal.as_bytes());
        Self(h.finalize().into())
    }

    fn link(prev: Self, body: &[u8]) -> Self {
        let mut h = Sha256::new();
        h.update(prev.0);
        h.update(body);
        Self(h.finalize().into())
    }

    /// Parses exactly 64 lower-case hex digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut out = [0; 32];
        unhex(text, &mut out).then_some(Self(out))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(text.as_bytes()).ok_or_else(|| serde::de::Error::custom("not a hash"))
    }
}

/// Lower-case hex digits of `bytes`.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    out
}

/// Reads lower-case hex digits into `out`; false when `text` is anything but exactly that.
pub(super) fn unhex(text: &[u8], out: &mut [u8]) -> bool {
    const fn digit(b: u8) -> Option<u8> {
        match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        }
    }
    text.len() == out.len() * 2
        && text.chunks_exact(2).zip(out).all(|(pair, o)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *o = high << 4 | low;
                true
            }
            _ => false,
        })
}

/// Closes the line that starts at `start` in `out`: a JSON object whose last field is `prev`. Adds
/// `hash` and the newline and returns the new head.
pub(super) fn seal(out: &mut Vec<u8>, start: usize, prev: Hash) -> Hash {
    debug_assert!(out.ends_with(b"\"}") && out[start..].starts_with(HEAD));
    out.pop();
    let hash = Hash::link(prev, &out[start..]);
    out.extend_from_slice(HASH_KEY);
    out.extend_from_slice(hex(&hash.0).as_bytes());
    out.extend_from_slice(b"\"}\n");
    hash
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the line is not a record")]
    Shape,
    #[error("the record's content does not match its hash")]
    Hash,
    #[error("the record does not follow the one before it")]
    Prev,
    #[error("the record has another number than its place")]
    Seq,
}

/// A line that stands on its own: its number, and the hashes it carries, checked against its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub seq: Seq,
    pub prev: Hash,
    pub hash: Hash,
}

/// Checks one line, newline included, without knowing its neighbours.
pub fn check_line(line: &[u8]) -> Result<Link, Flaw> {
    let text = line.strip_suffix(b"\n").ok_or(Flaw::Shape)?;
    let split = text.len().checked_sub(HASH_TAIL).ok_or(Flaw::Shape)?;
    let (body, tail) = text.split_at(split);
    let hash = quoted(tail.strip_suffix(b"}").ok_or(Flaw::Shape)?, HASH_KEY)?;
    let prev_at = body.len().checked_sub(PREV_TAIL).ok_or(Flaw::Shape)?;
    let prev = quoted(&body[prev_at..], PREV_KEY)?;
    let seq = seq_of(body).ok_or(Flaw::Shape)?;
    if Hash::link(prev, body) != hash {
        return Err(Flaw::Hash);
    }
    Ok(Link { seq, prev, hash })
}

fn quoted(text: &[u8], key: &[u8]) -> Result<Hash, Flaw> {
    text.strip_prefix(key)
        .and_then(|t| t.strip_suffix(b"\""))
        .and_then(Hash::parse)
        .ok_or(Flaw::Shape)
}

fn seq_of(body: &[u8]) -> Option<Seq> {
    let digits = body.strip_prefix(HEAD)?;
    let end = digits.iter().position(|b| *b == b',')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok().map(Seq)
}

/// How far a walk along a chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last good record; 0 before the first.
    pub seq: Seq,
    pub hash: Hash,
    /// Bytes of all good lines, newlines included.
    pub size: u64,
}

impl Head {
    /// Before the first record of `journal`.
    pub fn start(journal: &str) -> Self {
        Self { seq: Seq(0), hash: Hash::genesis(journal), size: 0 }
    }

    /// Takes the next line, newline included. On a flaw the head stays where it was.
    pub fn advance(&mut self, line: &[u8]) -> Result<Link, Flaw> {
        let link = check_line(line)?;
        if link.seq.0 != self.seq.0 + 1 {
            return Err(Flaw::Seq);
        }
        if link.prev != self.hash {
            return Err(Flaw::Prev);
        }
        *self = Self { seq: link.seq, hash: link.hash, size: self.size + line.len() as u64 };
        Ok(link)
    }
}

/// What a walk over a whole journal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    Intact,
    /// The first record that is wrong (or missing) has this number.
    Tampered {
        seq: Seq,
        flaw: Flaw,
    },
    /// All records are good; after them stand bytes of one that was never finished.
    TornTail {
        bytes: u64,
    },
}

/// Walks over `lines`, each with its newline except perhaps the last, and returns what it found and
/// how far the chain is good.
pub fn verify<'a>(journal: &str, lines: impl IntoIterator<Item = &'a [u8]>) -> (Chain, Head) {
    let mut head = Head::start(journal);
    for line in lines {
        if !line.ends_with(b"\n") {
            return (Chain::TornTail { bytes: line.len() as u64 }, head);
        }
        if let Err(flaw) = head.advance(line) {
            return (Chain::Tampered { seq: Seq(head.seq.0 + 1), flaw }, head);
        }
    }
    (Chain::Intact, head)
}

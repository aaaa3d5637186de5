//! Pure: removing secrets from what an upstream answers.
//!
//! Each form of a secret (see [`super::forms`]) is overwritten with a mask of the same length, so
//! that lengths, ranges and offsets stay true. Nothing else is changed, and only bytes that may be
//! the beginning of a secret wait for what follows.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderMap, HeaderValue};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::credential::Credential;
use super::forms;
use super::patterns::PatternSet;

/// In a part of an answer, as little of a secret as this many bytes is masked at an edge.
const EDGE: usize = 4;

/// This much of the beginning of a secret is not let go before it is known to be none.
const KEPT: usize = 8;

/// After this time without a byte, fewer than [`KEPT`] are let go: in a protocol where sides take
/// turns, nothing follows until they have arrived.
pub(super) const SILENCE: Duration = Duration::from_millis(5);

/// Knows every form of the secrets of one credential set.
pub struct Scrubber {
    forms: PatternSet,
    /// Stands in no form, so that a mask never completes one.
    mask: u8,
}

impl Scrubber {
    /// For these credentials.
    pub(super) fn new(credentials: &[Arc<Credential>]) -> Self {
        let patterns = credentials
            .iter()
            .enumerate()
            .flat_map(|(i, c)| forms::of(c).into_iter().map(move |form| (i, form)));
        let forms = PatternSet::new(patterns)
            .expect("the automaton takes 8 bytes of each form, far below its limits");
        let mask = b"*#!_-.~^|=xXzZ0".iter().copied().find(|b| !forms.uses(*b)).unwrap_or(b'*');
        Self { forms, mask }
    }

    /// The length of the longest form, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.forms.longest()
    }

    /// Cleans the values of headers or trailers, and removes those whose name holds a secret;
    /// returns how many copies of secrets it masked.
    pub fn headers(&self, headers: &mut HeaderMap) -> u64 {
        let named: Vec<_> = headers
            .keys()
            .filter(|name| self.forms.matches(name.as_str().as_bytes()).next().is_some())
            .cloned()
            .collect();
        let mut hits = named.len() as u64;
        for name in named {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            let (found, clean) = self.whole(value.as_bytes());
            // The mask is visible ASCII of the same length, so the value stays valid; if that
            // were ever wrong, nothing is left of it.
            if let Some(clean) = clean {
                let clean = HeaderValue::from_bytes(&clean);
                *value = clean.unwrap_or_else(|_| HeaderValue::from_static(""));
            }
            hits += found;
        }
        hits
    }

    /// Cleans bytes that are complete. `None`: there was nothing to mask.
    fn whole(&self, bytes: &[u8]) -> (u64, Option<Vec<u8>>) {
        let (mut hits, mut covered) = (0, 0);
        let mut clean: Option<Vec<u8>> = None;
        for found in self.forms.matches(bytes) {
            let clean = clean.get_or_insert_with(|| bytes.to_vec());
            clean[found.start..found.end].fill(self.mask);
            hits += u64::from(found.start >= covered);
            covered = covered.max(found.end);
        }
        (hits, clean)
    }
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scrubber({:?})", self.forms)
    }
}

/// One stream of bytes being cleaned: an answer's body, or an upgraded connection.
pub struct ScrubStream {
    scrubber: Arc<Scrubber>,
    /// The end of what has come, not yet decided.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes at the start of `held` were let go all the same.
    gone: usize,
    /// How many bytes at the start of `held` belong to a form that began before it.
    masked: usize,
    /// The stream is a part of something larger: its edges may hold parts of a secret.
    part: bool,
    started: bool,
    hits: u64,
}

impl ScrubStream {
    /// A stream that is complete.
    pub fn new(scrubber: Arc<Scrubber>) -> Self {
        Self {
            scrubber,
            held: Zeroizing::default(),
            gone: 0,
            masked: 0,
            part: false,
            started: false,
            hits: 0,
        }
    }

    /// A stream that is a range of something larger. Where it begins with the end of a form or
    /// ends with the beginning of one, of at least 4 bytes, that is masked too.
    pub fn of_part(scrubber: Arc<Scrubber>) -> Self {
        Self { part: true, ..Self::new(scrubber) }
    }

    /// How many copies of secrets have been masked so far.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.held.len() - self.gone
    }

    /// Whether bytes are held back that [`Self::let_go`] would return.
    pub fn may_let_go(&self) -> bool {
        self.held() > 0 && self.held.len() < KEPT
    }

    /// Nothing has followed for a while ([`SILENCE`]), and whoever reads may be waited for: lets a
    /// few held bytes go. They are remembered, so if they were the beginning of a secret, the rest
    /// of it is masked when it comes, and fewer than [`KEPT`] bytes of it were seen.
    pub fn let_go(&mut self) -> Bytes {
        if !self.may_let_go() {
            return Bytes::new();
        }
        let mut out = self.held[self.gone..].to_vec();
        let masked = self.masked.saturating_sub(self.gone).min(out.len());
        out[..masked].fill(self.scrubber.mask);
        self.gone = self.held.len();
        out.into()
    }

    /// Takes the next bytes and returns those that are decided. Without a hit they are the same
    /// bytes, not a copy.
    pub fn push(&mut self, data: Bytes) -> Bytes {
        if data.is_empty() {
            return data;
        }
        let wait = if self.part && !self.started { self.scrubber.longest() } else { 0 };
        let hay = self.join(data);
        if hay.len() < wait {
            // The edge of a range can only be judged when enough of it is there.
            self.held.extend_from_slice(&hay);
            return Bytes::new();
        }
        let undecided = self.scrubber.forms.undecided(&hay);
        self.emit(&hay, undecided)
    }

    /// The end of the stream: what was held back.
    pub fn finish(&mut self) -> Bytes {
        let hay = self.join(Bytes::new());
        let undecided = if self.part { self.scrubber.forms.undecided(&hay) } else { 0 };
        let out = self.emit(&hay, 0);
        if undecided < EDGE {
            return out;
        }
        let mut out = out.to_vec();
        let from = out.len().saturating_sub(undecided);
        out[from..].fill(self.scrubber.mask);
        self.hits += 1;
        out.into()
    }

    fn join(&mut self, data: Bytes) -> Bytes {
        if self.held.is_empty() {
            return data;
        }
        let joined = [&self.held[..], &data].concat();
        self.held.clear();
        joined.into()
    }

    /// Masks what is known in `hay`, holds its last `undecided` bytes back, returns the rest.
    fn emit(&mut self, hay: &Bytes, undecided: usize) -> Bytes {
        let end = hay.len() - undecided;
        let from = std::mem::take(&mut self.gone).min(hay.len());
        let mut masked: Option<Vec<u8>> = None;
        // Everything before this is masked already.
        let mut covered = self.masked;
        let mut mask = |from: usize, to: usize| {
            let out = masked.get_or_insert_with(|| hay[..end].to_vec());
            out[from..to.min(end)].fill(self.scrubber.mask);
        };
        if self.masked > 0 {
            mask(0, self.masked);
        }
        if self.part && !self.started && !hay.is_empty() {
            let tail = self.scrubber.forms.tail_of_pattern(hay, EDGE);
            if tail > 0 {
                mask(0, tail);
                covered = covered.max(tail);
                self.hits += 1;
            }
        }
        for found in self.scrubber.forms.matches(hay) {
            // One that begins in the held bytes is found again when they are decided.
            if found.start >= end {
                break;
            }
            mask(found.start, found.end);
            self.hits += u64::from(found.start >= covered);
            covered = covered.max(found.end);
        }
        self.started |= !hay.is_empty();
        self.masked = covered.saturating_sub(end);
        self.held.extend_from_slice(&hay[end..]);
        self.gone = from.saturating_sub(end);
        let from = from.min(end);
        match masked {
            Some(out) => Bytes::from(out).slice(from..),
            None => hay.slice(from..end),
        }
    }
}

impl std::fmt::Debug for ScrubStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubStream").field("hits", &self.hits).finish_non_exhaustive()
    }
}

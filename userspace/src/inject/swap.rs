//! Pure: placeholders in a request. Those of credentials bound elsewhere are canaries, those of
//! granted `placeholder` credentials become the secret, all others stay.

use std::sync::Arc;

use ::http::Uri;
use ::http::header::{self, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::credential::{Attach, Credential, CredentialSet};
use super::error::InjectError;
use super::patterns::PatternSet;
use super::query;
use crate::policy::Host;

/// Where in a request a placeholder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Body,
    Trailer,
}

impl Place {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Body => "body",
            Self::Trailer => "trailer",
        }
    }
}

/// How text is written in a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyText {
    Plain,
    Json,
    Form,
}

impl BodyText {
    /// By the content type.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let essence = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-www-form-urlencoded" => Self::Form,
            "application/json" | "application/x-ndjson" => Self::Json,
            other if other.ends_with("+json") => Self::Json,
            _ => Self::Plain,
        }
    }

    fn write(self, secret: &[u8]) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match (self, std::str::from_utf8(secret)) {
            (Self::Form, _) => query::escape(secret).into_bytes(),
            (Self::Json, Ok(text)) => {
                let quoted = Zeroizing::new(serde_json::Value::from(text).to_string());
                quoted.as_bytes()[1..quoted.len() - 1].to_vec()
            }
            (Self::Json, Err(_)) | (Self::Plain, _) => secret.to_vec(),
        })
    }
}

/// What a placeholder in this request means, by credential.
pub(super) enum Meaning {
    /// Its credential is not bound to this host.
    Canary,
    /// Bound here and not swapped: harmless, stays.
    Bare,
    /// Swapped in the body for these bytes.
    Body(Zeroizing<Vec<u8>>),
}

/// The placeholders of a set, and what each means in one request.
pub(super) struct Swaps {
    placeholders: Arc<PatternSet>,
    all: Vec<(Arc<Credential>, Meaning)>,
}

impl Swaps {
    /// `granted` are the credentials that this request may carry; `body` is how its body is
    /// written, `None` if it has none.
    pub(super) fn new(
        set: &CredentialSet,
        host: &Host,
        granted: &[Arc<Credential>],
        body: Option<BodyText>,
    ) -> Self {
        let meaning = |c: &Arc<Credential>| match &c.attach {
            _ if !c.bound_to(host) => Meaning::Canary,
            Attach::Swap(places) if places.body && granted.iter().any(|g| Arc::ptr_eq(g, c)) => {
                body.map_or(Meaning::Bare, |b| Meaning::Body(b.write(c.secret.expose())))
            }
            Attach::Swap(_) | Attach::Header { .. } | Attach::Query { .. } => Meaning::Bare,
        };
        let all = set.all().iter().map(|c| (Arc::clone(c), meaning(c))).collect();
        Self { placeholders: Arc::clone(&set.placeholders), all }
    }

    /// Whether a body has to be looked at.
    pub(super) fn watches(&self) -> bool {
        self.all.iter().any(|(_, m)| !matches!(m, Meaning::Bare))
    }

    /// Whether swapping can change a body's length.
    pub(super) fn changes_body_length(&self) -> bool {
        self.all.iter().any(|(c, m)| match m {
            Meaning::Body(bytes) => bytes.len() != c.placeholder.len(),
            Meaning::Canary | Meaning::Bare => false,
        })
    }

    /// Refuses a placeholder of a credential bound elsewhere, in any part of the head.
    pub(super) fn refuse_canaries(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), InjectError> {
        if self.all.iter().all(|(_, m)| !matches!(m, Meaning::Canary)) {
            return Ok(());
        }
        for (text, place) in [(uri.path(), Place::Path), (uri.query().unwrap_or(""), Place::Query)]
        {
            self.refuse_in(text.as_bytes(), place)?;
            if text.contains('%') {
                let decoded: Vec<u8> = percent_decode_str(text).collect();
                self.refuse_in(&decoded, place)?;
            }
        }
        self.refuse_in_headers(headers, Place::Header)
    }

    /// The same for headers or trailers alone.
    pub(super) fn refuse_in_headers(
        &self,
        headers: &HeaderMap,
        place: Place,
    ) -> Result<(), InjectError> {
        for value in headers.values() {
            self.refuse_in(value.as_bytes(), place)?;
            if let Some(pair) = basic_pair(value) {
                self.refuse_in(&pair, place)?;
            }
        }
        Ok(())
    }

    fn refuse_in(&self, bytes: &[u8], place: Place) -> Result<(), InjectError> {
        for found in self.placeholders.matches(bytes) {
            if let Some((credential, Meaning::Canary)) = self.all.get(found.id) {
                return Err(canary(credential, place));
            }
        }
        Ok(())
    }

    /// One step through a body: `hay` is what was held back and what has come since; `last` says
    /// that nothing follows. Returns what may go on, and how many bytes at the end of `hay` to
    /// hold back.
    /// The first `gone` bytes of `hay` were let go before: a placeholder that begins there can no
    /// longer be swapped, but it is still seen.
    pub(super) fn body_step(
        &self,
        hay: &[u8],
        gone: usize,
        last: bool,
    ) -> Result<Step, InjectError> {
        let mut out: Option<Vec<u8>> = None;
        let mut done = gone;
        let mut decided = 0;
        for found in self.placeholders.matches(hay) {
            if found.start < decided {
                continue;
            }
            match self.all.get(found.id) {
                Some((credential, Meaning::Canary)) => return Err(canary(credential, Place::Body)),
                Some((_, Meaning::Body(bytes))) if found.start >= gone => {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&hay[done..found.start]);
                    out.extend_from_slice(bytes);
                    done = found.end;
                    decided = found.end;
                }
                Some((_, Meaning::Bare | Meaning::Body(_))) | None => decided = found.end,
            }
        }
        let held = if last { 0 } else { self.placeholders.undecided(&hay[decided..]) };
        let end = hay.len() - held;
        Ok(match out {
            Some(mut out) => {
                out.extend_from_slice(&hay[done.min(end)..end]);
                Step::Changed { out, held }
            }
            None => Step::Same { held },
        })
    }
}

/// See [`Swaps::body_step`].
pub(super) enum Step {
    /// All but the last `held` bytes go on as they are.
    Same { held: usize },
    /// `out` goes on instead.
    Changed { out: Vec<u8>, held: usize },
}

fn canary(credential: &Credential, place: Place) -> InjectError {
    InjectError::Canary {
        credential: Arc::clone(&credential.spec.name),
        place: place.as_str(),
        on_canary: credential.spec.on_canary,
    }
}

/// Swaps the credential's placeholder in every header value, inside Basic pairs too. True if
/// there was one.
pub(super) fn swap_headers(
    credential: &Credential,
    headers: &mut HeaderMap,
) -> Result<bool, InjectError> {
    let mut any = false;
    for value in headers.values_mut() {
        let new = match (basic_pair(value), replace(credential, value.as_bytes())) {
            (_, Some(plain)) => plain,
            (Some(pair), None) => match replace(credential, &pair) {
                Some(pair) => {
                    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
                    Zeroizing::new([b"Basic ", encoded.as_bytes()].concat())
                }
                None => continue,
            },
            (None, None) => continue,
        };
        let mut new = HeaderValue::from_maybe_shared(Bytes::from_owner(new)).map_err(|_| {
            InjectError::Refused {
                credential: Arc::clone(&credential.spec.name),
                why: "it cannot stand in a header",
            }
        })?;
        new.set_sensitive(true);
        *value = new;
        any = true;
    }
    Ok(any)
}

/// Swaps the credential's placeholder in a path or a query; `None` if it is not there.
pub(super) fn swap_text(credential: &Credential, text: &str) -> Option<String> {
    text.contains(&*credential.placeholder)
        .then(|| text.replace(&*credential.placeholder, &query::escape(credential.secret.expose())))
}

/// `text` with the placeholder swapped; `None` if it is not there.
fn replace(credential: &Credential, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let placeholder = credential.placeholder.as_bytes();
    let mut out: Option<Zeroizing<Vec<u8>>> = None;
    let mut done = 0;
    for at in memchr::memmem::find_iter(text, placeholder) {
        let out = out.get_or_insert_default();
        out.extend_from_slice(&text[done..at]);
        out.extend_from_slice(credential.secret.expose());
        done = at + placeholder.len();
    }
    if let Some(out) = &mut out {
        out.extend_from_slice(&text[done..]);
    }
    out
}

/// The `user:password` of a Basic value.
fn basic_pair(value: &HeaderValue) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let encoded = rest.trim_ascii();
    let end = encoded.iter().rposition(|b| *b != b'=').map_or(0, |i| i + 1);
    STANDARD_NO_PAD.decode(&encoded[..end]).ok().map(Zeroizing::new)
}

impl std::fmt::Debug for Swaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Swaps({})", self.all.len())
    }
}

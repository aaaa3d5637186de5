//! One request's head: refuse canaries, strip what the agent attached, attach the credential.

use std::sync::{Arc, OnceLock};

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{Method, Uri};

use super::coding;
use super::credential::{Attach, Credential, CredentialSet};
use super::error::InjectError;
use super::query;
use super::range;
use super::scrub::Scrubber;
use super::swap::{self, BodyText, Swaps};
use super::swap_body::RequestBody;
use crate::policy::{Host, Places};

/// What was done to a request's head, and what is still to do to its body and its answer.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    names: Vec<Arc<str>>,
    body: Option<Arc<Swaps>>,
    /// Why the body was cut off, once it was.
    refusal: Arc<OnceLock<InjectError>>,
    /// Headers that the body's trailers must not bring back.
    stripped: Vec<HeaderName>,
    scrubber: Option<Arc<Scrubber>>,
}

impl Injection {
    /// The credentials that are in the request, for audit. One that may be swapped in its body
    /// counts, because the body is still to come.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The request's body with placeholders swapped, watched for canaries. A canary ends it with
    /// an [`InjectError::Canary`] before any byte of the placeholder has passed.
    pub fn request_body<B>(&self, body: B) -> RequestBody<B> {
        let refusal = Arc::clone(&self.refusal);
        RequestBody::new(body, self.body.clone(), refusal, self.stripped.clone())
    }

    /// Why the request's body was cut off, if this stage did it.
    pub fn body_refusal(&self) -> Option<&InjectError> {
        self.refusal.get()
    }

    /// What cleans the answer. `None`: no secret of this agent is bound to this host.
    pub fn scrubber(&self) -> Option<&Arc<Scrubber>> {
        self.scrubber.as_ref()
    }
}

/// Prepares the head of one request to `host` for forwarding.
///
/// `names` are the credentials that the deciding rule grants; the caller passes none unless the
/// request goes out over https with a verified certificate. Whatever audit says of the request
/// must be taken from `parts` before this call: afterwards the URI may hold a secret.
///
/// In this order: a placeholder of any credential that is not bound to `host` is refused; what
/// the agent put where a granted credential goes is removed (and `Proxy-Authorization` always);
/// the granted credentials are attached, except to OPTIONS and TRACE. On an error `parts` is of
/// no further use.
pub fn prepare(
    set: &CredentialSet,
    names: &[Arc<str>],
    host: &Host,
    parts: &mut Parts,
) -> Result<Injection, InjectError> {
    parts.headers.remove(header::PROXY_AUTHORIZATION);
    if set.all().is_empty() && names.is_empty() {
        return Ok(Injection::default());
    }
    let granted = granted(set, names, host, &parts.uri)?;
    let injects = !matches!(parts.method, Method::OPTIONS | Method::TRACE);
    let swappable: &[Arc<Credential>] = if injects { &granted } else { &[] };
    let body = may_have_body(parts).then(|| BodyText::of(&parts.headers));
    let swaps = Swaps::new(set, host, swappable, body);
    swaps.refuse_canaries(&parts.uri, &parts.headers)?;

    let mut injection = Injection {
        stripped: vec![header::PROXY_AUTHORIZATION],
        scrubber: set.scrubber_for(host),
        ..Injection::default()
    };
    for credential in &granted {
        strip(credential, parts, &mut injection.stripped)?;
    }
    for credential in swappable {
        if attach(credential, parts)? {
            injection.names.push(Arc::clone(&credential.spec.name));
        }
    }
    if swaps.changes_body_length() {
        // The body is framed anew: chunked, or in DATA frames.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(scrubber) = &injection.scrubber {
        coding::limit_accept_encoding(&mut parts.headers);
        // Compressed WebSocket and gRPC messages could not be searched; these are only offers.
        parts.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        parts.headers.remove("grpc-accept-encoding");
        range::limit(&mut parts.headers, scrubber.longest());
    }
    injection.body = swaps.watches().then(|| Arc::new(swaps));
    Ok(injection)
}

/// The credentials behind the names, each once, all of them fit for this request.
fn granted(
    set: &CredentialSet,
    names: &[Arc<str>],
    host: &Host,
    uri: &Uri,
) -> Result<Vec<Arc<Credential>>, InjectError> {
    let mut granted: Vec<Arc<Credential>> = Vec::with_capacity(names.len());
    for name in names {
        let refused = |why| InjectError::Refused { credential: Arc::clone(name), why };
        let credential = set
            .get(name)
            .ok_or_else(|| InjectError::Unavailable { credential: Arc::clone(name) })?;
        if granted.iter().any(|g| g.spec.name == *name) {
            continue;
        }
        if !credential.bound_to(host) {
            return Err(refused("it is not bound to this host"));
        }
        if uri.scheme().is_some_and(|s| *s != Scheme::HTTPS) {
            return Err(refused("the request does not go out over https"));
        }
        if granted.iter().any(|g| g.attach.same_place(&credential.attach)) {
            return Err(refused("another credential of the same rule goes to the same place"));
        }
        granted.push(Arc::clone(credential));
    }
    Ok(granted)
}

impl Attach {
    /// Whether both would write the same header or parameter.
    fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name: a, .. }, Self::Header { name: b, .. }) => a == b,
            (Self::Query { name: a, .. }, Self::Query { name: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Removes what the agent put where the credential goes.
fn strip(
    credential: &Credential,
    parts: &mut Parts,
    stripped: &mut Vec<HeaderName>,
) -> Result<(), InjectError> {
    match &credential.attach {
        Attach::Header { name, .. } => {
            parts.headers.remove(name);
            stripped.push(name.clone());
            // SDKs of one API differ in the header that they use, and a server that finds two keys
            // may believe the wrong one.
            for other in bearing(&parts.headers, &credential.placeholder) {
                parts.headers.remove(other);
            }
            Ok(())
        }
        Attach::Query { name, .. } => match parts.uri.query() {
            Some(old) => {
                let new = query::without(old, name);
                if new == old { Ok(()) } else { set_query(credential, parts, &new) }
            }
            None => Ok(()),
        },
        Attach::Swap(_) => Ok(()),
    }
}

/// The headers that are the placeholder, or a scheme and the placeholder.
fn bearing(headers: &HeaderMap, placeholder: &str) -> Vec<HeaderName> {
    let bears = |value: &HeaderValue| {
        let scheme = value.as_bytes().strip_suffix(placeholder.as_bytes());
        scheme.is_some_and(|s| s.is_empty() || s.ends_with(b" "))
    };
    let found = headers.iter().filter(|(_, value)| bears(value));
    found.map(|(name, _)| name.clone()).collect()
}

/// Attaches the credential; false if there was no placeholder to swap.
fn attach(credential: &Credential, parts: &mut Parts) -> Result<bool, InjectError> {
    match &credential.attach {
        Attach::Header { name, value } => {
            parts.headers.insert(name.clone(), value.clone());
            Ok(true)
        }
        Attach::Query { pair, .. } => {
            let new = query::with(parts.uri.query().unwrap_or(""), pair);
            set_query(credential, parts, &new)?;
            Ok(true)
        }
        Attach::Swap(places) => {
            let mut swapped = places.body && may_have_body(parts);
            if places.header {
                swapped |= swap::swap_headers(credential, &mut parts.headers)?;
            }
            swapped |= swap_uri(credential, *places, parts)?;
            Ok(swapped)
        }
    }
}

/// Swaps the placeholder in path and query; true if there was one.
fn swap_uri(
    credential: &Credential,
    places: Places,
    parts: &mut Parts,
) -> Result<bool, InjectError> {
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let new_path = places.path.then(|| swap::swap_text(credential, path)).flatten();
    let new_query = query.filter(|_| places.query).and_then(|q| swap::swap_text(credential, q));
    if new_path.is_none() && new_query.is_none() {
        return Ok(false);
    }
    let path = new_path.unwrap_or_else(|| path.to_owned());
    let query = new_query.or_else(|| query.map(str::to_owned));
    set_path_and_query(credential, parts, &path, query.as_deref())?;
    Ok(true)
}

/// Whether the head announces a body. An HTTP/2 body of GET or HEAD without a length is not
/// expected, and nothing is swapped in it.
fn may_have_body(parts: &Parts) -> bool {
    match parts.headers.get(header::CONTENT_LENGTH) {
        Some(length) => length != "0",
        None => {
            parts.headers.contains_key(header::TRANSFER_ENCODING)
                || !matches!(parts.method, Method::GET | Method::HEAD)
        }
    }
}

fn set_query(credential: &Credential, parts: &mut Parts, query: &str) -> Result<(), InjectError> {
    let path = parts.uri.path().to_owned();
    set_path_and_query(credential, parts, &path, Some(query).filter(|q| !q.is_empty()))
}

fn set_path_and_query(
    credential: &Credential,
    parts: &mut Parts,
    path: &str,
    query: Option<&str>,
) -> Result<(), InjectError> {
    let refused = |_| InjectError::Refused {
        credential: Arc::clone(&credential.spec.name),
        why: "the request's path and query would become too long",
    };
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let new: PathAndQuery = text.parse().map_err(refused)?;
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(new);
    parts.uri = Uri::from_parts(uri).map_err(|_| InjectError::Refused {
        credential: Arc::clone(&credential.spec.name),
        why: "the request's URI has no path to attach it to",
    })?;
    Ok(())
}

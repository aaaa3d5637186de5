//! One request over a leased connection: written as the upstream expects it, retried only when
//! nothing of it was sent, never redirected.

use std::pin::pin;
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;

use super::cause::NoAnswer;
use super::pool::{ConnectError, Connector, Lease, Shelf, Wanted};
use crate::http::upload::{Upload, UploadState};
use crate::outcome::Reason;
use crate::policy::Protocol;

/// Everything that leads to the upstream.
pub struct Route<'a> {
    pub connector: &'a Connector,
    pub shelf: &'a Shelf,
    pub wanted: Wanted<'a>,
    /// The authority as the agent wrote it; policy decided on the same host and port.
    pub authority: &'a str,
    /// What has gone up of the request's body.
    pub upload: &'a UploadState,
    /// From the last byte that went up to the head of the answer, where `[upstream]
    /// answer_timeout` does not say.
    pub patience: Duration,
}

/// Pooled connections that may turn out to be closed before one request gives up.
const TRIES: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Http(#[from] NoAnswer),
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the request cannot be written for the upstream")]
    Unwritable,
}

impl SendError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Connect(e) => e.reason(),
            Self::Http(e) => e.reason(),
            Self::Timeout => Reason::UpstreamTimeout,
            Self::Unwritable => Reason::Internal,
        }
    }
}

/// Sends the request and returns the head of the answer with the lease it came over.
pub async fn send(
    route: &Route<'_>,
    mut request: Request<Upload>,
) -> Result<(Response<Incoming>, Lease), SendError> {
    let target = request.uri().path_and_query().cloned().ok_or(SendError::Unwritable)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut lease = route.shelf.lease(route.connector, route.wanted).await?;
        address(&mut request, &lease, route, &target)?;
        match in_time(route, lease.send(request)).await {
            Some(Ok(response)) => return Ok((response, lease)),
            Some(Err(mut error)) => match error.take_message() {
                // A pooled connection that the upstream had closed: nothing of it was sent.
                Some(unsent) if lease.reused && tries < TRIES => request = unsent,
                _ => return Err(NoAnswer::of(error.into_error()).into()),
            },
            None => {
                lease.abandon();
                return Err(SendError::Timeout);
            }
        }
    }
}

/// What `sending` comes to; `None` when the patience is over and nothing of the request has gone
/// up meanwhile (looked at four times in it). A long upload is no reason to give up.
async fn in_time<T>(route: &Route<'_>, sending: impl Future<Output = T>) -> Option<T> {
    let patience = route.wanted.settings.times.answer.unwrap_or(route.patience);
    let mut sending = pin!(sending);
    let (mut before, mut quiet) = (route.upload.bytes(), 0);
    while quiet < 4 {
        if let Ok(sent) = tokio::time::timeout(patience / 4, &mut sending).await {
            return Some(sent);
        }
        let now = route.upload.bytes();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    None
}

/// Writes target and authority in the form of the connection's protocol. Path and query are the
/// bytes that were decided on.
fn address(
    request: &mut Request<Upload>,
    lease: &Lease,
    route: &Route<'_>,
    target: &PathAndQuery,
) -> Result<(), SendError> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target.clone());
    if lease.is_h2() {
        let tls = route.wanted.permit.protocol() == Protocol::Https;
        parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority =
            Some(Authority::try_from(route.authority).map_err(|_| SendError::Unwritable)?);
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
    } else {
        *request.version_mut() = Version::HTTP_11;
        let host = HeaderValue::from_str(route.authority).map_err(|_| SendError::Unwritable)?;
        request.headers_mut().insert(HOST, host);
        join_cookies(request.headers_mut());
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| SendError::Unwritable)?;
    Ok(())
}

/// HTTP/2 may split cookies over several fields; HTTP/1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_one_field_in_http_1() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        let joined: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(joined, ["a=1; b=2; c=3"]);
    }
}

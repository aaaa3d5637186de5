//! The upstream's answer on its way to the agent: stripped, scrubbed, streamed; and the place where
//! the outcome of an exchange is recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::declined::Refused;
use super::standing::{Standing, Watched};
use super::{Connection, record};
use crate::audit::{Guard, Outcome};
use crate::forward::pool::Lease;
use crate::http::body::{Body, Download, OnEnd};
use crate::http::farewell::Farewell;
use crate::http::limits::Allowance;
use crate::http::line::Line;
use crate::http::patience::Stalled;
use crate::http::upload::UploadState;
use crate::http::websocket::Opening;
use crate::http::{headers, upgrade};
use crate::inject::{InjectError, Injection, ScrubReport};
use crate::outcome::{Reason, Stage};
use crate::policy::Denial;

/// An exchange whose answer is on its way.
pub(super) struct Open {
    pub(super) guard: Guard,
    pub(super) upload: Arc<UploadState>,
    pub(super) allowance: Option<Allowance>,
    pub(super) lease: Lease,
    pub(super) injection: Option<Injection>,
    pub(super) standing: Standing,
    pub(super) stalled: Stalled,
    pub(super) line: Line,
    /// The policy's own `idle_timeout`.
    pub(super) idle: Option<Duration>,
}

/// The agent asks to leave HTTP.
pub(super) struct Asked {
    pub(super) protocol: HeaderValue,
    pub(super) agent: OnUpgrade,
    /// It speaks HTTP/2.
    pub(super) opening: Option<Opening>,
}

/// The upstream has answered: strip, scrub, and stream it to the agent.
pub(super) fn relay_answer(
    connection: &Connection,
    mut response: Response<Incoming>,
    open: Open,
    asked: Option<Asked>,
) -> Result<Response<Download>, Refused> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(connection, response, open, asked);
    }
    if asked.as_ref().is_some_and(|a| a.opening.is_some()) && response.status().is_success() {
        // To an extended CONNECT every 2xx says that the WebSocket is open.
        return Err(protocol_error(open.guard, "it did not open the WebSocket"));
    }
    let status = response.status();
    headers::strip_response(response.headers_mut());
    response.extensions_mut().clear();
    *response.version_mut() = http::Version::HTTP_11; // hyper writes what the agent speaks
    let (mut head, body) = response.into_parts();
    let Open { guard, upload, allowance, lease, injection, standing, stalled, line, idle } = open;
    let (body, scrubbed) = match injection.as_ref().and_then(Injection::scrubber) {
        Some(scrubber) => {
            let body = scrubber.response(&standing.sent.method, &mut head, body);
            let report = body.report();
            (Body::boxed(body), Some(report))
        }
        None => (Body::from(body), None),
    };
    let under_way = !body.is_end_stream() || !upload.is_done();
    let farewell = Farewell::of(&head.headers, standing.sent.version, &upload);
    let (tell, farewell) = farewell.unzip();
    let watched = under_way.then(|| standing.watched(line, &upload, tell));
    let ending = Ending { guard, upload, lease, status, injection, scrubbed, stalled, watched };
    let idle = idle.unwrap_or_else(|| connection.limits(&connection.agent()).download_idle);
    let body = Download::new(body, allowance, Box::new(ending), idle).with_farewell(farewell);
    Ok(Response::from_parts(head, body))
}

/// 101: both sides leave HTTP. Only as the agent asked for it.
fn switch(
    connection: &Connection,
    mut response: Response<Incoming>,
    open: Open,
    asked: Option<Asked>,
) -> Result<Response<Download>, Refused> {
    let Open { guard, allowance, injection, mut standing, idle, .. } = open;
    let Some(Asked { protocol, agent, opening }) = asked else {
        return Err(protocol_error(guard, "it switched protocols without being asked"));
    };
    if !upgrade::granted(response.status(), response.headers(), &protocol) {
        return Err(protocol_error(guard, "it switched to another protocol than was asked for"));
    }
    let upstream_side = hyper::upgrade::on(&mut response);
    headers::strip_response(response.headers_mut());
    match &opening {
        None => upgrade::restore(response.headers_mut(), protocol),
        Some(opening) => {
            if !opening.is_accepted(response.headers_mut()) {
                return Err(protocol_error(guard, "it answered another WebSocket handshake"));
            }
            *response.status_mut() = StatusCode::OK;
        }
    }
    let scrubber = injection.as_ref().and_then(Injection::scrubber).cloned();
    let in_head = scrubber.as_ref().map_or(0, |s| s.headers(response.headers_mut()));
    response.extensions_mut().clear();
    let idle = idle.unwrap_or(connection.interceptor.settings.idle);
    tokio::spawn(async move {
        let hits = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&hits);
        let mut denied = None;
        let over = async {
            let denial = denied.insert(standing.over().await);
            denial.reason
        };
        let copied =
            upgrade::relay(agent, upstream_side, allowance, idle, scrubber, seen, over).await;
        let message = notes(masked(in_head + hits.load(Ordering::Relaxed)), denied.as_ref());
        let outcome = Outcome { reason: copied.reason, message, ..Outcome::status(101) };
        record(guard.finish(outcome.bytes(copied.up, copied.down)));
        drop(opening); // until now the agent's connection was not idle
    });
    Ok(response.map(|_| Download::from(Body::empty())))
}

fn masked(hits: u64) -> Option<String> {
    (hits > 0).then(|| format!("secret masked {hits} time(s)"))
}

/// Everything that a person should know of an outcome.
fn notes(masked: Option<String>, denied: Option<&Denial>) -> Option<String> {
    match (masked, denied.and_then(|d| d.message.clone())) {
        (Some(masked), Some(denied)) => Some(format!("{denied}; {masked}")),
        (masked, denied) => denied.or(masked),
    }
}

fn protocol_error(guard: Guard, why: &str) -> Refused {
    Refused::new(Reason::UpstreamProtocol, Stage::Forward, Some(why.into())).after(guard, 0)
}

/// Waits for the end of an answer's body: records it and gives the connection back.
struct Ending {
    guard: Guard,
    upload: Arc<UploadState>,
    lease: Lease,
    status: StatusCode,
    injection: Option<Injection>,
    scrubbed: Option<ScrubReport>,
    stalled: Stalled,
    watched: Option<Watched>,
}

impl OnEnd for Ending {
    fn ended(self: Box<Self>, down: u64, complete: bool, cut: Option<Reason>) {
        let Self { guard, upload, lease, status, injection, scrubbed, stalled, watched } = *self;
        // The upstream may answer before the agent's upload was stopped.
        let canary = injection.as_ref().and_then(Injection::body_refusal).map(InjectError::reason);
        let hits = scrubbed.map_or(0, |report| report.hits());
        let aborted = if stalled.is_set() { Reason::ClientTimeout } else { Reason::Aborted };
        let denied = watched.as_ref().and_then(Watched::denial);
        let ended = cut.or(upload.fault()).or((!complete).then_some(aborted));
        let outcome = Outcome {
            reason: canary.or(denied.map(|d| d.reason)).or(ended),
            message: notes(masked(hits), denied),
            ..Outcome::status(status.as_u16()).bytes(upload.bytes(), down)
        };
        record(guard.finish(outcome));
        match watched {
            _ if complete && upload.is_done() => lease.give_back(),
            // An agent may go on sending after the whole answer; for so long it is watched.
            Some(watched) if !upload.is_done() => upload.keep(watched),
            _ => {}
        }
    }
}

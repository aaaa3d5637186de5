//! One request: admission, policy, limits, injection, audit, forwarding, scrubbing. Each request
//! of a connection comes here by itself, also those that share an HTTP/2 connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::header::{HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::{Connection, Site};
use crate::audit::{Event, Guard, Outcome};
use crate::forward::http::{Route, SendError, send};
use crate::forward::pool::Lease;
use crate::http::admission::{self, Admitted};
use crate::http::body::{Body, Download, OnEnd, Upload, UploadState};
use crate::http::limits::Allowance;
use crate::http::patience::Stalled;
use crate::http::refuse::Refusal;
use crate::http::strict::Unreadable;
use crate::http::{headers, upgrade};
use crate::identify::Agent;
use crate::inject::{self, InjectError, Injection, ScrubReport};
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{self, Denial, Facts, Host, Layer, Permit, RequestFacts, Verdict};
use crate::tls::terminate::Spoken;
use crate::tls::upstream::Offer;

/// Why a request is not answered by the upstream.
struct Refused {
    denial: Denial,
    layer: Stage,
    /// The host that was decided on, where it is known.
    host: Option<Host>,
    /// The decision was recorded as allowed: the outcome is still open.
    guard: Option<Box<Guard>>,
    up: u64,
}

impl Refused {
    fn new(reason: Reason, layer: Stage, message: Option<String>) -> Self {
        Self::by(Denial { message, ..Denial::of(reason) }, layer)
    }

    fn by(denial: Denial, layer: Stage) -> Self {
        Self { denial, layer, host: None, guard: None, up: 0 }
    }

    fn at(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }
}

/// Answers one request: the upstream's answer, or a refusal. Either way it is recorded.
pub(super) async fn answer(
    connection: Arc<Connection>,
    site: Arc<Site>,
    request: Request<Incoming>,
) -> Response<Download> {
    connection.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    if let Some(Unreadable(why)) = head.extensions.get() {
        return connection.unreadable(&site, &head.method, why);
    }
    // What the agent sent, for records and refusals: injection changes the head.
    let sent = Sent { method: head.method.clone(), uri: head.uri.clone(), version: head.version };
    let content_type = head.headers.get(http::header::CONTENT_TYPE).cloned();
    match exchange(&connection, &site, &sent, head, body).await {
        Ok(response) => response,
        Err(refused) => connection.refuse(&site, &sent, content_type, refused),
    }
}

/// A request line as the agent wrote it.
struct Sent {
    method: http::Method,
    uri: Uri,
    version: http::Version,
}

async fn exchange(
    connection: &Arc<Connection>,
    site: &Site,
    sent: &Sent,
    mut head: Parts,
    body: Incoming,
) -> Result<Response<Download>, Refused> {
    let admitted = admission::admit(&head, site.tls)
        .map_err(|e| Refused::new(e.reason, Stage::Request, Some(e.why.into())))?;
    let host = agreed_host(site, connection.port(), &admitted)?;
    // One agent for the whole exchange: who decides, whose secrets, whose upstream settings.
    let agent = connection.flow.agent.current();
    let permit = connection.decide_request(&agent, site, &host, sent)?;
    let allowance =
        connection.state.ledger.admit(&permit, body.size_hint().exact(), Instant::now()).map_err(
            |reason| {
                let denial = Denial { rule: permit.rule().cloned(), ..Denial::of(reason) };
                Refused::by(denial, Stage::Request).at(&host)
            },
        )?;

    let asked = admitted.upgrade.then(|| head.headers.get(UPGRADE).cloned()).flatten();
    let agent_side = head.extensions.remove::<OnUpgrade>();
    let stalled = head.extensions.remove::<Stalled>().unwrap_or_default();
    head.extensions.clear();
    headers::strip_request(&mut head.headers);
    if let Some(protocol) = &asked {
        upgrade::restore(&mut head.headers, protocol.clone());
    }

    let injection = connection.inject(&agent, &permit, &host, &mut head)?;
    let attached = injection.as_ref().map_or(&[][..], Injection::names);
    let guard = connection.begin(&permit, sent, attached).await.map_err(|e| e.at(&host))?;
    let body = match &injection {
        Some(injection) if !body.is_end_stream() => Body::boxed(injection.request_body(body)),
        _ => Body::from(body),
    };
    let idle = connection.interceptor.settings.serve.upload_idle(&head.headers);
    let (upload, upload_state) = Upload::new(body, allowance.clone(), idle);
    let route = Route {
        connector: &connection.interceptor.connector,
        shelf: &connection.state.shelf(&agent),
        settings: connection.upstream(&agent),
        permit: &permit,
        offer: match site.spoken {
            Spoken::H1 => Offer::H1,
            Spoken::H2 => Offer::H2,
        },
        authority: &authority_text(&host, admitted.port),
        patience: connection.interceptor.settings.answer,
    };
    match send(&route, Request::from_parts(head, upload)).await {
        Ok((response, lease)) => {
            upload_state.answered();
            let method = sent.method.clone();
            let open =
                Open { guard, upload: upload_state, allowance, lease, injection, method, stalled };
            relay_answer(connection, response, open, asked, agent_side).map_err(|e| e.at(&host))
        }
        Err(error) => {
            let canary = injection.as_ref().and_then(Injection::body_refusal);
            Err(failed(&error, canary, guard, &upload_state).at(&host))
        }
    }
}

/// The host of this request. What Host or `:authority` names must be what the connection is for.
fn agreed_host(site: &Site, port: u16, admitted: &Admitted) -> Result<Host, Refused> {
    let mismatch = || Refused::new(Reason::AuthorityMismatch, Stage::Request, None).at(&site.host);
    if admitted.port.is_some_and(|p| p != port) {
        return Err(mismatch());
    }
    match (&site.host, &admitted.host) {
        (known, named) if known == named => Ok(admitted.host.clone()),
        // A literal address on plain HTTP: the Host header says which name is meant, and that
        // name is what policy decides on and what is dialled.
        (Host::Ip(_), Host::Name(_)) if site.nameable => Ok(admitted.host.clone()),
        _ => Err(mismatch()),
    }
}

fn authority_text(host: &Host, port: Option<u16>) -> String {
    let host = match host {
        Host::Name(name) => name.as_str().to_owned(),
        Host::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        Host::Ip(ip) => ip.to_string(),
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// An exchange whose answer is on its way.
struct Open {
    guard: Guard,
    upload: Arc<UploadState>,
    allowance: Option<Allowance>,
    lease: Lease,
    injection: Option<Injection>,
    method: http::Method,
    stalled: Stalled,
}

/// The upstream has answered: strip, scrub, and stream it to the agent.
fn relay_answer(
    connection: &Connection,
    mut response: Response<Incoming>,
    open: Open,
    asked: Option<HeaderValue>,
    agent_side: Option<OnUpgrade>,
) -> Result<Response<Download>, Refused> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(connection, response, open, asked, agent_side);
    }
    let status = response.status();
    headers::strip_response(response.headers_mut());
    response.extensions_mut().clear();
    *response.version_mut() = http::Version::HTTP_11; // hyper writes what the agent speaks
    let (mut head, body) = response.into_parts();
    let Open { guard, upload, allowance, lease, injection, method, stalled } = open;
    let (body, scrubbed) = match injection.as_ref().and_then(Injection::scrubber) {
        Some(scrubber) => {
            let body = scrubber.response(&method, &mut head, body);
            let report = body.report();
            (Body::boxed(body), Some(report))
        }
        None => (Body::from(body), None),
    };
    let ending = Ending { guard, upload, lease, status, injection, scrubbed, stalled };
    let idle = connection.interceptor.settings.serve.download_idle;
    let body = Download::new(body, allowance, Box::new(ending), idle);
    Ok(Response::from_parts(head, body))
}

/// 101: both sides leave HTTP. Only as the agent asked for it.
fn switch(
    connection: &Connection,
    mut response: Response<Incoming>,
    open: Open,
    asked: Option<HeaderValue>,
    agent_side: Option<OnUpgrade>,
) -> Result<Response<Download>, Refused> {
    let Open { guard, allowance, injection, .. } = open;
    let (Some(asked), Some(agent_side)) = (asked, agent_side) else {
        return Err(protocol_error(guard, "it switched protocols without being asked"));
    };
    if !upgrade::granted(response.status(), response.headers(), &asked) {
        return Err(protocol_error(guard, "it switched to another protocol than was asked for"));
    }
    let upstream_side = hyper::upgrade::on(&mut response);
    headers::strip_response(response.headers_mut());
    upgrade::restore(response.headers_mut(), asked);
    let scrubber = injection.as_ref().and_then(Injection::scrubber).cloned();
    let in_head = scrubber.as_ref().map_or(0, |s| s.headers(response.headers_mut()));
    response.extensions_mut().clear();
    let idle = connection.interceptor.settings.idle;
    tokio::spawn(async move {
        let hits = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&hits);
        let copied =
            upgrade::relay(agent_side, upstream_side, allowance, idle, scrubber, seen).await;
        let message = masked(in_head + hits.load(Ordering::Relaxed));
        let outcome = Outcome { reason: copied.reason, message, ..Outcome::status(101) };
        record(guard.finish(outcome.bytes(copied.up, copied.down)));
    });
    Ok(response.map(|_| Download::from(Body::empty())))
}

fn masked(hits: u64) -> Option<String> {
    (hits > 0).then(|| format!("secret masked {hits} time(s)"))
}

fn protocol_error(guard: Guard, why: &str) -> Refused {
    let refused = Refused::new(Reason::UpstreamProtocol, Stage::Forward, Some(why.into()));
    Refused { guard: Some(Box::new(guard)), ..refused }
}

/// The exchange failed before an answer: by the agent's own upload, or at the upstream.
fn failed(
    error: &SendError,
    canary: Option<&InjectError>,
    guard: Guard,
    upload: &UploadState,
) -> Refused {
    if let Some(canary) = canary {
        let refused = Refused::new(canary.reason(), Stage::Inject, Some(canary.to_string()));
        return Refused { guard: Some(Box::new(guard)), up: upload.bytes(), ..refused };
    }
    let reason = upload.fault().unwrap_or(error.reason());
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    // Why the rule's limit cut the body off needs no more words.
    let message = (reason != Reason::UploadLimit).then_some(message);
    let refused = Refused::new(reason, Stage::Forward, message);
    Refused { guard: Some(Box::new(guard)), up: upload.bytes(), ..refused }
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
}

impl OnEnd for Ending {
    fn ended(self: Box<Self>, down: u64, complete: bool, cut: Option<Reason>) {
        let Self { guard, upload, lease, status, injection, scrubbed, stalled } = *self;
        // The upstream may answer before the agent's upload was stopped.
        let canary = injection.as_ref().and_then(Injection::body_refusal).map(InjectError::reason);
        let hits = scrubbed.map_or(0, |report| report.hits());
        let aborted = if stalled.is_set() { Reason::ClientTimeout } else { Reason::Aborted };
        let ended = cut.or(upload.fault()).or((!complete).then_some(aborted));
        let outcome = Outcome {
            reason: canary.or(ended),
            message: masked(hits),
            ..Outcome::status(status.as_u16()).bytes(upload.bytes(), down)
        };
        record(guard.finish(outcome));
        if complete && upload.is_done() {
            lease.give_back();
        }
    }
}

impl Connection {
    fn decide_request(
        &self,
        agent: &Agent,
        site: &Site,
        host: &Host,
        sent: &Sent,
    ) -> Result<Permit, Refused> {
        let facts = Facts {
            layer: Layer::Request { tls: site.tls },
            host,
            port: self.port(),
            request: Some(RequestFacts { method: sent.method.as_str(), path: sent.uri.path() }),
        };
        match policy::decide(&agent.policies(), &facts) {
            Verdict::Allow(permit) => Ok(permit),
            Verdict::Deny(denial) | Verdict::Ask(denial) => {
                Err(Refused::by(denial, Stage::Request).at(host))
            }
            // There is no deeper layer to inspect.
            Verdict::Inspect => Err(Refused::new(Reason::NoRule, Stage::Request, None).at(host)),
        }
    }

    /// Attaches what the permit grants, and refuses placeholders on their way elsewhere. The
    /// outermost policy's secrets are the operator's; `None` where it has none.
    fn inject(
        &self,
        agent: &Agent,
        permit: &Permit,
        host: &Host,
        head: &mut Parts,
    ) -> Result<Option<Injection>, Refused> {
        let Some(link) = agent.chain.first() else { return Ok(None) };
        if link.credentials.all().is_empty() && permit.credentials().is_empty() {
            return Ok(None);
        }
        inject::prepare(&link.credentials, permit.credentials(), host, head)
            .map(Some)
            .map_err(|e| Refused::new(e.reason(), Stage::Inject, Some(e.to_string())).at(host))
    }

    /// Commits the decision. Nothing goes upstream before this has succeeded.
    async fn begin(
        &self,
        permit: &Permit,
        sent: &Sent,
        attached: &[Arc<str>],
    ) -> Result<Guard, Refused> {
        let draft = self
            .draft(Event::Request, Decision::Allow)
            .permit(permit)
            .credentials(attached)
            .layer(Stage::Request)
            .request(sent.method.as_str(), sent.uri.path(), sent.version);
        let unrecorded = |_| Refused::new(Reason::AuditUnavailable, Stage::Audit, None);
        let guard = self.interceptor.audit.begin(draft).map_err(unrecorded)?;
        guard.durable().await.map_err(unrecorded)?;
        Ok(guard)
    }

    /// Refuses a request of which nothing but its bytes is known.
    fn unreadable(&self, site: &Site, method: &http::Method, why: &str) -> Response<Download> {
        let reason = Reason::MalformedRequest;
        let denial = Denial { message: Some(why.to_owned()), ..Denial::of(reason) };
        self.note(
            self.draft(Event::Request, Decision::Deny)
                .denial(&denial)
                .layer(Stage::Request)
                .host(&site.host)
                .port(self.port())
                .status(reason.http_status()),
        );
        Refusal {
            reason,
            layer: Stage::Request,
            host: Some(&site.host),
            port: self.port(),
            method,
            path: "-",
            rule: None,
            message: Some(why),
        }
        .response(&http::HeaderMap::new(), http::Version::HTTP_11)
        .map(Download::from)
    }

    /// Records a refusal and says why.
    fn refuse(
        &self,
        site: &Site,
        sent: &Sent,
        content_type: Option<HeaderValue>,
        refused: Refused,
    ) -> Response<Download> {
        let Refused { denial, layer, host, guard, up } = refused;
        let host = host.as_ref().unwrap_or(&site.host);
        match guard {
            Some(guard) => {
                let mut outcome = Outcome::failed(denial.reason).bytes(up, 0);
                outcome.message.clone_from(&denial.message);
                record(guard.finish(outcome));
            }
            None => self.note(
                self.draft(event_of(denial.reason), Decision::Deny)
                    .denial(&denial)
                    .layer(layer)
                    .host(host)
                    .port(self.port())
                    .request(sent.method.as_str(), sent.uri.path(), sent.version)
                    .status(denial.reason.http_status()),
            ),
        }
        let mut request_headers = http::HeaderMap::new();
        if let Some(value) = content_type {
            request_headers.insert(http::header::CONTENT_TYPE, value);
        }
        Refusal {
            reason: denial.reason,
            layer,
            host: Some(host),
            port: self.port(),
            method: &sent.method,
            path: sent.uri.path(),
            rule: denial.rule.as_deref(),
            message: denial.message.as_deref(),
        }
        .response(&request_headers, sent.version)
        .map(Download::from)
    }
}

/// A canary is an event of its own, so that it can be watched for.
fn event_of(reason: Reason) -> Event {
    if reason == Reason::Canary { Event::Canary } else { Event::Request }
}

/// The log reports its own failures; an outcome is not a condition of anything.
fn record<T, E>(_: Result<T, E>) {}

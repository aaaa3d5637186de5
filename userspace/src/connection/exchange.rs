//! One request: admission, policy, limits, injection, audit, forwarding. Each request of a
//! connection comes here by itself, also those that share an HTTP/2 connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::header::UPGRADE;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::answer::{Asked, Open, relay_answer};
use super::declined::{Refused, Sent};
use super::standing::Standing;
use super::{Connection, Site};
use crate::audit::{Event, Guard};
use crate::forward::http::{Route, SendError, send};
use crate::forward::pool::Wanted;
use crate::http::admission::{self, Admitted};
use crate::http::body::{Body, Download};
use crate::http::line::Line;
use crate::http::patience::Stalled;
use crate::http::refuse::Audience;
use crate::http::strict::Unreadable;
use crate::http::upload::{Upload, UploadState};
use crate::http::websocket::{Opening, WEBSOCKET};
use crate::http::{headers, upgrade};
use crate::identify::Agent;
use crate::inject::{self, InjectError, Injection};
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Denial, Host, Permit};
use crate::tls::terminate::Spoken;
use crate::tls::upstream::Offer;

/// Answers one request: the upstream's answer, or a refusal. Either way it is recorded.
pub(super) async fn answer(
    connection: Arc<Connection>,
    site: Arc<Site>,
    request: Request<Incoming>,
) -> Response<Download> {
    connection.requests.fetch_add(1, Ordering::Relaxed);
    let (mut head, body) = request.into_parts();
    if let Some(Unreadable(why)) = head.extensions.get() {
        return connection.unreadable(&site, &head.method, why);
    }
    let opening = Opening::of(&mut head);
    // What the agent sent, for records and refusals: injection changes the head.
    let sent = Sent { method: head.method.clone(), uri: head.uri.clone(), version: head.version };
    let audience = Audience::of(&head.headers);
    match exchange(&connection, &site, &sent, opening, head, body).await {
        Ok(response) => response,
        Err(refused) => connection.refuse(&site, &sent, audience, refused),
    }
}

async fn exchange(
    connection: &Arc<Connection>,
    site: &Arc<Site>,
    sent: &Sent,
    opening: Option<Opening>,
    mut head: Parts,
    body: Incoming,
) -> Result<Response<Download>, Refused> {
    let admitted = admission::admit(&head, site.tls)
        .map_err(|e| Refused::new(e.reason, Stage::Request, Some(e.why.into())))?;
    let host = agreed_host(site, connection.port(), &admitted)?;
    // One agent for the whole exchange: who decides, whose secrets, whose upstream settings.
    let mut watch = connection.watch.clone();
    let agent = watch.current();
    let permit = connection
        .decide_request(&agent, site, &host, sent)
        .map_err(|denial| Refused::by(denial, Stage::Request).at(&host))?;
    let allowance =
        connection.state.ledger.admit(&permit, body.size_hint().exact(), Instant::now()).map_err(
            |reason| {
                let denial = Denial { rule: permit.rule().cloned(), ..Denial::of(reason) };
                Refused::by(denial, Stage::Request).at(&host)
            },
        )?;

    let asked = match &opening {
        Some(_) => Some(WEBSOCKET),
        None => admitted.upgrade.then(|| head.headers.get(UPGRADE).cloned()).flatten(),
    };
    let agent_side = head.extensions.remove::<OnUpgrade>();
    let stalled = head.extensions.remove::<Stalled>().unwrap_or_default();
    let line = head.extensions.remove::<Line>().unwrap_or_default();
    head.extensions.clear();
    headers::strip_request(&mut head.headers);
    if let Some(protocol) = &asked {
        upgrade::restore(&mut head.headers, protocol.clone());
    }
    if let Some(opening) = &opening {
        opening.write(&mut head.headers);
    }

    let injection = connection.inject(&agent, &permit, &host, &mut head)?;
    let attached = injection.as_ref().map_or(&[][..], Injection::names);
    let guard = connection.begin(&permit, sent, attached).await.map_err(|e| e.at(&host))?;
    let mut standing = Standing {
        connection: Arc::clone(connection),
        site: Arc::clone(site),
        host: host.clone(),
        sent: sent.clone(),
        attached: attached.to_vec(),
        watch,
    };
    let body = match &injection {
        Some(injection) if !body.is_end_stream() => Body::boxed(injection.request_body(body)),
        _ => Body::from(body),
    };
    let pace = connection.limits(&agent).upload(&head.headers);
    let (upload, upload_state) = Upload::new(body, allowance.clone(), pace);
    let settings = connection.upstream(&agent);
    let route = Route {
        connector: &connection.interceptor.connector,
        shelf: &connection.state.shelf(&agent),
        wanted: Wanted {
            permit: &permit,
            offer: match site.spoken {
                Spoken::H2 if opening.is_none() => Offer::H2,
                Spoken::H1 | Spoken::H2 => Offer::H1,
            },
            settings,
            attached,
        },
        authority: &authority_text(&host, admitted.port),
        upload: &upload_state,
        patience: connection.interceptor.settings.answer,
    };
    let answered = tokio::select! {
        biased; // nothing is sent after a change that was not looked at
        denial = standing.over() => {
            upload_state.cut(denial.reason);
            let refused = Refused::by(denial, Stage::Request);
            return Err(refused.after(guard, upload_state.bytes()).at(&host));
        }
        answered = send(&route, Request::from_parts(head, upload)) => answered,
    };
    match answered {
        Ok((response, lease)) => {
            upload_state.answered();
            let (upload, idle) = (upload_state, settings.times.idle);
            let open =
                Open { guard, upload, allowance, lease, injection, standing, stalled, line, idle };
            let asked =
                asked.zip(agent_side).map(|(protocol, agent)| Asked { protocol, agent, opening });
            relay_answer(connection, response, open, asked).map_err(|e| e.at(&host))
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

/// The exchange failed before an answer: by the agent's own upload, or at the upstream.
fn failed(
    error: &SendError,
    canary: Option<&InjectError>,
    guard: Guard,
    upload: &UploadState,
) -> Refused {
    if let Some(canary) = canary {
        return Refused::new(canary.reason(), Stage::Inject, Some(canary.to_string()))
            .after(guard, upload.bytes());
    }
    let reason = upload.fault().unwrap_or(error.reason());
    // Why the rule's limit cut the body off needs no more words.
    let message = (reason != Reason::UploadLimit).then(|| error.to_string());
    Refused::new(reason, Stage::Forward, message).after(guard, upload.bytes())
}

impl Connection {
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
}

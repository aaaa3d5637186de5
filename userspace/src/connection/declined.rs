//! A request that is not answered by the upstream: why, its record, and what the agent reads.

use http::{Response, Uri};

use super::{Connection, Site, record};
use crate::audit::{Event, Guard, Outcome};
use crate::http::body::Download;
use crate::http::refuse::{Audience, Refusal};
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Denial, Host};

/// Why a request is not answered by the upstream.
pub(super) struct Refused {
    pub(super) denial: Denial,
    layer: Stage,
    /// The host that was decided on, where it is known.
    host: Option<Host>,
    /// The decision was recorded as allowed: the outcome is still open.
    guard: Option<Box<Guard>>,
    up: u64,
}

impl Refused {
    pub(super) fn new(reason: Reason, layer: Stage, message: Option<String>) -> Self {
        Self::by(Denial { message, ..Denial::of(reason) }, layer)
    }

    pub(super) fn by(denial: Denial, layer: Stage) -> Self {
        Self { denial, layer, host: None, guard: None, up: 0 }
    }

    pub(super) fn at(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// The decision was recorded as allowed, and `up` bytes went to the upstream since.
    pub(super) fn after(mut self, guard: Guard, up: u64) -> Self {
        (self.guard, self.up) = (Some(Box::new(guard)), up);
        self
    }
}

/// A request line as the agent wrote it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) method: http::Method,
    pub(super) uri: Uri,
    pub(super) version: http::Version,
}

impl Connection {
    /// Refuses a request of which nothing but its bytes is known.
    pub(super) fn unreadable(
        &self,
        site: &Site,
        method: &http::Method,
        why: &str,
    ) -> Response<Download> {
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
        .response(Audience::Other, http::Version::HTTP_11)
        .map(Download::from)
    }

    /// Records a refusal and says why.
    pub(super) fn refuse(
        &self,
        site: &Site,
        sent: &Sent,
        audience: Audience,
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
        .response(audience, sent.version)
        .map(Download::from)
    }
}

/// A canary is an event of its own, so that it can be watched for.
fn event_of(reason: Reason) -> Event {
    if reason == Reason::Canary { Event::Canary } else { Event::Request }
}

//! What is open when the agent's policy is replaced is decided again, with its own facts: as a new
//! connection with the same facts would be. What is no longer allowed ends, for the reason of the
//! new decision; what still is goes on untouched.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::declined::Sent;
use super::{Connection, Site};
use crate::http::farewell::Over;
use crate::http::line::Line;
use crate::http::upload::UploadState;
use crate::identify::{Agent, AgentWatch};
use crate::outcome::Reason;
use crate::policy::{self, Denial, Facts, Host, Layer, Permit, RequestFacts, Verdict};

/// So long an agent may take to read why its stream ends. Of the bodies nothing more is read meanwhile.
const FAREWELL: Duration = Duration::from_secs(1);

/// Waits for an agent that no longer allows what `still` is about.
pub(super) async fn over(
    mut watch: AgentWatch,
    still: impl Fn(&Agent) -> Result<(), Denial>,
) -> Denial {
    loop {
        if let Err(denial) = still(&*watch.changed().await) {
            return after_change(denial);
        }
    }
}

/// Says that it was allowed before.
fn after_change(denial: Denial) -> Denial {
    let why = denial.message.as_deref().unwrap_or(denial.reason.meaning());
    let message = match &denial.rule {
        Some(rule) => format!("the policy changed; rule `{rule}`: {why}"),
        None => format!("the policy changed: {why}"),
    };
    Denial { message: Some(message), ..denial }
}

impl Connection {
    /// The verdict on a new connection that dials the same, and of which egret would read the
    /// same: the host that it is for, and whether it is TLS.
    fn again(&self, agent: &Agent, opened: Option<(&Host, bool)>) -> Verdict {
        match (self.decide_by(agent, &self.dialled, Layer::Connect), opened) {
            (Verdict::Inspect, Some((host, tls))) => {
                self.decide_by(agent, host, Layer::Opened { tls })
            }
            (verdict, _) => verdict,
        }
    }

    /// Whether this connection may pass unopened. One of which nothing was read may, where it could
    /// whatever it speaks and its name is known.
    pub(super) fn passes(
        &self,
        agent: &Agent,
        opened: Option<(&Host, bool)>,
    ) -> Result<(), Denial> {
        match self.again(agent, opened) {
            Verdict::Allow(_) => Ok(()),
            Verdict::Deny(denial) | Verdict::Ask(denial) => Err(denial),
            Verdict::Inspect if opened.is_none() && matches!(self.dialled, Host::Name(_)) => {
                self.passes(agent, Some((&self.dialled, true)))?;
                self.passes(agent, Some((&self.dialled, false)))
            }
            Verdict::Inspect => {
                let message = Some("it would have to be opened now, and passes unopened".into());
                Err(Denial { message, ..Denial::of(Reason::NoRule) })
            }
        }
    }

    /// Whether some request on this connection could be allowed.
    pub(super) fn is_open(&self, agent: &Agent, site: &Site) -> Result<(), Denial> {
        match self.again(agent, Some((&site.host, site.tls))) {
            Verdict::Allow(_) | Verdict::Inspect => Ok(()),
            Verdict::Deny(denial) | Verdict::Ask(denial) => Err(denial),
        }
    }

    /// Decides one request. Where the connection was decided on by another agent than this one,
    /// it is decided on again as well.
    pub(super) fn decide_request(
        &self,
        agent: &Agent,
        site: &Site,
        host: &Host,
        sent: &Sent,
    ) -> Result<Permit, Denial> {
        if self.watch.has_changed() {
            self.is_open(agent, site)?;
        }
        let facts = Facts {
            layer: Layer::Request { tls: site.tls },
            host,
            port: self.port(),
            request: Some(RequestFacts { method: sent.method.as_str(), path: sent.uri.path() }),
        };
        match policy::decide(&agent.policies(), &facts) {
            Verdict::Allow(permit) => Ok(permit),
            Verdict::Deny(denial) | Verdict::Ask(denial) => Err(denial),
            // There is no deeper layer to inspect.
            Verdict::Inspect => Err(Denial::of(Reason::NoRule)),
        }
    }
}

/// An exchange under way, with the facts that it was allowed for.
pub(super) struct Standing {
    pub(super) connection: Arc<Connection>,
    pub(super) site: Arc<Site>,
    pub(super) host: Host,
    pub(super) sent: Sent,
    /// The credentials that are in the request.
    pub(super) attached: Vec<Arc<str>>,
    /// Told of every agent after the one that decided.
    pub(super) watch: AgentWatch,
}

impl Standing {
    /// Completes when it is no longer allowed: why. May be dropped and called again.
    pub(super) async fn over(&mut self) -> Denial {
        loop {
            let agent = self.watch.changed().await;
            if let Err(denial) = self.still(&agent) {
                return after_change(denial);
            }
        }
    }

    /// A secret that was replaced is no reason to end: what is under way has the one that was
    /// granted then, and is granted one of that name now.
    fn still(&self, agent: &Agent) -> Result<(), Denial> {
        let Self { connection, site, host, sent, attached, .. } = self;
        let permit = connection.decide_request(agent, site, host, sent)?;
        match attached.iter().find(|name| !permit.credentials().contains(name)) {
            None => Ok(()),
            Some(name) => {
                let message = format!("it carries the credential {name}, which is not granted");
                let rule = permit.rule().cloned();
                Err(Denial { rule, message: Some(message), ..Denial::of(Reason::InjectRefused) })
            }
        }
    }

    /// Ends the exchange from the outside once it is no longer allowed. Its bodies are then not
    /// asked, since either may wait for a peer that takes nothing; but a gRPC client is told why, if
    /// it takes that soon.
    pub(super) fn watched(
        mut self,
        line: Line,
        upload: &Arc<UploadState>,
        farewell: Option<oneshot::Sender<Over>>,
    ) -> Watched {
        let denial = Arc::<OnceLock<Denial>>::default();
        let (told, upload) = (Arc::clone(&denial), Arc::downgrade(upload));
        let watching = tokio::spawn(async move {
            let over = self.over().await;
            let (reason, message) = (over.reason, over.message.clone());
            let _ = told.set(over);
            let farewell = farewell.map(|tell| tell.send(Over { reason, message }));
            if farewell.is_none() {
                line.cut();
            }
            if let Some(upload) = upload.upgrade() {
                upload.cut(reason);
            }
            if farewell.is_some() {
                sleep(FAREWELL).await;
                line.cut();
            }
        });
        Watched { task: watching.abort_handle(), denial }
    }
}

/// An exchange that is watched until this is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    task: AbortHandle,
    denial: Arc<OnceLock<Denial>>,
}

impl Watched {
    /// Why the exchange was ended, if it was.
    pub(super) fn denial(&self) -> Option<&Denial> {
        self.denial.get()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

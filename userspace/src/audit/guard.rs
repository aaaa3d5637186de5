//! One decision record and one outcome record per request, by construction: [`Audit::begin`]
//! writes the first, [`Guard::finish`] consumes the guard and writes the second, and a guard that
//! is dropped writes it with reason `aborted`.

use std::time::Instant;

use super::chain::Seq;
use super::record::{Draft, Event};
use super::{Audit, AuditError};
use crate::outcome::{Decision, Reason, Stage};

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status the agent got.
    pub status: Option<u16>,
    /// Why it failed; `None` when it did not.
    pub reason: Option<Reason>,
    /// Body bytes from the agent to the upstream.
    pub up: u64,
    /// Body bytes from the upstream to the agent.
    pub down: u64,
    pub message: Option<String>,
}

impl Outcome {
    /// It was answered with this status.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// It failed for this reason; the status is the reason's.
    pub fn failed(reason: Reason) -> Self {
        Self { status: Some(reason.http_status()), reason: Some(reason), ..Self::default() }
    }

    /// A connection without HTTP ended in good order.
    pub fn closed() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn bytes(mut self, up: u64, down: u64) -> Self {
        (self.up, self.down) = (up, down);
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    #[must_use]
    pub fn message(mut self, text: &str) -> Self {
        self.message = Some(text.to_owned());
        self
    }
}

/// An allowed request whose outcome is still open.
#[derive(Debug)]
#[must_use = "dropping the guard records the request as aborted"]
pub struct Guard {
    audit: Audit,
    /// The decision as it was recorded; `None` once the outcome is written.
    open: Option<Draft>,
    seq: Seq,
    started: Instant,
}

impl Guard {
    pub(super) fn new(audit: Audit, decision: Draft, seq: Seq) -> Self {
        Self { audit, open: Some(decision), seq, started: Instant::now() }
    }

    /// The number of the decision record; `request.id` of both records.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Waits until the decision record survives a power failure, where that was asked for.
    pub async fn durable(&self) -> Result<(), AuditError> {
        self.audit.durable(self.seq).await
    }

    /// Writes the outcome record.
    pub fn finish(mut self, outcome: Outcome) -> Result<Seq, AuditError> {
        self.write(outcome)
    }

    fn write(&mut self, outcome: Outcome) -> Result<Seq, AuditError> {
        let Some(mut draft) = self.open.take() else { return Err(AuditError::Closed) };
        let r = &mut draft.0;
        r.event = Event::Response;
        r.decision = Decision::Note;
        r.layer = Some(Stage::Response);
        r.reason = outcome.reason;
        r.message = outcome.message;
        let request = r.request.get_or_insert_default();
        request.id = self.seq;
        request.status = outcome.status;
        let draft = draft.bytes(outcome.up, outcome.down).duration(self.started.elapsed());
        self.audit.record(draft).inspect_err(|e| {
            tracing::error!(request = self.seq.0, "the outcome could not be recorded: {e}");
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.open.is_some() {
            // A failure is logged and counted by `write`; there is nobody left to tell.
            let _ = self.write(Outcome { reason: Some(Reason::Aborted), ..Outcome::default() });
        }
    }
}

//! A connection that policy lets pass unopened: recorded, dialled, copied.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::audit::{Event, Outcome};
use crate::forward::tcp;
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Denial, Permit};
use crate::shutdown::Watcher;
use crate::tls::peek::Rewind;

pub(super) async fn relay<IO>(
    connection: &Connection,
    permit: &Permit,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let interceptor = &connection.interceptor;
    let agent = connection.flow.agent.current();
    let allowance = match connection.state.ledger.admit(permit, None, Instant::now()) {
        Ok(allowance) => allowance,
        Err(reason) => {
            let denial = Denial { rule: permit.rule().cloned(), ..Denial::of(reason) };
            return connection.refused(&denial, Stage::Connect, Some(permit.host()));
        }
    };
    let draft = connection.draft(Event::Connect, Decision::Allow).layer(Stage::Connect);
    let guard = match interceptor.audit.begin(draft.permit(permit)) {
        Ok(guard) => guard,
        Err(error) => return tracing::error!("refused, since it could not be recorded: {error}"),
    };
    if guard.durable().await.is_err() {
        return record(guard.finish(ended(Reason::AuditUnavailable)));
    }
    let upstream =
        match interceptor.connector.dialer.dial(permit, connection.upstream(&agent)).await {
            Ok(upstream) => upstream,
            Err(error) => {
                return record(guard.finish(ended(error.reason()).message(&error.to_string())));
            }
        };
    let copying = tcp::copy(io, upstream, allowance, interceptor.settings.idle);
    let outcome = tokio::select! {
        copied = copying => Outcome {
            reason: copied.reason,
            ..Outcome::closed().bytes(copied.up, copied.down)
        },
        () = shutdown.draining() => ended(Reason::ShuttingDown),
    };
    record(guard.finish(outcome));
}

/// A connection without HTTP has no status.
fn ended(reason: Reason) -> Outcome {
    Outcome::closed().reason(reason)
}

/// The log reports its own failures; an outcome is not a condition of anything.
fn record<T, E>(_: Result<T, E>) {}

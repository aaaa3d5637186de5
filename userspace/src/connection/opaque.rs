//! A connection that policy lets pass unopened: recorded, dialled, copied.

use std::pin::pin;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::standing::over;
use super::{Connection, record};
use crate::audit::{Event, Outcome};
use crate::forward::tcp;
use crate::outcome::{Decision, Reason, Stage};
use crate::policy::{Denial, Host, Permit};
use crate::shutdown::Watcher;
use crate::tls::peek::Rewind;

/// `opened`: what was read of the connection before it was allowed, as the host that it is for and
/// whether it is TLS.
pub(super) async fn relay<IO>(
    connection: &Connection,
    permit: &Permit,
    opened: Option<(&Host, bool)>,
    io: Rewind<IO>,
    shutdown: &mut Watcher,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let interceptor = &connection.interceptor;
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
    let mut denied = None;
    let end = async {
        let still = |agent: &_| connection.passes(agent, opened);
        tokio::select! {
            denial = over(connection.watch.clone(), still) => denied.insert(denial).reason,
            () = shutdown.draining() => Reason::ShuttingDown,
        }
    };
    let mut outcome = {
        let mut end = pin!(end);
        let agent = connection.flow.agent.current();
        let settings = connection.upstream(&agent);
        let dialling = interceptor.connector.dialer.dial(permit, settings);
        let dialled = tokio::select! {
            biased; // nothing is dialled after a change that was not looked at
            reason = &mut end => Err(ended(reason)),
            dialled = dialling => {
                dialled.map_err(|e| ended(e.reason()).message(&e.to_string()))
            }
        };
        match dialled {
            Ok(upstream) => {
                let idle = settings.times.idle.unwrap_or(interceptor.settings.idle);
                let copied = tcp::copy(io, upstream, allowance, idle, end).await;
                let outcome = Outcome { reason: copied.reason, ..Outcome::closed() };
                outcome.bytes(copied.up, copied.down)
            }
            Err(outcome) => outcome,
        }
    };
    if let Some(denial) = denied {
        outcome.message = denial.message;
    }
    record(guard.finish(outcome));
}

/// A connection without HTTP has no status.
fn ended(reason: Reason) -> Outcome {
    Outcome::closed().reason(reason)
}

//! Puts the DNS server behind one agent's sockets, with its policy's view of names and its
//! records.

use std::sync::Arc;

use crate::audit::{Audit, Draft, Event};
use crate::dns::{AllowsName, DnsRecord, Names, Recorder, Server, Sink};
use crate::identify::AgentCell;
use crate::outcome::Stage;
use crate::policy::{HostName, UnmatchedNames};

/// The DNS server of an agent. A name is answered as allowed only if every level of the agent's
/// chain, as it is at that moment, could allow it; `unmatched` holds where the chain does not say.
pub(super) fn server(
    names: Arc<Names>,
    agent: &Arc<AgentCell>,
    unmatched: UnmatchedNames,
    audit: &Audit,
) -> Server {
    let cell = Arc::clone(agent);
    let allowed: AllowsName = Box::new(move |name: &HostName| {
        let agent = cell.current();
        !agent.chain.is_empty() && agent.chain.iter().all(|l| l.policy.could_allow_name(name))
    });
    // The outermost policy that says something decides.
    let unmatched =
        agent.current().chain.iter().find_map(|l| l.policy.unmatched).unwrap_or(unmatched);
    Server::new(names, allowed, unmatched, Recorder::new(sink(agent, audit)))
}

fn sink(agent: &Arc<AgentCell>, audit: &Audit) -> Sink {
    let (agent, audit) = (Arc::clone(agent), audit.clone());
    Arc::new(move |record: DnsRecord<'_>| {
        let outcome = record.outcome;
        let mut draft = Draft::new(Event::Dns, outcome.decision)
            .agent(&agent.current())
            .layer(Stage::Dns)
            .host_text(outcome.name.trim_end_matches('.'))
            .protocol_text(outcome.transport.as_str())
            .message(&message(&record));
        if let Some(reason) = outcome.reason {
            draft = draft.reason(reason);
        }
        if let Err(error) = audit.record(draft) {
            tracing::error!(%error, "a DNS record could not be written");
        }
    })
}

fn message(record: &DnsRecord<'_>) -> String {
    match record.dropped {
        0 => record.outcome.qtype.clone(),
        n => format!("{}; {n} earlier refusals were not recorded", record.outcome.qtype),
    }
}

//! Puts the DNS server behind one agent's sockets, with its policy's view of names and its
//! records.

use std::sync::Arc;

use crate::audit::{Audit, Draft, Event};
use crate::dns::{AllowsName, DnsRecord, Names, Recorder, Server, Sink};
use crate::identify::Agent;
use crate::outcome::Stage;
use crate::policy::{HostName, UnmatchedNames};

/// The DNS server of `agent`. A name is answered as allowed only if every level of the agent's
/// chain could allow it.
pub(super) fn server(names: Arc<Names>, agent: &Arc<Agent>, audit: &Audit) -> Server {
    let chain = Arc::clone(agent);
    let allowed: AllowsName = Box::new(move |name: &HostName| {
        !chain.chain.is_empty() && chain.chain.iter().all(|l| l.policy.could_allow_name(name))
    });
    // `run` answers every name, so that a refusal arrives as a readable answer and not as a name
    // that does not exist; the outermost policy that says otherwise decides.
    let unmatched =
        agent.chain.iter().find_map(|l| l.policy.unmatched).unwrap_or(UnmatchedNames::Synthesize);
    Server::new(names, allowed, unmatched, Recorder::new(sink(agent, audit)))
}

fn sink(agent: &Arc<Agent>, audit: &Audit) -> Sink {
    let (agent, audit) = (Arc::clone(agent), audit.clone());
    Arc::new(move |record: DnsRecord<'_>| {
        let outcome = record.outcome;
        let mut draft = Draft::new(Event::Dns, outcome.decision)
            .agent(&agent)
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

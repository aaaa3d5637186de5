//! Puts the DNS server behind one agent's sockets, with its policy's view of names and its
//! records.

use std::sync::Arc;

use crate::audit::{Audit, Draft, Event};
use crate::dns::{DnsRecord, NameView, Names, Recorder, Server, Sink};
use crate::identify::{Agent, AgentCell};
use crate::outcome::Stage;
use crate::policy::{HostName, UnmatchedNames};

/// The DNS server of `agent`. Each query is answered by the chain as it is then.
pub(super) fn server(names: Arc<Names>, agent: &Arc<AgentCell>, audit: &Audit) -> Server {
    let view = Box::new(View(Arc::clone(agent)));
    Server::new(names, view, Recorder::new(sink(agent, audit)))
}

struct View(Arc<AgentCell>);

impl NameView for View {
    fn allows(&self, name: &HostName) -> bool {
        could_allow(&self.0.current(), name)
    }

    fn unmatched(&self) -> UnmatchedNames {
        unmatched(&self.0.current())
    }
}

/// A name is answered as allowed only if every level of the agent's chain could allow it.
fn could_allow(agent: &Agent, name: &HostName) -> bool {
    !agent.chain.is_empty() && agent.chain.iter().all(|l| l.policy.could_allow_name(name))
}

/// Every name is answered, so that a refusal arrives as a readable answer and not as a name that
/// does not exist; the outermost policy that says otherwise decides.
fn unmatched(agent: &Agent) -> UnmatchedNames {
    agent.chain.iter().find_map(|l| l.policy.unmatched).unwrap_or(UnmatchedNames::Synthesize)
}

fn sink(agent: &Arc<AgentCell>, audit: &Audit) -> Sink {
    let (agent, audit) = (Arc::clone(agent), audit.clone());
    Arc::new(move |record: DnsRecord<'_>| {
        let outcome = record.outcome;
        let mut draft = Draft::new(Event::Dns, outcome.decision)
            .whose(&agent)
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

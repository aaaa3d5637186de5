//! Puts the DNS server behind one agent's sockets, with its policy's view of names and its
//! records.

use std::sync::Arc;

use crate::audit::{Audit, Draft, Event};
use crate::dns::{DnsRecord, NameView, Names, Recorder, Server, Sink};
use crate::identify::AgentCell;
use crate::outcome::Stage;
use crate::policy::{HostName, UnmatchedNames};

/// The DNS server of an agent. Each query is answered by the chain as it is then; `default` holds
/// where no level says what names get that no rule could allow.
pub(super) fn server(
    names: Arc<Names>,
    agent: &Arc<AgentCell>,
    default: UnmatchedNames,
    audit: &Audit,
) -> Server {
    let view = Box::new(View { agent: Arc::clone(agent), default });
    Server::new(names, view, Recorder::new(sink(agent, audit)))
}

struct View {
    agent: Arc<AgentCell>,
    default: UnmatchedNames,
}

impl NameView for View {
    /// Only if every level of the chain could allow it.
    fn allows(&self, name: &HostName) -> bool {
        let agent = self.agent.current();
        !agent.chain.is_empty() && agent.chain.iter().all(|l| l.policy.could_allow_name(name))
    }

    /// The outermost policy that says something decides.
    fn unmatched(&self) -> UnmatchedNames {
        let agent = self.agent.current();
        agent.chain.iter().find_map(|l| l.policy.unmatched).unwrap_or(self.default)
    }
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

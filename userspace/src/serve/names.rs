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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Answered, Handler, Transport};
    use crate::identify::Agent;
    use crate::identify::{AgentLink, SessionId};
    use crate::outcome::{Decision, Reason};
    use crate::policy::{Action, HostPattern, Policy, Protocol, Rule};
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};

    /// An agent whose chain allows these names, one policy each.
    fn agent(allowed: &[&str], unmatched: Option<UnmatchedNames>) -> Arc<Agent> {
        let link = |host: &&str| {
            let rule = Rule {
                name: "allow".into(),
                action: Action::Allow,
                hosts: vec![HostPattern::parse(host).unwrap()],
                ports: Some(vec![443]),
                protocol: Some(Protocol::Https),
                methods: None,
                paths: None,
                credentials: Vec::new(),
                limits: crate::policy::Limits::default(),
                reason: None,
                origin: String::new(),
            };
            let policy = Policy { rules: vec![rule], unmatched, ..Policy::deny_all("test") };
            AgentLink { name: "agent".into(), policy: policy.into(), credentials: Arc::default() }
        };
        let chain = allowed.iter().map(link).collect();
        Agent { chain, session: SessionId("0".into()) }.into()
    }

    fn ask(server: &Server, name: &str) -> (Decision, Option<Reason>, Answered) {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let from = ([127, 0, 0, 1], 5353).into();
        let outcome = server.handle(&message.to_vec().unwrap(), Transport::Udp, from).outcome;
        (outcome.decision, outcome.reason, outcome.answered)
    }

    #[test]
    fn each_query_is_answered_by_the_policy_of_its_time() {
        let allowed = (Decision::Allow, None, Answered::Synthetic);
        let refused = |answered| (Decision::Deny, Some(Reason::NameNotAllowed), answered);
        let cell = Arc::new(AgentCell::new(agent(&["a.test"], None)));
        let audit = Audit::in_memory();
        let server = server(Arc::default(), &cell, UnmatchedNames::Synthesize, &audit);
        let both = || (ask(&server, "a.test."), ask(&server, "b.test."));
        assert_eq!(both(), (allowed, refused(Answered::Synthetic)));
        cell.replace(agent(&["b.test"], None));
        assert_eq!(both(), (refused(Answered::Synthetic), allowed));
        cell.replace(agent(&["b.test"], Some(UnmatchedNames::Nxdomain)));
        assert_eq!(both(), (refused(Answered::NoSuchName), allowed));
        cell.replace(agent(&["*.test", "a.test"], None));
        assert_eq!(both(), (allowed, refused(Answered::Synthetic)), "each level must allow");
        cell.replace(agent(&[], None));
        assert_eq!(both(), (refused(Answered::Synthetic), refused(Answered::Synthetic)));
        let records = audit.records();
        assert!(records.iter().all(|r| r.agent == ["agent".into()]), "{records:?}");
    }
}

//! The agent as it is now. A policy can be replaced while connections of the agent are open; each
//! of them holds the cell, reads the agent that is in it whenever it decides, and is told when
//! another is put in.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Agent, SessionId};

/// An agent that can be replaced while its connections are open.
#[derive(Debug)]
pub struct AgentCell(watch::Sender<Now>);

#[derive(Clone, Debug)]
struct Now {
    agent: Arc<Agent>,
    /// What records call it: the names of the last chain that was not empty, so that an agent
    /// whose policy was taken away is still known by them.
    names: Vec<Arc<str>>,
}

impl AgentCell {
    pub fn new(agent: impl Into<Arc<Agent>>) -> Self {
        let agent = agent.into();
        let names = agent.names();
        Self(watch::Sender::new(Now { agent, names }))
    }

    /// The agent as it is now.
    pub fn current(&self) -> Arc<Agent> {
        Arc::clone(&self.0.borrow().agent)
    }

    /// The names of the agent's chain, outermost first, as records carry them; those of the chain
    /// before where the chain is empty now.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.0.borrow().names.clone()
    }

    /// The session of the agent as it is now.
    pub fn session(&self) -> SessionId {
        self.0.borrow().agent.session.clone()
    }

    /// Puts another agent in the place of the one that is there. What is open is decided again;
    /// with an empty chain, everything is refused.
    pub fn replace(&self, agent: Arc<Agent>) {
        self.0.send_modify(|now| {
            if !agent.chain.is_empty() {
                now.names = agent.names();
            }
            now.agent = agent;
        });
    }

    /// Watches for a replacement from now on.
    pub fn watch(&self) -> AgentWatch {
        AgentWatch(self.0.subscribe())
    }
}

/// Told of each replacement after [`AgentCell::watch`]. Several in a row may be told as one, the
/// last.
#[derive(Clone, Debug)]
pub struct AgentWatch(watch::Receiver<Now>);

impl AgentWatch {
    /// The agent as it is now. A replacement up to now is not told any more.
    pub fn current(&mut self) -> Arc<Agent> {
        Arc::clone(&self.0.borrow_and_update().agent)
    }

    /// Whether there is a replacement that was not told yet.
    pub fn has_changed(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// Waits for a replacement that was not told yet; may be dropped while it waits. Never ends
    /// when there can be no other: the cell is gone.
    pub async fn changed(&mut self) -> Arc<Agent> {
        match self.0.changed().await {
            Ok(()) => self.current(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identify::AgentLink;
    use crate::policy::Policy;

    fn agent(names: &[&str]) -> Arc<Agent> {
        let link = |name: &&str| AgentLink {
            name: (*name).into(),
            policy: Policy::deny_all(name).into(),
            credentials: Arc::default(),
        };
        let session = SessionId("0".into());
        Agent { chain: names.iter().map(link).collect(), session }.into()
    }

    #[tokio::test]
    async fn a_watch_is_told_of_what_came_after_it() {
        let cell = AgentCell::new(agent(&["a"]));
        cell.replace(agent(&["b"]));
        let mut watch = cell.watch();
        assert_eq!(watch.current().names(), ["b".into()]);
        let told = tokio::spawn(async move { watch.changed().await.names() });
        tokio::task::yield_now().await;
        assert!(!told.is_finished(), "what was there before is no change");
        cell.replace(agent(&["c"]));
        assert_eq!(told.await.unwrap(), ["c".into()]);
        assert_eq!(cell.current().names(), ["c".into()]);
    }

    #[tokio::test]
    async fn a_change_between_two_looks_is_not_missed() {
        let cell = AgentCell::new(agent(&["a"]));
        let mut watch = cell.watch();
        let decided = watch.current();
        cell.replace(agent(&["b"]));
        cell.replace(agent(&["c"]));
        assert_eq!(decided.names(), ["a".into()]);
        assert!(watch.has_changed());
        assert_eq!(watch.changed().await.names(), ["c".into()], "two in a row, told as one");
        assert!(!watch.has_changed());
    }

    #[test]
    fn an_agent_without_a_chain_keeps_its_names() {
        let cell = AgentCell::new(agent(&["outer", "inner"]));
        cell.replace(agent(&[]));
        assert!(cell.current().chain.is_empty());
        assert_eq!(cell.names(), ["outer".into(), "inner".into()]);
        cell.replace(agent(&["again"]));
        assert_eq!(cell.names(), ["again".into()]);
    }
}

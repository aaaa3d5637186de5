//! What an agent finds on loopback: the listeners of its interceptor, and in a namespace that it
//! shares with others, the ports that its policy opens there.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd};

use agent_ebpf::abi::{
    IPPROTO_TCP, IPPROTO_UDP, LOCAL_CONNECT, LOCAL_LISTEN, ListenerKey, ListenerPorts, LocalKey,
    MAX_AGENTS, MAX_LISTENERS, MAX_LOCAL, MAX_PORTS, Plain, PortKey,
};
use agent_ebpf::address::Port;

use super::ebpf::{Kernel, KernelError, at};
use crate::identify::{CgroupId, NetnsCookie};
use crate::sys::bpf;

/// Ports that a policy opens, TCP and UDP, in namespaces that are shared with others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPorts {
    /// May be dialled on loopback, whoever listens there.
    pub connect: Vec<u16>,
    /// May be bound on addresses other than loopback.
    pub listen: Vec<u16>,
}

impl Kernel {
    /// Says where the interceptor of an agent listens in a network namespace. From then on nobody in
    /// that namespace who is governed may dial or bind these ports.
    ///
    /// # Errors
    /// When a map is full or gone.
    pub fn set_listeners(
        &self,
        ns: NetnsCookie,
        agent: CgroupId,
        ports: ListenerPorts,
    ) -> Result<(), KernelError> {
        let key = ListenerKey { netns: ns.0, agent: agent.0 };
        let before: Option<ListenerPorts> =
            bpf::map_get(self.maps.listeners.as_fd(), &key).map_err(at("LISTENERS"))?;
        for port in numbers(ports) {
            bpf::map_set(self.maps.ports.as_fd(), &PortKey::new(ns.0, port), &agent.0)
                .map_err(at("PORTS"))?;
        }
        bpf::map_set(self.maps.listeners.as_fd(), &key, &ports).map_err(at("LISTENERS"))?;
        let gone = numbers(before.unwrap_or_default()).filter(|port| !ports.holds(*port));
        self.release_ports(ns, agent, gone)
    }

    /// Forgets the listeners of an agent in a network namespace.
    ///
    /// # Errors
    /// When a map is gone.
    pub fn remove_listeners(&self, ns: NetnsCookie, agent: CgroupId) -> Result<(), KernelError> {
        let key = ListenerKey { netns: ns.0, agent: agent.0 };
        let before: Option<ListenerPorts> =
            bpf::map_get(self.maps.listeners.as_fd(), &key).map_err(at("LISTENERS"))?;
        bpf::map_remove(self.maps.listeners.as_fd(), &key).map_err(at("LISTENERS"))?;
        self.release_ports(ns, agent, numbers(before.unwrap_or_default()))
    }

    /// Those of another agent by now are left alone.
    fn release_ports(
        &self,
        ns: NetnsCookie,
        agent: CgroupId,
        ports: impl Iterator<Item = Port>,
    ) -> Result<(), KernelError> {
        let map = self.maps.ports.as_fd();
        for port in ports {
            let key = PortKey::new(ns.0, port);
            if bpf::map_get(map, &key).map_err(at("PORTS"))? == Some(agent.0) {
                bpf::map_remove(map, &key).map_err(at("PORTS"))?;
            }
        }
        Ok(())
    }

    /// The listeners of an egret that died died with it, and anybody may have their ports now.
    pub(super) fn forget_listeners(&self) -> Result<(), KernelError> {
        let (listeners, ports) = (self.maps.listeners.as_fd(), self.maps.ports.as_fd());
        remove_where(listeners, "LISTENERS", MAX_LISTENERS, |_: &ListenerKey| true)?;
        remove_where(ports, "PORTS", MAX_PORTS, |_: &PortKey| true)
    }

    /// Says which ports an agent's policy opens in namespaces that are shared with others, in the
    /// place of those said before. In a namespace of its own all are open.
    ///
    /// # Errors
    /// When the map is full or gone. It may then hold a part of what it should.
    pub fn set_local(&self, agent: CgroupId, ports: &LocalPorts) -> Result<(), KernelError> {
        let map = self.maps.local.as_fd();
        let connect = ports.connect.iter().map(|port| (LOCAL_CONNECT, *port));
        let listen = ports.listen.iter().map(|port| (LOCAL_LISTEN, *port));
        let wanted: BTreeSet<_> = connect.chain(listen).filter(|(_, port)| *port != 0).collect();
        remove_where(map, "LOCAL", MAX_LOCAL, |key: &LocalKey| {
            key.agent == agent.0 && !wanted.contains(&(key.purpose, key.port.get()))
        })?;
        for (purpose, port) in wanted {
            for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
                let key = LocalKey::new(agent.0, purpose, protocol, Port::new(port));
                bpf::map_set(map, &key, &1_u32).map_err(at("LOCAL"))?;
            }
        }
        Ok(())
    }

    /// Every agent that the kernel knows, in no order.
    ///
    /// # Errors
    /// When the map is gone.
    pub fn known_agents(&self) -> Result<Vec<CgroupId>, KernelError> {
        let ids = keys(self.maps.agents.as_fd(), "AGENTS", MAX_AGENTS, |_: &u64| true)?;
        Ok(ids.into_iter().map(CgroupId).collect())
    }

    /// What was said of an agent's loopback, in every namespace.
    pub(super) fn clear_local(&self, agent: CgroupId) -> Result<(), KernelError> {
        self.set_local(agent, &LocalPorts::default())?;
        let of_agent = |key: &ListenerKey| key.agent == agent.0;
        let listeners = keys(self.maps.listeners.as_fd(), "LISTENERS", MAX_LISTENERS, of_agent)?;
        listeners.iter().try_for_each(|key| self.remove_listeners(NetnsCookie(key.netns), agent))
    }
}

/// The port numbers of an entry, without zeros.
fn numbers(ports: ListenerPorts) -> impl Iterator<Item = Port> {
    let ListenerPorts { tcp4, tcp6, dns_udp4, dns_udp6, dns_tcp4, dns_tcp6, pad: _ } = ports;
    [tcp4, tcp6, dns_udp4, dns_udp6, dns_tcp4, dns_tcp6].into_iter().filter(|p| !p.is_zero())
}

fn remove_where<K: Plain>(
    map: BorrowedFd<'_>,
    name: &'static str,
    most: usize,
    which: impl Fn(&K) -> bool,
) -> Result<(), KernelError> {
    for key in keys(map, name, most, which)? {
        bpf::map_remove(map, &key).map_err(at(name))?;
    }
    Ok(())
}

/// The keys of a map that only this process writes, so that the walk sees each of them.
fn keys<K: Plain>(
    map: BorrowedFd<'_>,
    name: &'static str,
    most: usize,
    which: impl Fn(&K) -> bool,
) -> Result<Vec<K>, KernelError> {
    let mut found = Vec::new();
    let mut next = bpf::map_next_key::<K>(map, None).map_err(at(name))?;
    for _ in 0..most {
        let Some(key) = next else { break };
        if which(&key) {
            found.push(key);
        }
        next = bpf::map_next_key(map, Some(&key)).map_err(at(name))?;
    }
    Ok(found)
}

//! What is governed now, as `egret status` shows it.

use agent_ebpf::abi::Hook;

use super::governor::Governor;
use crate::control::wire::{AgentStatus, InterceptorStatus, KernelStatus, Status};

impl Governor {
    /// Everything, as it is at this moment.
    pub(super) fn status(&self) -> Status {
        let now = self.lock();
        let agents = now
            .agents
            .iter()
            .map(|(name, g)| AgentStatus {
                name: name.clone(),
                chain: now.places.chain(name).iter().map(|n| n.to_string()).collect(),
                cgroup: g.path.display().to_string(),
                session: g.session.to_string(),
                policy: g
                    .definition
                    .as_ref()
                    .map_or_else(String::new, |d| d.policy.name.to_string()),
                source: g.source.as_str().to_owned(),
                closed: now.why_closed(name),
                linked: g.attachment.is_some(),
                processes: g.cgroup.processes().map_or(0, |p| p.len()),
                namespaces: g.sockets.count(),
            })
            .collect();
        let (pid, restarts, confined) = self.supervisor.describe();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.config_path.clone(),
            lease_ms: now
                .config
                .as_ref()
                .map_or(0, |c| u64::try_from(c.lease.as_millis()).unwrap_or(u64::MAX)),
            interceptor: InterceptorStatus { pid, restarts, confined },
            agents,
            guards: now.guards.values().map(|path| path.display().to_string()).collect(),
            orphans: now.orphans.keys().cloned().collect(),
            kernel: self.kernel_status(),
        }
    }

    fn kernel_status(&self) -> KernelStatus {
        let Ok(stats) = self.kernel.feed().stats() else { return KernelStatus::default() };
        KernelStatus {
            events_dropped: stats.events_dropped,
            flows_lost: stats.flows_lost,
            runs: Hook::ALL.iter().map(|h| (h.name().to_owned(), stats.runs(*h))).collect(),
        }
    }

    /// One line for the service manager.
    pub(super) fn sentence(&self) -> String {
        let now = self.lock();
        let closed = now.agents.keys().filter(|name| now.why_closed(name).is_some()).count();
        format!("{} agents attached, {closed} of them closed", now.agents.len())
    }
}

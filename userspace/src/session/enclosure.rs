//! The walls: programs attached to a new cgroup, a network namespace with nothing but loopback,
//! listeners inside it. Each is owned by a value that takes it back when dropped.

use std::sync::Arc;

use super::SessionError;
use crate::identify::SessionId;
use crate::redirect::cgroup::{Cgroup, Hierarchy};
use crate::redirect::ebpf::{AgentFlags, Attachment, Kernel, KernelOptions};
use crate::redirect::listener::Listeners;
use crate::redirect::netns::Netns;
use crate::redirect::self_test;
use crate::serve::Sockets;

/// Everything that holds a session's agent in. Fields are dropped in order: the group is killed
/// before its programs are detached.
pub(super) struct Enclosure {
    pub(super) cgroup: Cgroup,
    _attachment: Attachment,
    pub(super) kernel: Arc<Kernel>,
    listeners: Listeners,
    pub(super) netns: Netns,
    hierarchy: Hierarchy,
}

impl Enclosure {
    /// Raises the walls and proves that every hook fires.
    pub(super) fn raise(session: &SessionId) -> Result<Self, SessionError> {
        let hierarchy = Hierarchy::find()?;
        // The verifier and the namespace take about equally long, on a core each.
        let (kernel, netns) = std::thread::scope(|scope| {
            let kernel = scope.spawn(|| Kernel::load(&KernelOptions::default()));
            let netns = Netns::private();
            (kernel.join(), netns)
        });
        let kernel =
            kernel.map_err(|_| SessionError::Panicked("loading the kernel programs"))??;
        let netns = netns?;
        let listeners = Listeners::open(&netns)?;
        for path in hierarchy.sweep()? {
            tracing::info!(path = %path.display(), "removed what a killed egret left behind");
        }
        self_test::run(&kernel, &hierarchy)?;
        let cgroup = hierarchy.create(session)?;
        let attachment = kernel.attach(&cgroup)?;
        kernel.set_listeners(netns.cookie(), cgroup.id(), listeners.ports().into())?;
        let flags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);
        kernel.set_agent(cgroup.id(), flags)?;
        let kernel = Arc::new(kernel);
        Ok(Self { cgroup, _attachment: attachment, kernel, listeners, netns, hierarchy })
    }

    /// The agent's cgroup, as /proc/PID/cgroup shows it.
    pub(super) fn cgroup_path(&self) -> String {
        let path = self.cgroup.path();
        let inside = path.strip_prefix(self.hierarchy.root()).unwrap_or(path);
        format!("/{}", inside.display())
    }

    /// Copies of the listeners, to be served.
    pub(super) fn sockets(&self) -> Result<Sockets, SessionError> {
        Sockets::of(&self.listeners)
            .map_err(|source| SessionError::Io { doing: "open the listeners", source })
    }

    /// Takes the walls down after the agent is gone, and says if something stays behind.
    pub(super) fn lower(self) -> Result<(), SessionError> {
        self.cgroup.destroy()?;
        Ok(())
    }
}

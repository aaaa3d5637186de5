//! From an accepted socket back to what the agent dialled: the flow that the kernel hooks wrote
//! down, taken out of their table exactly once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent_ebpf::abi::{FlowKey, Origin};
use agent_ebpf::address::{Address, Port};

use crate::identify::{CgroupId, NetnsCookie, OriginalDst, Process};

/// What the kernel knows of a connection. Nothing in it came from the agent, except `comm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    pub original: OriginalDst,
    /// The cgroup under which the agent was registered with the kernel.
    pub agent: CgroupId,
    /// The cgroup of the process itself: the agent's, or one below it.
    pub cgroup: CgroupId,
    pub netns: NetnsCookie,
    /// `exe` and `cgroup` are not filled in: they need /proc.
    pub process: Process,
    /// Since boot, suspended time included (CLOCK_BOOTTIME), as start times in /proc are.
    pub opened_at: Duration,
}

/// How the kernel names an accepted connection: `client` is the peer's address, `listener` the
/// local one, and `netns` the namespace that the listener was made in.
pub fn flow_key(netns: NetnsCookie, client: SocketAddr, listener: SocketAddr) -> FlowKey {
    let end = |a: SocketAddr| (Address::from(a.ip()), Port::new(a.port()));
    FlowKey::tcp(netns.0, end(client), end(listener))
}

impl From<&Origin> for KernelFlow {
    fn from(origin: &Origin) -> Self {
        Self {
            original: OriginalDst(dialled(origin)),
            agent: CgroupId(origin.agent),
            cgroup: CgroupId(origin.cgroup),
            netns: NetnsCookie(origin.netns),
            process: process(origin),
            opened_at: Duration::from_nanos(origin.time),
        }
    }
}

/// The address that was dialled; IPv4-mapped IPv6 comes out as IPv4.
pub(super) fn dialled(origin: &Origin) -> SocketAddr {
    SocketAddr::new(IpAddr::from(origin.dst), origin.port.get())
}

pub(super) fn process(origin: &Origin) -> Process {
    let end = origin.comm.iter().position(|b| *b == 0).unwrap_or(origin.comm.len());
    Process {
        pid: origin.pid,
        tgid: origin.tgid,
        uid: origin.uid,
        comm: String::from_utf8_lossy(&origin.comm[..end]).into_owned(),
        exe: None,
        cgroup: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_become_an_address_and_a_process() {
        let mut origin = Origin {
            agent: 7,
            cgroup: 9,
            netns: 3,
            pid: 11,
            tgid: 10,
            uid: 1000,
            dst: Address::from("::ffff:1.2.3.4".parse::<IpAddr>().unwrap()),
            port: Port::new(443),
            time: 5_000_000_000,
            ..Origin::default()
        };
        origin.comm[..4].copy_from_slice(b"cu\xffl");
        let flow = KernelFlow::from(&origin);
        assert_eq!(flow.original.0, "1.2.3.4:443".parse().unwrap());
        assert_eq!((flow.agent, flow.cgroup), (CgroupId(7), CgroupId(9)));
        assert_eq!(flow.process.comm, "cu\u{fffd}l");
        assert_eq!((flow.process.pid, flow.process.tgid, flow.process.uid), (11, 10, 1000));
        assert_eq!(flow.opened_at, Duration::from_secs(5));
    }

    #[test]
    fn a_v4_connection_has_one_key_however_it_is_written() {
        let ns = NetnsCookie(1);
        let plain = flow_key(ns, "127.0.0.1:5".parse().unwrap(), "127.0.0.1:6".parse().unwrap());
        let mapped = flow_key(
            ns,
            "[::ffff:127.0.0.1]:5".parse().unwrap(),
            "[::ffff:127.0.0.1]:6".parse().unwrap(),
        );
        assert_eq!(plain, mapped);
        let swapped = flow_key(ns, "127.0.0.1:6".parse().unwrap(), "127.0.0.1:5".parse().unwrap());
        assert_ne!(plain, swapped);
    }
}

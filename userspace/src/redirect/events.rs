//! What the kernel hooks refused, as values that the audit log can write.

use std::net::SocketAddr;
use std::time::Duration;

use agent_ebpf::abi::{self, Hook, IPPROTO_TCP, IPPROTO_UDP};
use agent_ebpf::decide::Denied;

use super::orig_dst;
use crate::identify::{CgroupId, Process};
use crate::outcome::Reason;

/// One refusal in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelEvent {
    /// Since boot, suspended time included (CLOCK_BOOTTIME).
    pub at: Duration,
    pub hook: Hook,
    pub reason: Reason,
    /// The agent, if one was found (`agent_unknown` has none).
    pub agent: Option<CgroupId>,
    /// The cgroup of the process or, for a packet, of its socket.
    pub cgroup: CgroupId,
    /// Who asked. None for a packet: it may leave while another process runs.
    pub process: Option<Process>,
    pub attempt: Attempt,
}

/// What was attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Opening a socket (numbers of the kernel: AF_*, SOCK_*, IPPROTO_*).
    Socket { family: u16, kind: u16, protocol: u8 },
    /// Dialling or sending to an address.
    Dial { protocol: &'static str, to: SocketAddr },
    /// Binding a local address.
    Bind { protocol: &'static str, at: SocketAddr },
    /// A packet to an address, by an interface other than loopback.
    Packet { protocol: &'static str, to: SocketAddr, interface: u32 },
}

impl KernelEvent {
    /// From the bytes of one entry of the ring; None if this version does not know it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let raw: abi::Event = abi::from_bytes(bytes)?;
        let hook = Hook::from_code(raw.hook)?;
        let origin = &raw.origin;
        let protocol = protocol_name(origin.protocol);
        let address = orig_dst::dialled(origin);
        let packet = hook == Hook::Egress;
        let attempt = match hook {
            Hook::SockCreate => Attempt::Socket {
                family: raw.family,
                kind: raw.socket_type,
                protocol: origin.protocol,
            },
            Hook::Bind4 | Hook::Bind6 => Attempt::Bind { protocol, at: address },
            Hook::Egress => Attempt::Packet { protocol, to: address, interface: raw.ifindex },
            Hook::Connect4
            | Hook::Connect6
            | Hook::Sendmsg4
            | Hook::Sendmsg6
            | Hook::Recvmsg4
            | Hook::Recvmsg6
            | Hook::Getpeername4
            | Hook::Getpeername6
            | Hook::SockOps
            | Hook::SockRelease => Attempt::Dial { protocol, to: address },
        };
        Some(Self {
            at: Duration::from_nanos(origin.time),
            hook,
            reason: reason(Denied::from_code(raw.denied)?),
            agent: (origin.agent != 0).then_some(CgroupId(origin.agent)),
            cgroup: CgroupId(origin.cgroup),
            process: (!packet).then(|| orig_dst::process(origin)),
            attempt,
        })
    }
}

/// The reason under which a verdict of the hooks is known everywhere else.
pub fn reason(denied: Denied) -> Reason {
    match denied {
        Denied::SocketFamily => Reason::SocketFamily,
        Denied::UdpRefused => Reason::UdpRefused,
        Denied::NotLoopback => Reason::NotLoopback,
        Denied::InterceptorPort => Reason::InterceptorPort,
        Denied::NoListener => Reason::NoListener,
        Denied::LeaseExpired => Reason::LeaseExpired,
        Denied::FlowMapFull => Reason::FlowMapFull,
        Denied::AgentUnknown => Reason::AgentUnknown,
        Denied::SharedLoopback | Denied::SharedListen => Reason::SharedLoopback,
        Denied::Unavailable => Reason::KernelDenied,
    }
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        IPPROTO_TCP => "tcp",
        IPPROTO_UDP => "udp",
        1 | 58 => "icmp",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use agent_ebpf::abi::{Event, Origin, bytes_of};
    use agent_ebpf::address::{Address, Port};

    use super::*;

    fn event(hook: Hook, denied: Denied) -> Event {
        let dst: std::net::IpAddr = "1.2.3.4".parse().unwrap();
        Event {
            origin: Origin {
                agent: 5,
                cgroup: 6,
                dst: Address::from(dst),
                port: Port::new(443),
                protocol: IPPROTO_UDP,
                ..Origin::default()
            },
            ifindex: 2,
            family: 2,
            socket_type: 3,
            denied: denied as u8,
            hook: hook as u8,
            ..Event::default()
        }
    }

    #[test]
    fn a_refused_datagram_says_where_it_was_going() {
        let e = KernelEvent::parse(bytes_of(&event(Hook::Connect4, Denied::UdpRefused))).unwrap();
        assert_eq!(e.reason, Reason::UdpRefused);
        assert_eq!(e.agent, Some(CgroupId(5)));
        let to = "1.2.3.4:443".parse().unwrap();
        assert_eq!(e.attempt, Attempt::Dial { protocol: "udp", to });
    }

    #[test]
    fn a_packet_names_its_interface_and_no_process() {
        let e = KernelEvent::parse(bytes_of(&event(Hook::Egress, Denied::NotLoopback))).unwrap();
        assert!(matches!(e.attempt, Attempt::Packet { interface: 2, .. }));
        assert_eq!(e.process, None);
    }

    #[test]
    fn an_entry_of_another_version_is_skipped() {
        let good = event(Hook::Connect4, Denied::UdpRefused);
        assert!(KernelEvent::parse(bytes_of(&good)).is_some());
        assert!(KernelEvent::parse(&bytes_of(&good)[1..]).is_none());
        assert!(KernelEvent::parse(bytes_of(&Event { hook: 99, ..good })).is_none());
        assert!(KernelEvent::parse(bytes_of(&Event { denied: 0, ..good })).is_none());
    }

    #[test]
    fn every_verdict_has_a_reason() {
        for denied in Denied::ALL {
            assert!(Reason::ALL.contains(&reason(*denied)));
        }
    }
}

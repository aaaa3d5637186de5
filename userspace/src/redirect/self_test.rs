//! Proof, at start, that every hook fires: a child in the agent's place makes one attempt per hook,
//! and both the program's counter and the effect are checked. What was attached is not proof; on
//! some kernels a link exists and its program never runs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use agent_ebpf::abi::{AgentFlags, Hook, ListenerKey, ListenerPorts, Origin};
use agent_ebpf::address::Port;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::cgroup::{Cgroup, CgroupError, Hierarchy};
use super::ebpf::{Kernel, KernelError};
use super::orig_dst;
use crate::identify::{CgroupId, NetnsCookie, SessionId};
use crate::sys::{bpf, probe, socket as socket_options};

/// No answer on loopback takes this long, not even on a loaded machine.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often everything is tried before it counts as failed.
const ATTEMPTS: usize = 3;
/// The child is ended after this, whatever happens.
const CHILD_SECONDS: u32 = 4;

/// What was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// The hooks that fired, in the order in which a socket meets them.
    pub hooks: Vec<Hook>,
    /// False on a kernel without IPv6, where its hooks have nothing to do.
    pub ipv6: bool,
    pub took: Duration,
}

/// Why egret must not start.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("the kernel hook `{0}` is attached but does not fire, so egress would not be governed")]
    Silent(&'static str),
    #[error("the kernel hooks fire but do not hold: {0}")]
    NoEffect(&'static str),
    #[error("the self-test of the kernel hooks could not run: {0}")]
    Child(#[source] io::Error),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

/// Attaches to a group made for the purpose, and proves every hook there.
///
/// # Errors
/// Names the hook that did not fire, or what it failed to do.
pub fn run(kernel: &Kernel, hierarchy: &Hierarchy) -> Result<SelfTest, SelfTestError> {
    let cgroup = hierarchy.create(&SessionId::random())?;
    let attachment = kernel.attach(&cgroup)?;
    kernel.set_agent(cgroup.id(), AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS))?;
    // On a machine that is busy the child can run out of its time, or of the lease. A hook that does
    // not fire does not fire at the third attempt either.
    let mut result = prove(kernel, &cgroup);
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = prove(kernel, &cgroup);
    }
    drop(attachment);
    kernel.remove_agent(cgroup.id())?;
    // The child is reaped, so the group is empty.
    cgroup.destroy()?;
    result
}

/// Proves every hook in a group that [`Kernel::attach`] and [`Kernel::set_agent`] (with
/// `PRIVATE_NETNS`) have prepared, before the agent is started in it. The refusals that the test
/// provokes are taken out of the ring, with any others that wait there.
///
/// # Errors
/// Names the hook that did not fire, or what it failed to do.
pub fn prove(kernel: &Kernel, cgroup: &Cgroup) -> Result<SelfTest, SelfTestError> {
    let start = Instant::now();
    kernel.feed().beat()?;
    let before = kernel.feed().stats()?;
    let maps = Maps {
        agent: cgroup.id(),
        listeners: kernel.listeners_fd(),
        flows: kernel.feed().flows_fd(),
    };
    let code = probe::in_child(cgroup.as_fd(), CHILD_SECONDS, || match attempt_all(&maps) {
        Ok(()) => 0,
        Err(step) => step as u8,
    })
    .map_err(SelfTestError::Child)?;
    let after = kernel.feed().stats()?;
    kernel.feed().events();

    let ipv6 = code != Step::NoIpv6 as u8;
    let expected = Hook::ALL.iter().copied().filter(|hook| ipv6 || !is_ipv6(*hook));
    let hooks: Vec<Hook> = expected.collect();
    if let Some(silent) = hooks.iter().find(|h| after.runs(**h) == before.runs(**h)) {
        return Err(SelfTestError::Silent(silent.name()));
    }
    match Step::ALL.iter().find(|step| **step as u8 == code) {
        None if code == 0 => {}
        Some(Step::NoIpv6) => {}
        Some(step) => return Err(SelfTestError::NoEffect(step.meaning())),
        None => return Err(SelfTestError::Child(io::Error::other(format!("exit code {code}")))),
    }
    Ok(SelfTest { hooks, ipv6, took: start.elapsed() })
}

fn is_ipv6(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::Connect6 | Hook::Sendmsg6 | Hook::Recvmsg6 | Hook::Getpeername6 | Hook::Bind6
    )
}

macro_rules! steps {
    ($($name:ident = $meaning:literal;)*) => {
        /// What the child found wrong; its number is the exit code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        enum Step { Setup = 1, $($name,)* NoIpv6 }

        impl Step {
            const ALL: &'static [Self] = &[Self::Setup, $(Self::$name,)* Self::NoIpv6];

            fn meaning(self) -> &'static str {
                match self {
                    Self::Setup => "the test namespace could not be prepared",
                    $(Self::$name => $meaning,)*
                    Self::NoIpv6 => "there is no IPv6",
                }
            }
        }
    };
}

steps! {
    RawSocket = "a raw socket could be opened";
    BindTaken = "the interceptor's port could be bound";
    DialTaken = "the interceptor's port could be dialled";
    UdpPassed = "UDP to a port other than DNS was not refused";
    DnsConnect = "a connected DNS query did not reach the DNS listener";
    DnsPeer = "getpeername did not show the resolver that was dialled";
    DnsSend = "a DNS query did not reach the DNS listener";
    DnsSource = "the answer to a DNS query did not seem to come from the resolver";
    TcpConnect = "a TCP connection did not reach the interceptor";
    TcpFlow = "the flow of a TCP connection was not recorded before it was accepted";
    TcpTwice = "the flow of a TCP connection could be taken twice";
    TcpPeer = "getpeername did not show the address that was dialled";
}

struct Maps<'a> {
    agent: CgroupId,
    listeners: BorrowedFd<'a>,
    flows: BorrowedFd<'a>,
}

/// Everything below runs in the child: no allocation, no locks, no logging.
fn attempt_all(maps: &Maps<'_>) -> Result<(), Step> {
    probe::loopback_up().map_err(|_| Step::Setup)?;
    let v4 = Place {
        loopback: Ipv4Addr::LOCALHOST.into(),
        // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): nobody's.
        remote: Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let v6 = Place {
        loopback: Ipv6Addr::LOCALHOST.into(),
        remote: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    raw_socket_is_refused()?;
    attempt(maps, &v4)?;
    attempt(maps, &v6)
}

struct Place {
    loopback: IpAddr,
    remote: IpAddr,
}

fn raw_socket_is_refused() -> Result<(), Step> {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp);
    if matches!(raw, Err(Errno::EPERM)) { Ok(()) } else { Err(Step::RawSocket) }
}

fn attempt(maps: &Maps<'_>, place: &Place) -> Result<(), Step> {
    let any = SocketAddr::new(place.loopback, 0);
    let Ok(tcp) = TcpListener::bind(any) else {
        return Err(if any.is_ipv6() { Step::NoIpv6 } else { Step::Setup });
    };
    let udp = UdpSocket::bind(any).map_err(|_| Step::Setup)?;
    let ports = announce(maps, &tcp, &udp).map_err(|_| Step::Setup)?;

    taken_ports_are_refused(place, ports)?;
    let elsewhere = UdpSocket::bind(any).map_err(|_| Step::Setup)?;
    match elsewhere.connect(SocketAddr::new(place.remote, 443)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
        _ => return Err(Step::UdpPassed),
    }
    names_are_answered(place, &udp)?;
    connections_arrive(maps, place, &tcp)
}

#[derive(Clone, Copy)]
struct Ours {
    tcp: u16,
    dns: u16,
}

/// Tells the kernel where the listeners of this namespace are, and bounds every wait on them.
fn announce(maps: &Maps<'_>, tcp: &TcpListener, udp: &UdpSocket) -> io::Result<Ours> {
    let ours = Ours { tcp: tcp.local_addr()?.port(), dns: udp.local_addr()?.port() };
    let (tcp_port, dns_port) = (Port::new(ours.tcp), Port::new(ours.dns));
    let ports = ListenerPorts {
        tcp4: tcp_port,
        tcp6: tcp_port,
        dns_udp4: dns_port,
        dns_udp6: dns_port,
        ..ListenerPorts::default()
    };
    let key =
        ListenerKey { netns: socket_options::netns_cookie(tcp.as_fd())?, agent: maps.agent.0 };
    bpf::map_set(maps.listeners, &key, &ports)?;
    udp.set_read_timeout(Some(PATIENCE))?;
    let patience = TimeVal::milliseconds(PATIENCE.as_millis() as i64);
    setsockopt(tcp, sockopt::ReceiveTimeout, &patience)?;
    Ok(ours)
}

fn taken_ports_are_refused(place: &Place, ours: Ours) -> Result<(), Step> {
    let refused = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
    // UDP on the number of the TCP listener: free as far as the kernel is concerned.
    if !UdpSocket::bind(SocketAddr::new(place.loopback, ours.tcp)).is_err_and(|e| refused(&e)) {
        return Err(Step::BindTaken);
    }
    let direct = SocketAddr::new(place.loopback, ours.tcp);
    if !TcpStream::connect_timeout(&direct, PATIENCE).is_err_and(|e| refused(&e)) {
        return Err(Step::DialTaken);
    }
    let dns = UdpSocket::bind(SocketAddr::new(place.loopback, 0)).map_err(|_| Step::Setup)?;
    if dns.connect(SocketAddr::new(place.loopback, ours.dns)).is_err_and(|e| refused(&e)) {
        Ok(())
    } else {
        Err(Step::DialTaken)
    }
}

fn names_are_answered(place: &Place, listener: &UdpSocket) -> Result<(), Step> {
    let resolver = SocketAddr::new(place.remote, 53);
    let client = UdpSocket::bind(SocketAddr::new(place.loopback, 0)).map_err(|_| Step::Setup)?;
    client.set_read_timeout(Some(PATIENCE)).map_err(|_| Step::Setup)?;
    let mut buffer = [0u8; 8];

    client.send_to(b"sent", resolver).map_err(|_| Step::DnsSend)?;
    let (_, from) = listener.recv_from(&mut buffer).map_err(|_| Step::DnsSend)?;
    if buffer[..4] != *b"sent" {
        return Err(Step::DnsSend);
    }
    listener.send_to(b"back", from).map_err(|_| Step::DnsSource)?;
    match client.recv_from(&mut buffer) {
        Ok((_, source)) if source == resolver => {}
        _ => return Err(Step::DnsSource),
    }

    client.connect(resolver).map_err(|_| Step::DnsConnect)?;
    if client.peer_addr().ok() != Some(resolver) {
        return Err(Step::DnsPeer);
    }
    client.send(b"conn").map_err(|_| Step::DnsConnect)?;
    listener.recv_from(&mut buffer).map_err(|_| Step::DnsConnect)?;
    if buffer[..4] == *b"conn" { Ok(()) } else { Err(Step::DnsConnect) }
}

fn connections_arrive(maps: &Maps<'_>, place: &Place, tcp: &TcpListener) -> Result<(), Step> {
    let remote = SocketAddr::new(place.remote, 443);
    let client = TcpStream::connect_timeout(&remote, PATIENCE).map_err(|_| Step::TcpConnect)?;
    let (accepted, from) = tcp.accept().map_err(|_| Step::TcpConnect)?;
    let key = flow_key(&accepted, from).map_err(|_| Step::TcpConnect)?;
    match bpf::map_take::<_, Origin>(maps.flows, &key) {
        Ok(Some(origin)) if orig_dst::dialled(&origin) == remote => {}
        _ => return Err(Step::TcpFlow),
    }
    if !matches!(bpf::map_take::<_, Origin>(maps.flows, &key), Ok(None)) {
        return Err(Step::TcpTwice);
    }
    if client.peer_addr().ok() == Some(remote) { Ok(()) } else { Err(Step::TcpPeer) }
}

fn flow_key(accepted: &TcpStream, from: SocketAddr) -> io::Result<agent_ebpf::abi::FlowKey> {
    let netns = NetnsCookie(socket_options::netns_cookie(accepted.as_fd())?);
    Ok(orig_dst::flow_key(netns, from, accepted.local_addr()?))
}

//! The sockets on which the traffic of an agent arrives. A socket belongs for life to the
//! network namespace it was made in, so egret opens these inside the agent's namespace and
//! accepts from outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use agent_ebpf::abi::ListenerPorts;
use agent_ebpf::address::Port;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

use super::netns::{Netns, NetnsError};

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// How often another port is tried when a port is free in one family or protocol only.
const ATTEMPTS: usize = 64;

/// Why the listeners could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error("cannot listen on {address}: {source}")]
    Open { address: SocketAddr, source: io::Error },
}

/// The port numbers that the kernel programs redirect to; each holds for 127.0.0.1 and ::1, and
/// `dns` for UDP and TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub intercept: u16,
    pub dns: u16,
}

/// Listeners on loopback of one namespace; all non-blocking and close-on-exec, ready for tokio's
/// `from_std`. The IPv6 sockets are `None` on a kernel without IPv6.
#[derive(Debug)]
pub struct Listeners {
    pub intercept_v4: TcpListener,
    pub intercept_v6: Option<TcpListener>,
    pub dns_tcp_v4: TcpListener,
    pub dns_tcp_v6: Option<TcpListener>,
    pub dns_udp_v4: UdpSocket,
    pub dns_udp_v6: Option<UdpSocket>,
    ports: Ports,
}

impl From<Ports> for ListenerPorts {
    fn from(ports: Ports) -> Self {
        let (tcp, dns) = (Port::new(ports.intercept), Port::new(ports.dns));
        Self {
            tcp4: tcp,
            tcp6: tcp,
            dns_udp4: dns,
            dns_udp6: dns,
            dns_tcp4: dns,
            dns_tcp6: dns,
            pad: [0; 4],
        }
    }
}

impl Listeners {
    /// Opens them in `netns`, on ports that the kernel chooses.
    ///
    /// # Errors
    /// When the namespace cannot be entered or a socket cannot be opened.
    pub fn open(netns: &Netns) -> Result<Self, ListenerError> {
        netns.run(|| {
            let opened = Self::open_here()?;
            opened.reserve_ports();
            Ok(opened)
        })?
    }

    /// Opens them in the namespace of the calling thread.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn open_here() -> Result<Self, ListenerError> {
        let (intercept_v4, intercept_v6, intercept) = retry(|| {
            let v4 = tcp(Ipv4Addr::LOCALHOST.into(), 0)?;
            let port = port_of(v4.local_addr())?;
            Ok((v4, optional(tcp(Ipv6Addr::LOCALHOST.into(), port))?, port))
        })?;
        let (dns_tcp_v4, dns_tcp_v6, dns_udp_v4, dns_udp_v6, dns) = retry(|| {
            let tcp4 = tcp(Ipv4Addr::LOCALHOST.into(), 0)?;
            let port = port_of(tcp4.local_addr())?;
            let tcp6 = optional(tcp(Ipv6Addr::LOCALHOST.into(), port))?;
            let udp4 = udp(Ipv4Addr::LOCALHOST.into(), port)?;
            let udp6 = optional(udp(Ipv6Addr::LOCALHOST.into(), port))?;
            Ok((tcp4, tcp6, udp4, udp6, port))
        })?;
        let ports = Ports { intercept, dns };
        Ok(Self {
            intercept_v4,
            intercept_v6,
            dns_tcp_v4,
            dns_tcp_v6,
            dns_udp_v4,
            dns_udp_v6,
            ports,
        })
    }

    /// Keeps the kernel from giving these ports to a socket that asks for any port, even after
    /// egret has closed them. The bind hook refuses those that ask by number, so a failure
    /// (a read-only /proc/sys) costs nothing while the hooks are attached.
    fn reserve_ports(&self) {
        let ports = format!("{},{}", self.ports.intercept, self.ports.dns);
        if let Err(error) = std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", ports) {
            tracing::debug!(%error, "the interceptor's ports are not reserved");
        }
    }

    /// The port numbers, for the kernel's map of listeners.
    pub fn ports(&self) -> Ports {
        self.ports
    }
}

/// Tries again while another socket has the port in the other family or protocol.
fn retry<T>(mut open: impl FnMut() -> Result<T, ListenerError>) -> Result<T, ListenerError> {
    for _ in 1..ATTEMPTS {
        match open() {
            Err(ListenerError::Open { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    open()
}

/// A missing address family is not an error: what does not exist carries no traffic.
fn optional<T>(socket: Result<T, ListenerError>) -> Result<Option<T>, ListenerError> {
    match socket {
        Err(ListenerError::Open { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn port_of(address: io::Result<SocketAddr>) -> Result<u16, ListenerError> {
    address.map(|a| a.port()).map_err(|source| ListenerError::Open {
        address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        source,
    })
}

fn tcp(ip: IpAddr, port: u16) -> Result<TcpListener, ListenerError> {
    let address = SocketAddr::new(ip, port);
    bound(address, SockType::Stream)
        .and_then(|fd| {
            listen(&fd, Backlog::new(BACKLOG)?)?;
            Ok(TcpListener::from(fd))
        })
        .map_err(|source| ListenerError::Open { address, source })
}

fn udp(ip: IpAddr, port: u16) -> Result<UdpSocket, ListenerError> {
    let address = SocketAddr::new(ip, port);
    bound(address, SockType::Datagram)
        .map(UdpSocket::from)
        .map_err(|source| ListenerError::Open { address, source })
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_and_protocols_share_their_port() {
        let l = Listeners::open_here().unwrap();
        let ports = l.ports();
        assert_ne!(ports.intercept, ports.dns);
        assert_eq!(l.intercept_v4.local_addr().unwrap().port(), ports.intercept);
        assert_eq!(l.dns_tcp_v4.local_addr().unwrap().port(), ports.dns);
        assert_eq!(l.dns_udp_v4.local_addr().unwrap().port(), ports.dns);
        for v6 in [&l.intercept_v6, &l.dns_tcp_v6].into_iter().flatten() {
            assert!(v6.local_addr().unwrap().ip().is_loopback());
        }
        // Non-blocking: nobody has connected, and accept says so instead of waiting.
        let idle = l.intercept_v4.accept().unwrap_err();
        assert_eq!(idle.kind(), io::ErrorKind::WouldBlock);
    }
}

//! Sockets that exist already: listing those of one network namespace, and destroying some
//! (sock_diag(7); SOCK_DESTROY since Linux 4.5, with CONFIG_INET_DIAG_DESTROY).
//!
//! A netlink socket belongs to the network namespace in which it is made: open a [`Diag`] on a thread
//! that is inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const INET_DIAG_CGROUP_ID: u16 = 21;

const HEADER: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID: usize = 48;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;

// TCP states of include/net/tcp_states.h; UDP has ESTABLISHED (connected) and CLOSE.
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// A dump that other sockets keep disturbing is begun anew this often.
const ATTEMPTS: usize = 16;

/// Why sockets cannot be listed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    #[error("the kernel does not list {0} sockets (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG)")]
    NotListed(&'static str),
    #[error(
        "the kernel cannot destroy {0} sockets (it was built without CONFIG_INET_DIAG_DESTROY)"
    )]
    NoDestroy(&'static str),
    #[error("the sockets changed faster than they could be listed")]
    Restless,
    #[error("sock_diag: {0}")]
    Io(#[from] io::Error),
}

/// The two that can be governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A socket as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub protocol: Protocol,
    /// 0 for a connection that nobody has accepted or everybody has closed.
    pub inode: u64,
    /// The group it was made in; None where the kernel does not say.
    pub cgroup: Option<u64>,
    family: u8,
    state: u8,
    id: [u8; ID],
}

impl Socket {
    /// It has no peer: it listens, or sends datagrams whose destinations the hooks see one by one.
    pub fn waits(&self) -> bool {
        self.state == LISTEN || self.state == CLOSE
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        let port = |at: usize| u16::from_be_bytes([self.id[at], self.id[at + 1]]);
        (port(0), port(2))
    }

    /// Source and destination address.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&self.id[at..at + 16]);
            if i32::from(self.family) == libc::AF_INET {
                return Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into();
            }
            IpAddr::from(bytes).to_canonical()
        };
        (address(4), address(20))
    }
}

/// An open line to the kernel's list of sockets.
#[derive(Debug)]
pub struct Diag {
    netlink: OwnedFd,
}

impl Diag {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The error of socket(2).
    pub fn open_here() -> Result<Self, DiagError> {
        let kind = SockProtocol::NetlinkSockDiag;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, kind)
            .map_err(io::Error::from)?;
        setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(5))
            .map_err(io::Error::from)?;
        Ok(Self { netlink })
    }

    /// Proves that sockets can be destroyed, by destroying one that does not exist.
    ///
    /// # Errors
    /// [`DiagError::NoDestroy`], or [`DiagError::NotListed`].
    pub fn probe(&self) -> Result<(), DiagError> {
        for protocol in Protocol::ALL {
            self.dump(protocol, libc::AF_INET as u8)?;
            let (family, state, id) = (libc::AF_INET as u8, CLOSE, [0; ID]);
            let none = Socket { protocol, inode: 0, cgroup: None, family, state, id };
            self.destroy(&none)?;
        }
        Ok(())
    }

    /// Every TCP and UDP socket of the namespace that is bound or connected, both families.
    /// TIME_WAIT, which only answers late packets, is left out.
    ///
    /// # Errors
    /// When the kernel cannot list them.
    pub fn sockets(&self) -> Result<Vec<Socket>, DiagError> {
        let mut all = Vec::new();
        for protocol in Protocol::ALL {
            for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
                all.extend(self.dump(protocol, family)?);
            }
        }
        Ok(all)
    }

    /// Aborts a connection: its peer gets a reset, and whoever waits on it ECONNABORTED. Answers
    /// false if it was gone. A datagram socket loses its peer and its port, and can be used again.
    ///
    /// # Errors
    /// [`DiagError::NoDestroy`]; EPERM without CAP_NET_ADMIN.
    pub fn destroy(&self, socket: &Socket) -> Result<bool, DiagError> {
        let body = request(socket.protocol, socket.family, &socket.id);
        self.send(SOCK_DESTROY, REQUEST | ACK, &body)?;
        let mut buffer = vec![0; 1 << 13];
        let n = self.receive(&mut buffer)?;
        let Some(Message { kind: NLMSG_ERROR, body, .. }) = messages(&buffer[..n]).next() else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        match errno(body) {
            Some(0) => Ok(true),
            Some(libc::ENOENT) => Ok(false),
            Some(libc::EOPNOTSUPP) => Err(DiagError::NoDestroy(socket.protocol.name())),
            Some(code) => Err(io::Error::from_raw_os_error(code).into()),
            None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }

    fn dump(&self, protocol: Protocol, family: u8) -> Result<Vec<Socket>, DiagError> {
        for _ in 0..ATTEMPTS {
            if let Some(sockets) = self.dump_once(protocol, family)? {
                return Ok(sockets);
            }
        }
        Err(DiagError::Restless)
    }

    /// None when the list changed while it was read, so that one may be missing.
    fn dump_once(&self, protocol: Protocol, family: u8) -> Result<Option<Vec<Socket>>, DiagError> {
        self.send(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, &request(protocol, family, &[0; ID]))?;
        let mut buffer = vec![0; 1 << 16];
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let n = self.receive(&mut buffer)?;
            for message in messages(&buffer[..n]) {
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    SOCK_DIAG_BY_FAMILY => match parse(protocol, message.body) {
                        Some(socket) => found.push(socket),
                        None => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                    },
                    NLMSG_DONE | NLMSG_ERROR => match errno(message.body) {
                        Some(0) => return Ok(whole.then_some(found)),
                        Some(libc::ENOENT) => return Err(DiagError::NotListed(protocol.name())),
                        Some(code) => return Err(io::Error::from_raw_os_error(code).into()),
                        None => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
                    },
                    _ => {}
                }
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let len = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(len.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence; port 0: the kernel
        message.extend(body);
        let to = NetlinkAddr::new(0, 0);
        sendto(self.netlink.as_raw_fd(), &message, &to, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match recv(self.netlink.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)? {
            n if n == 0 || n > buffer.len() => Err(io::ErrorKind::InvalidData.into()),
            n => Ok(n),
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(protocol: Protocol, family: u8, id: &[u8; ID]) -> Vec<u8> {
    let states = !(1_u32 << TIME_WAIT);
    let mut body = vec![family, protocol.number(), 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..length)?;
        let message = Message { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, body };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The number that ends a dump or acknowledges a request; 0 is success.
fn errno(body: &[u8]) -> Option<i32> {
    // An empty end of a dump is a good one.
    if body.is_empty() {
        return Some(0);
    }
    Some(i32::from_ne_bytes(body.get(..4)?.try_into().ok()?).saturating_neg())
}

fn parse(protocol: Protocol, body: &[u8]) -> Option<Socket> {
    let fixed = body.get(..MESSAGE)?;
    let mut socket = Socket {
        protocol,
        inode: u32_at(fixed, 68)?.into(),
        cgroup: None,
        family: fixed[0],
        state: fixed[1],
        id: fixed.get(4..4 + ID)?.try_into().ok()?,
    };
    let mut rest = &body[MESSAGE..];
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        if kind == INET_DIAG_CGROUP_ID {
            socket.cgroup = Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(socket)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        (body[0], body[1]) = (2, LISTEN);
        body[4..6].copy_from_slice(&443_u16.to_be_bytes());
        body[8..12].copy_from_slice(&[127, 0, 0, 1]);
        body[68..72].copy_from_slice(&77_u32.to_ne_bytes());
        body.extend(attributes);
        body
    }

    #[test]
    fn a_socket_is_read_with_its_group_and_nothing_short_is() {
        let mut attributes = vec![5, 0, 8, 0, 1, 0, 0, 0]; // another attribute, padded
        attributes.extend([12, 0, 21, 0]);
        attributes.extend(1234_u64.to_ne_bytes());
        let body = answer(&attributes);
        let socket = parse(Protocol::Tcp, &body).unwrap();
        assert_eq!((socket.inode, socket.cgroup, socket.ports()), (77, Some(1234), (443, 0)));
        assert!(socket.waits());
        let (own, peer) = socket.addresses();
        assert!(own.is_loopback() && peer.is_unspecified());
        for end in 0..MESSAGE {
            assert_eq!(parse(Protocol::Tcp, &body[..end]), None);
        }
        assert_eq!(parse(Protocol::Udp, &answer(&[])).unwrap().cgroup, None);
        // A length that points behind the end or before its own header.
        for bad in [[99, 0, 21, 0], [3, 0, 21, 0], [0, 0, 21, 0], [8, 0, 21, 0]] {
            assert_eq!(parse(Protocol::Tcp, &answer(&bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn messages_end_where_they_say() {
        let mut bytes = Vec::new();
        for body in [&[1_u8, 2, 3][..], &[], &[0; 8]] {
            let len = u32::try_from(HEADER + body.len()).unwrap();
            bytes.extend(len.to_ne_bytes());
            bytes.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let lengths: Vec<_> = messages(&bytes).map(|m| m.body.len()).collect();
        assert_eq!(lengths, [3, 0, 8]);
        assert_eq!(messages(&[255; 40]).count(), 0);
        assert_eq!(messages(&[0; 40]).count(), 0);
        assert_eq!(
            (errno(&[]), errno(&(-2_i32).to_ne_bytes()), errno(&[1])),
            (Some(0), Some(2), None)
        );
    }
}

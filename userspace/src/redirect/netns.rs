//! A private network namespace: nothing but loopback, so that nothing inside has a way out.
//!
//! `lo` gets two more addresses besides 127.0.0.1 and ::1. Without them glibc's `AI_ADDRCONFIG`
//! (the default of many clients) finds no configured family and drops answers, because it does
//! not count loopback addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::identify::NetnsCookie;
use crate::sys;

/// The IPv4 address of `lo` that resolv.conf names as nameserver. Of the range 198.18.0.0/15 from
/// which names get synthetic addresses, 198.18.0.0/24 is kept for such fixed uses.
pub const NAMESERVER_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The IPv6 address of `lo`; of fd65:6772:6574::/64, the first 256 addresses are kept.
pub const NAMESERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd65, 0x6772, 0x6574, 0, 0, 0, 0, 1);

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("cannot make a network namespace (it needs root): {0}")]
    Create(#[source] io::Error),
    #[error("cannot configure loopback in the new network namespace: {0}")]
    Loopback(#[source] io::Error),
    #[error("cannot enter the network namespace: {0}")]
    Enter(#[source] io::Error),
    #[error("cannot read the network namespace's cookie (Linux 5.14): {0}")]
    Cookie(#[source] io::Error),
}

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    cookie: NetnsCookie,
}

impl Netns {
    /// Makes a new namespace on a thread of its own, so that the caller stays where it is.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or before Linux 5.14.
    pub fn private() -> Result<Self, NetnsError> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Create(e.into()))?;
            let fd = own_namespace().map_err(NetnsError::Create)?;
            configure_loopback().map_err(NetnsError::Loopback)?;
            Ok(Self { fd, cookie: own_cookie()? })
        })
    }

    /// One that exists, from an open file of nsfs such as /proc/PID/ns/net.
    ///
    /// # Errors
    /// When it is no network namespace, or may not be entered.
    pub fn from_file(file: std::fs::File) -> Result<Self, NetnsError> {
        let fd = OwnedFd::from(file);
        let cookie = on_thread(|| {
            setns(&fd, CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Enter(e.into()))?;
            own_cookie()
        })?;
        Ok(Self { fd, cookie })
    }

    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// Before Linux 5.14.
    pub fn own() -> Result<Self, NetnsError> {
        let fd = own_namespace().map_err(NetnsError::Enter)?;
        Ok(Self { fd, cookie: own_cookie()? })
    }

    /// What the kernel programs call this namespace.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// Runs `f` on a thread inside the namespace. Sockets that it makes stay there for life.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|e| NetnsError::Enter(e.into()))?;
            Ok(f())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The namespace of the calling thread, as `cookie` names it.
///
/// # Errors
/// Before Linux 5.14.
pub fn own_cookie() -> Result<NetnsCookie, NetnsError> {
    let probe = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|e| NetnsError::Cookie(e.into()))?;
    sys::netns::cookie(&probe).map(NetnsCookie).map_err(NetnsError::Cookie)
}

fn own_namespace() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// Namespaces belong to threads: a thread that changes its own ends with the work.
fn on_thread<T: Send>(f: impl FnOnce() -> Result<T, NetnsError> + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The first interface of every namespace is its loopback.
const LOOPBACK_INDEX: u32 = 1;

fn configure_loopback() -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    request(&netlink, &message::link_up(LOOPBACK_INDEX))?;
    for address in [IpAddr::V4(NAMESERVER_V4), IpAddr::V6(NAMESERVER_V6)] {
        match request(&netlink, &message::add_address(LOOPBACK_INDEX, address)) {
            // A kernel without IPv6 has no IPv6 to configure and none to leak by.
            Err(e) if address.is_ipv6() && !ipv6_exists(&e) => {}
            other => other?,
        }
    }
    Ok(())
}

fn ipv6_exists(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EACCES))
}

/// Sends one request and waits for its acknowledgement.
fn request(netlink: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let fd = netlink.as_raw_fd();
    sendto(fd, bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let len = recv(fd, &mut answer, MsgFlags::empty())?;
    match message::acknowledged(&answer[..len]) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The three netlink messages needed (linux/netlink.h, linux/rtnetlink.h), as bytes.
mod message {
    use super::IpAddr;

    const NLMSG_ERROR: u16 = 2;
    const RTM_NEWLINK: u16 = 16;
    const RTM_NEWADDR: u16 = 20;
    const REQUEST_ACK: u16 = 1 | 4;
    const CREATE_EXCLUSIVE: u16 = 0x400 | 0x200;
    const IFF_UP: u32 = 1;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    const IFA_F_NODAD: u8 = 2;
    const SCOPE_UNIVERSE: u8 = 0;

    fn with_header(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(16 + body.len()).expect("a request of a few dozen bytes");
        let mut m = Vec::with_capacity(16 + body.len());
        m.extend(len.to_ne_bytes());
        m.extend(kind.to_ne_bytes());
        m.extend(flags.to_ne_bytes());
        m.extend(1_u32.to_ne_bytes()); // sequence
        m.extend(0_u32.to_ne_bytes()); // port: the kernel
        m.extend(body);
        m
    }

    pub(super) fn link_up(index: u32) -> Vec<u8> {
        let mut body = vec![0; 4]; // family, padding, type
        body.extend(index.to_ne_bytes());
        body.extend(IFF_UP.to_ne_bytes()); // flags
        body.extend(IFF_UP.to_ne_bytes()); // which flags change
        with_header(RTM_NEWLINK, REQUEST_ACK, &body)
    }

    pub(super) fn add_address(index: u32, address: IpAddr) -> Vec<u8> {
        let (family, bytes) = match address {
            IpAddr::V4(a) => (libc::AF_INET, a.octets().to_vec()),
            IpAddr::V6(a) => (libc::AF_INET6, a.octets().to_vec()),
        };
        let family = u8::try_from(family).expect("AF_INET and AF_INET6 are small");
        let bits = u8::try_from(bytes.len() * 8).expect("32 or 128");
        let mut body = vec![family, bits, IFA_F_NODAD, SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        for kind in [IFA_LOCAL, IFA_ADDRESS] {
            let len = u16::try_from(4 + bytes.len()).expect("8 or 20");
            body.extend(len.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(&bytes);
        }
        with_header(RTM_NEWADDR, REQUEST_ACK | CREATE_EXCLUSIVE, &body)
    }

    /// The errno of an acknowledgement (0: done); `None` when it is something else.
    pub(super) fn acknowledged(answer: &[u8]) -> Option<i32> {
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
        (kind == NLMSG_ERROR).then_some(code.saturating_neg())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn messages_have_the_lengths_they_claim_and_answers_are_read_strictly() {
            for m in [
                link_up(1),
                add_address(1, "198.18.0.1".parse().unwrap()),
                add_address(1, "::2".parse().unwrap()),
            ] {
                let claimed = u32::from_ne_bytes(m[..4].try_into().unwrap());
                assert_eq!(usize::try_from(claimed).unwrap(), m.len());
                assert_eq!(m.len() % 4, 0);
            }
            let refused = with_header(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes());
            assert_eq!(acknowledged(&refused), Some(1));
            let done = with_header(NLMSG_ERROR, 0, &0_i32.to_ne_bytes());
            assert_eq!(acknowledged(&done), Some(0));
            for short in 0..20 {
                assert_eq!(acknowledged(&done[..short]), None);
            }
            assert_eq!(acknowledged(&with_header(RTM_NEWADDR, 0, &[0; 4])), None);
        }
    }
}

//! Messages with at most one file descriptor over a Unix `SOCK_SEQPACKET` socket.

#![expect(unsafe_code, reason = "a received descriptor arrives as a bare integer")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// The longest message that [`receive`] takes.
const MAX: usize = 16 * 1024;

/// A connected pair of packet sockets, close-on-exec.
///
/// # Errors
/// The error of `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends one message.
///
/// # Errors
/// The error of `sendmsg(2)`; never raises SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let raw = fd.map(|f| [f.as_raw_fd()]);
    let control: Vec<ControlMessage<'_>> =
        raw.iter().map(|r| ControlMessage::ScmRights(r)).collect();
    let iov = [IoSlice::new(bytes)];
    loop {
        match sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &iov,
            &control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

/// Receives one message; `None` at the end (the peer is gone).
///
/// # Errors
/// The error of `recvmsg(2)`, or `InvalidData` for a message that is too long.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MAX];
    let mut space = cmsg_space!([i32; 1]);
    let (len, fd) = {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            match recvmsg::<()>(
                socket.as_fd().as_raw_fd(),
                &mut iov,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut fd = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for raw in fds {
                    // SAFETY: the kernel has just installed this descriptor for us alone.
                    fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        (message.bytes, fd)
    };
    bytes.truncate(len);
    Ok((len > 0).then_some((bytes, fd)))
}

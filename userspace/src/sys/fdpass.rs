//! Messages with file descriptors over a Unix `SOCK_SEQPACKET` socket.

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

/// The most descriptors of one message.
pub const MAX_FDS: usize = 8;

/// Sends one message with at most one descriptor.
///
/// # Errors
/// The error of `sendmsg(2)`; never raises SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_all(socket, bytes, fd.as_slice())
}

/// Sends one message with at most [`MAX_FDS`] descriptors.
///
/// # Errors
/// The error of `sendmsg(2)`; never raises SIGPIPE.
pub fn send_all(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let iov = [IoSlice::new(bytes)];
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &iov, control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

/// Receives one message and the descriptor that came with it; `None` at the end (the peer is gone).
///
/// # Errors
/// The error of `recvmsg(2)`, or `InvalidData` for a message that is too long.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    Ok(receive_all(socket)?.map(|(bytes, mut fds)| (bytes, fds.pop())))
}

/// Receives one message and the descriptors that came with it, in their order; `None` at the end.
///
/// # Errors
/// The error of `recvmsg(2)`, or `InvalidData` for a message that is too long or has more than
/// [`MAX_FDS`] descriptors; those are closed.
pub fn receive_all(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX];
    let mut space = cmsg_space!([i32; MAX_FDS]);
    let (len, fds) = {
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
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for raw in numbers {
                    // SAFETY: the kernel has just installed this descriptor for us alone.
                    fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        (message.bytes, fds)
    };
    bytes.truncate(len);
    Ok((len > 0).then_some((bytes, fds)))
}

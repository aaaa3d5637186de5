//! One message of the control sockets: a value as JSON, and descriptors. What is too long for a
//! packet stands in a memory file that is passed as the first descriptor.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::sys::fdpass;

/// The longest JSON that goes into the packet itself.
const INLINE: usize = 8 * 1024;
/// The longest JSON of somebody who asks: a policy has at most 1 MiB, and so has each file that it
/// uses.
pub const ONE_POLICY: u64 = 16 << 20;
/// The longest JSON between the daemon's own processes: the policies of all agents.
pub const ALL_POLICIES: u64 = 1 << 30;

/// The first byte of a packet.
const HERE: u8 = 0;
const IN_FILE: u8 = 1;

/// Sends a value. The bytes may hold secrets, so no copy of them stays behind.
///
/// # Errors
/// When the peer is gone, or there are too many descriptors.
pub fn send<T: Serialize>(socket: impl AsFd, value: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let json = Zeroizing::new(serde_json::to_vec(value)?);
    if json.len() <= INLINE {
        let packet = Zeroizing::new([&[HERE], &json[..]].concat());
        return fdpass::send_all(socket, &packet, fds);
    }
    let mut file = File::from(memfd_create(c"egret-message", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&json)?;
    file.rewind()?;
    let all: Vec<BorrowedFd<'_>> =
        std::iter::once(file.as_fd()).chain(fds.iter().copied()).collect();
    fdpass::send_all(socket, &[IN_FILE], &all)
}

/// Receives a value of at most `longest` bytes and the descriptors that came with it; `None` when
/// the peer is gone.
///
/// # Errors
/// `InvalidData` for anything that is not such a message; the error of `recvmsg(2)`.
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    longest: u64,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some((packet, mut fds)) = fdpass::receive_all(socket)? else { return Ok(None) };
    let packet = Zeroizing::new(packet);
    let value = match packet.split_first() {
        Some((&HERE, json)) => serde_json::from_slice(json)?,
        Some((&IN_FILE, [])) if !fds.is_empty() => from_file(fds.remove(0), longest)?,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Some((value, fds)))
}

fn from_file<T: DeserializeOwned>(fd: OwnedFd, longest: u64) -> io::Result<T> {
    let mut json = Zeroizing::new(Vec::new());
    let file = File::from(fd);
    // Anything that can be waited for (a pipe, a file of FUSE) would let the peer hold this thread.
    let in_memory = fstatfs(&file)?.filesystem_type() == TMPFS_MAGIC;
    if !in_memory || !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let read = file.take(longest + 1).read_to_end(&mut json)?;
    if u64::try_from(read).is_ok_and(|n| n > longest) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn short_and_long_values_cross_with_their_descriptors() {
        let (a, b) = fdpass::pair().unwrap();
        for length in [0, INLINE - 2, INLINE, 1 << 20] {
            let text = "x".repeat(length);
            send(&a, &text, &[a.as_fd(), b.as_fd()]).unwrap();
            let (back, fds): (String, _) = receive(&b, ONE_POLICY).unwrap().unwrap();
            assert_eq!((back == text, fds.len()), (true, 2), "{length}");
            assert!(fds.iter().all(|fd| fd.as_raw_fd() > 2));
        }
        drop(a);
        assert!(receive::<String>(&b, ONE_POLICY).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error_and_no_panic() {
        let (a, b) = fdpass::pair().unwrap();
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let on_disk = File::open("/proc/self/exe").unwrap();
        for (packet, fd) in [
            (&b"\x00{"[..], None),
            (b"\x02\"x\"", None),
            (b"\x01", None),
            (b"\x01x", None),
            (b"\x01", Some(pipe.as_fd())),
            (b"\x01", Some(on_disk.as_fd())),
        ] {
            fdpass::send(&a, packet, fd).unwrap();
            assert!(receive::<String>(&b, ONE_POLICY).is_err(), "{packet:?}");
        }
        send(&a, &"fine", &[]).unwrap();
        assert_eq!(receive::<String>(&b, ONE_POLICY).unwrap().unwrap().0, "fine", "the control");
    }
}

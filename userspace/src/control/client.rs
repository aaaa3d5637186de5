//! The command line's end of the control socket.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::wire::{Answer, Request};
use super::{SOCKET, frame};

/// Why the daemon could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no daemon answers at {path} ({source}); start one with `systemctl start egret` or `egret daemon`, \
         or name its folder with --run"
    )]
    NoDaemon { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not yours to use: ask as root, or as a member of the daemon's group (usually `egret`)"
    )]
    NotAllowed { path: PathBuf },
    #[error("the daemon closed the connection; its log says why")]
    Closed,
    #[error("the daemon could not be asked: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Whether a daemon answers in this folder.
///
/// # Errors
/// When there is one that this user may not ask.
pub fn is_there(run: &Path) -> Result<bool, ClientError> {
    match dial(run) {
        Ok(_) => Ok(true),
        Err(error @ ClientError::NotAllowed { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

/// Asks one thing, and waits for the answer and the descriptors that come with it.
///
/// # Errors
/// When there is no daemon, it may not be asked, or it refused.
pub fn ask(
    run: &Path,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Answer, Vec<OwnedFd>), ClientError> {
    let socket = dial(run)?;
    frame::send(&socket, request, fds)?;
    match frame::receive::<Answer>(&socket, frame::ALL_POLICIES)? {
        Some((Answer::Refused(why), _)) => Err(ClientError::Refused(why)),
        Some(answer) => Ok(answer),
        None => Err(ClientError::Closed),
    }
}

fn dial(run: &Path) -> Result<OwnedFd, ClientError> {
    let path = run.join(SOCKET);
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(io::Error::from)?;
    let address = UnixAddr::new(&path).map_err(io::Error::from)?;
    connect(fd.as_raw_fd(), &address).map_err(|errno| {
        let source = io::Error::from(errno);
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
            _ => ClientError::NoDaemon { path, source },
        }
    })?;
    Ok(fd)
}

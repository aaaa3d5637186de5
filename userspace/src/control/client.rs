//! The command line's end of the control socket.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::wire::{Answer, Request};
use super::{SOCKET, frame};

/// How long an answer may take: longer than the changes that the daemon may be at, one after the
/// other.
const PATIENCE_SECONDS: i64 = 120;

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
    #[error(
        "the daemon does not answer; whether it did what was asked, `egret status` shows later"
    )]
    Silent,
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
    let patience = TimeVal::seconds(PATIENCE_SECONDS);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience).map_err(io::Error::from)?;
    setsockopt(&socket, sockopt::SendTimeout, &patience).map_err(io::Error::from)?;
    let asked = frame::send(&socket, request, fds);
    let hear = || frame::receive::<Answer>(&socket, frame::ALL_POLICIES);
    // One that refuses unheard has closed the connection, which comes before its answer.
    match hear().and_then(|heard| heard.map_or_else(hear, |answer| Ok(Some(answer)))) {
        Ok(Some((Answer::Refused(why), _))) => Err(ClientError::Refused(why)),
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(asked.err().map_or(ClientError::Closed, ClientError::Io)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(ClientError::Silent),
        Err(e) => Err(e.into()),
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

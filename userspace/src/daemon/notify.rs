//! What the service manager is told: sd_notify(3), one datagram each.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// As NOTIFY_SOCKET says. Without it everything here does nothing.
    pub(super) fn from_env() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").and_then(|name| connect(name.as_bytes()).ok()))
    }

    /// Sends the lines of a message, such as `READY=1`.
    pub(super) fn say(&self, message: &str) {
        if let Some((socket, to)) = &self.0
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }

    pub(super) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    pub(super) fn status(&self, status: &str) {
        self.say(&format!("STATUS={status}"));
    }
}

fn connect(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    Ok((UnixDatagram::unbound()?, address))
}

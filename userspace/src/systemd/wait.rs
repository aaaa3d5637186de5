//! `egret systemd wait`: what a held unit runs before anything of its own. It ends well when this
//! process is an agent whose connections are served, and not before.
//!
//! It asks the kernel by trying. A program on the cgroup refuses raw sockets to every agent, so a
//! raw socket that this process, which has the capability, can make says that nothing holds it.
//! Until the daemon has attached, a unit that is closed cannot make a TCP socket either. And a UDP
//! socket can be connected to port 53 of any address only where there is a listener to lead it to;
//! connecting sends nothing.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// What holds a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: its packets go where they like.
    Open,
    /// It is closed, and no agent yet.
    Closed,
    /// It is an agent in a network namespace without a listener.
    Unserved,
    /// It is an agent, and egret answers.
    Served,
}

/// Why the wait was given up.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    #[error("this process lacks CAP_NET_RAW, so it cannot find out whether anything holds it")]
    Blind,
    #[error("cannot find out what holds this process: {0}")]
    Io(#[from] io::Error),
    #[error(
        "after {0:?} the daemon has not attached to this unit: is egret.service running, and does \
         an [[agent]] of /etc/egret/egret.toml name this unit?"
    )]
    Closed(Duration),
    #[error(
        "after {0:?} nothing holds this unit, and it is not closed either: is egret.service running, \
         and does an [[agent]] of /etc/egret/egret.toml name this unit?"
    )]
    Open(Duration),
    #[error("after {0:?} egret has no listener in this unit's network namespace")]
    Unserved(Duration),
}

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Where the kernel programs lead every question for a name, whatever the address: this one is
/// reserved for documentation (RFC 5737).
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 53);

/// Returns when this process is held and served.
///
/// # Errors
/// After `limit`, with what was seen last.
pub fn until_served(limit: Duration) -> Result<(), WaitError> {
    if !may_make_raw_sockets()? {
        return Err(WaitError::Blind);
    }
    until(limit, look)
}

fn until(limit: Duration, look: impl Fn() -> io::Result<Held>) -> Result<(), WaitError> {
    let started = Instant::now();
    loop {
        let held = look()?;
        if held == Held::Served {
            return Ok(());
        }
        if started.elapsed() >= limit {
            return Err(match held {
                Held::Open => WaitError::Open(limit),
                Held::Closed => WaitError::Closed(limit),
                Held::Unserved | Held::Served => WaitError::Unserved(limit),
            });
        }
        sleep(PAUSE);
    }
}

/// What holds this process now. Sends nothing.
///
/// # Errors
/// When a socket fails for another reason than being refused.
pub fn look() -> io::Result<Held> {
    if !allowed(SockType::Stream, None)? {
        return Ok(Held::Closed);
    }
    if allowed(SockType::Raw, Some(SockProtocol::Icmp))? {
        return Ok(Held::Open);
    }
    let asking = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Refused, or no route to an address that was not replaced.
    Ok(if asking.connect(RESOLVER).is_ok() { Held::Served } else { Held::Unserved })
}

fn allowed(kind: SockType, protocol: Option<SockProtocol>) -> io::Result<bool> {
    match socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol) {
        Ok(_) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether this process has CAP_NET_RAW, so that a refusal is a program's.
fn may_make_raw_sockets() -> io::Result<bool> {
    const CAP_NET_RAW: u64 = 1 << 13;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let set = set.and_then(|s| u64::from_str_radix(s.trim(), 16).ok());
    Ok(set.is_some_and(|s| s & CAP_NET_RAW != 0))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_served_is_good_enough() {
        let short = Duration::from_millis(1);
        let last = |held| until(short, || Ok(held)).unwrap_err();
        assert!(matches!(last(Held::Open), WaitError::Open(_)));
        assert!(matches!(last(Held::Closed), WaitError::Closed(_)));
        assert!(matches!(last(Held::Unserved), WaitError::Unserved(_)));
        let looks = Cell::new(0);
        let in_turn = || {
            looks.set(looks.get() + 1);
            Ok([Held::Open, Held::Closed, Held::Unserved, Held::Served][looks.get() - 1])
        };
        until(Duration::from_secs(10), in_turn).unwrap();
        assert_eq!(looks.get(), 4);
    }

    /// This test runs in no agent.
    #[test]
    fn a_process_that_nothing_holds_knows() {
        if may_make_raw_sockets().unwrap() {
            assert_eq!(look().unwrap(), Held::Open);
        } else {
            let error = until_served(Duration::ZERO).unwrap_err();
            assert!(matches!(error, WaitError::Blind), "{error}");
        }
    }
}

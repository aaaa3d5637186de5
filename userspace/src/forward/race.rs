//! Several addresses, one connection (RFC 8305, "Happy Eyeballs"): the families take turns, an
//! attempt that is slow does not hold the next one up, the first success wins, and the others are
//! closed. Whatever is given here was checked before; nothing else is dialled.

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// When the next attempt begins, if the one before has neither succeeded nor failed.
pub const STAGGER: Duration = Duration::from_millis(250);

/// The most addresses of one name that are tried. The owner of a name may list thousands, and
/// egret must not knock on them all.
pub const MOST: usize = 16;

/// Why one attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// A reset in answer to the SYN, or a firewall that says so.
    Refused,
    /// No route, or a router that says so.
    Unreachable,
    /// Nothing came back in time.
    Silent,
    /// This side could not make or use a socket.
    Local,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted => {
                Self::Refused
            }
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                Self::Unreachable
            }
            // The host's own firewall, and a host without this family.
            Kind::PermissionDenied | Kind::AddrNotAvailable | Kind::Unsupported => {
                Self::Unreachable
            }
            Kind::TimedOut => Self::Silent,
            _ => Self::Local,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused the connection",
            Self::Unreachable => "cannot be reached from here",
            Self::Silent => "did not answer in time",
            Self::Local => "could not be tried, because egret got no socket",
        }
    }
}

/// No address could be connected to. Says why, and never which addresses there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached(BTreeSet<Failure>);

impl Unreached {
    /// Whether nothing at all was heard of any address.
    pub fn is_silence(&self) -> bool {
        self.0.iter().eq([&Failure::Silent])
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter().map(|failure| failure.words());
        match (all.next(), self.0.len()) {
            (Some(only), 1) => write!(f, "the upstream {only}"),
            (Some(first), _) => {
                write!(f, "some addresses of the upstream {first}")?;
                all.try_for_each(|words| write!(f, ", some {words}"))
            }
            (None, _) => f.write_str("the upstream has no address"),
        }
    }
}

impl std::error::Error for Unreached {}

/// Each address once, the families in turn (section 4), beginning with the family that the
/// resolver put first; at most [`MOST`].
pub fn in_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    let once: Vec<_> = addresses.iter().copied().filter(|a| seen.insert(*a)).collect();
    let Some(leads_v6) = once.first().map(SocketAddr::is_ipv6) else { return once };
    let (first, second): (Vec<SocketAddr>, Vec<_>) =
        once.iter().partition(|a| a.is_ipv6() == leads_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::with_capacity(once.len());
    while turns.len() < once.len() {
        turns.extend(first.next());
        turns.extend(second.next());
    }
    turns.truncate(MOST);
    turns
}

/// The first of `addresses` to which `connect` succeeds. An attempt begins `stagger` after the one
/// before it, or as soon as one has failed; at `until` all that are open are given up.
///
/// # Errors
/// When none succeeded.
pub async fn first<T, F>(
    addresses: &[SocketAddr],
    stagger: Duration,
    until: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Unreached>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = addresses.iter();
    let mut attempts = JoinSet::new(); // dropped with the losers, which closes their sockets
    let mut failures = BTreeSet::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(connect(*address));
        }
        if attempts.is_empty() {
            return Err(Unreached(failures));
        }
        let next_turn =
            async { if waiting.len() > 0 { sleep(stagger).await } else { pending().await } };
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => drop(failures.insert(Failure::of(&error))),
                Err(_) => drop(failures.insert(Failure::Local)), // it panicked
            },
            () = sleep_until(until) => {
                failures.insert(Failure::Silent);
                return Err(Unreached(failures));
            }
            () = next_turn => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn families_take_turns_and_each_address_has_one() {
        for (found, turns) in [
            (
                &["1.0.0.1:1", "1.0.0.2:1", "[2::1]:1"][..],
                &["1.0.0.1:1", "[2::1]:1", "1.0.0.2:1"][..],
            ),
            (&["[2::1]:1", "[2::2]:1", "1.0.0.1:1"], &["[2::1]:1", "1.0.0.1:1", "[2::2]:1"]),
            (&["1.0.0.1:1", "1.0.0.1:1", "1.0.0.2:1"], &["1.0.0.1:1", "1.0.0.2:1"]),
            (&[], &[]),
        ] {
            assert_eq!(in_turns(&addresses(found)), addresses(turns), "{found:?}");
        }
        let many: Vec<SocketAddr> =
            (0..5000).map(|n: u16| SocketAddr::new([10, 0, 0, 1].into(), n)).collect();
        assert_eq!(in_turns(&many), many[..MOST]);
    }

    /// 1: never answers; 2: answers; 3: refuses; 4: no route. Notes what was tried.
    async fn play(ports: &[u16], until: Instant) -> (Result<u16, Unreached>, Vec<u16>) {
        let list: Vec<_> =
            ports.iter().map(|p| SocketAddr::new([10, 0, 0, 1].into(), *p)).collect();
        let tried = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&tried);
        let connect = move |address: SocketAddr| {
            noted.lock().unwrap().push(address.port());
            async move {
                match address.port() {
                    1 => pending().await,
                    2 => Ok(address.port()),
                    3 => Err(io::ErrorKind::ConnectionRefused.into()),
                    _ => Err(io::ErrorKind::NetworkUnreachable.into()),
                }
            }
        };
        let won = first(&list, Duration::from_millis(1), until, connect).await;
        let tried = tried.lock().unwrap().clone();
        (won, tried)
    }

    #[tokio::test]
    async fn silence_and_refusals_do_not_hide_an_address_that_answers() {
        for ports in [&[2][..], &[1, 2], &[3, 2], &[4, 3, 1, 1, 2]] {
            let (won, tried) = play(ports, soon()).await;
            assert_eq!(won, Ok(2), "{ports:?}");
            assert_eq!(tried, ports, "in order, and nothing after the winner");
        }
        assert_eq!(play(&[2, 1, 3], soon()).await, (Ok(2), vec![2]), "the winner was the first");
    }

    #[tokio::test]
    async fn a_failure_brings_the_next_attempt_forward() {
        let list = addresses(&["10.0.0.1:3", "10.0.0.1:2"]);
        let connect = |address: SocketAddr| async move {
            if address.port() == 2 { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        // The stagger is longer than the whole time there is.
        let until = Instant::now() + Duration::from_secs(20);
        let won = first(&list, Duration::from_secs(3600), until, connect).await;
        assert_eq!(won, Ok(()));
    }

    #[tokio::test]
    async fn losers_are_closed() {
        let open = Arc::new(());
        let held = Arc::clone(&open);
        let connect = move |address: SocketAddr| {
            let socket = Arc::clone(&held);
            async move {
                if address.port() != 2 {
                    pending::<()>().await;
                }
                Ok(socket)
            }
        };
        let list = addresses(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:2"]);
        let won = first(&list, Duration::from_millis(1), soon(), connect).await.unwrap();
        for _ in 0..1000 {
            if Arc::strong_count(&won) == 2 {
                return; // the test's own and the winner's
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("a loser is still open");
    }

    #[tokio::test]
    async fn failures_say_what_happened_and_name_no_address() {
        let in_no_time = || Instant::now() + Duration::from_millis(50);
        for (ports, text, silence) in [
            (&[3][..], "the upstream refused the connection", false),
            (&[3, 3], "the upstream refused the connection", false),
            (&[4], "the upstream cannot be reached from here", false),
            (&[1], "the upstream did not answer in time", true),
            (
                &[3, 1],
                "some addresses of the upstream refused the connection, some did not answer in time",
                false,
            ),
            (&[], "the upstream has no address", false),
        ] {
            let error = play(ports, in_no_time()).await.0.unwrap_err();
            assert_eq!((error.to_string().as_str(), error.is_silence()), (text, silence));
        }
    }
}

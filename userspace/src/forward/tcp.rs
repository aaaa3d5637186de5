//! Opaque bytes, both ways, with half-close, counts, limits and an idle timeout.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::http::limits::Allowance;
use crate::outcome::Reason;

/// Bytes read at once in each direction.
const BUFFER: usize = 32 * 1024;

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub up: u64,
    pub down: u64,
    /// `None`: both sides closed in good order.
    pub reason: Option<Reason>,
}

impl Copied {
    /// It did not begin.
    pub fn aborted() -> Self {
        Self { up: 0, down: 0, reason: Some(Reason::Aborted) }
    }
}

enum Ended {
    Limit(Reason),
    Io,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// Copies until both directions are closed, one fails, a limit is reached, nothing has moved for
/// `idle`, or `end` says why it must end now.
pub async fn copy<A, U>(
    agent: A,
    upstream: U,
    allowance: Option<Allowance>,
    idle: Duration,
    end: impl Future<Output = Reason>,
) -> Copied
where
    A: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let (agent_read, agent_write) = split(agent);
    let (upstream_read, upstream_write) = split(upstream);
    let allowance = allowance.as_ref();
    let upward =
        pump(agent_read, upstream_write, &up, |n| allowance.map_or(Ok(()), |a| a.upload(n)));
    let downward =
        pump(upstream_read, agent_write, &down, |n| allowance.map_or(Ok(()), |a| a.download(n)));
    let both = async { tokio::try_join!(upward, downward) };
    let reason = tokio::select! {
        biased;
        reason = end => Some(reason),
        ended = both => match ended {
            Ok(_) => None,
            Err(Ended::Limit(reason)) => Some(reason),
            Err(Ended::Io) => Some(Reason::Aborted),
        },
        () = silence(&up, &down, idle) => Some(Reason::ClientTimeout),
    };
    Copied { up: up.into_inner(), down: down.into_inner(), reason }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    charge: impl Fn(u64) -> Result<(), Reason>,
) -> Result<(), Ended> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        charge(n as u64).map_err(Ended::Limit)?;
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        count.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Completes when neither count has changed for `idle` (checked every half of it).
async fn silence(up: &AtomicU64, down: &AtomicU64, idle: Duration) {
    let mut last = (0, 0);
    let mut quiet = 0;
    loop {
        tokio::time::sleep(idle / 2).await;
        let now = (up.load(Ordering::Relaxed), down.load(Ordering::Relaxed));
        quiet = if now == last { quiet + 1 } else { 0 };
        if quiet == 2 {
            return;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test]
    async fn half_close_is_passed_on() {
        let (mut agent, a) = tokio::io::duplex(64);
        let (u, mut upstream) = tokio::io::duplex(64);
        let copying = tokio::spawn(copy(a, u, None, Duration::from_secs(60), pending()));
        agent.write_all(b"question").await.unwrap();
        agent.shutdown().await.unwrap();
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        upstream.write_all(b"an answer after the end of the question").await.unwrap();
        upstream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        agent.read_to_end(&mut answer).await.unwrap();
        assert_eq!(copying.await.unwrap(), Copied { up: 8, down: 39, reason: None });
        assert_eq!(answer.len(), 39);
    }

    #[tokio::test]
    async fn silence_ends_it() {
        let (_agent, a) = tokio::io::duplex(64);
        let (u, _upstream) = tokio::io::duplex(64);
        let copied = copy(a, u, None, Duration::from_millis(20), pending()).await;
        assert_eq!(copied.reason, Some(Reason::ClientTimeout));
    }

    #[tokio::test]
    async fn it_can_be_ended_in_the_middle() {
        let (mut agent, a) = tokio::io::duplex(64);
        let (u, mut upstream) = tokio::io::duplex(64);
        let (tell, told) = tokio::sync::oneshot::channel();
        let end = async { told.await.unwrap() };
        let copying = tokio::spawn(copy(a, u, None, Duration::from_secs(60), end));
        agent.write_all(b"question").await.unwrap();
        upstream.read_exact(&mut [0; 8]).await.unwrap();
        tell.send(Reason::NoRule).unwrap();
        let copied = copying.await.unwrap();
        assert_eq!(copied, Copied { up: 8, down: 0, reason: Some(Reason::NoRule) });
        assert_eq!(agent.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(upstream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

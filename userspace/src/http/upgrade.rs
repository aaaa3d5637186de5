//! WebSocket and other upgrades over HTTP/1.1: forwarded like any request, and only after the
//! upstream's own 101 are bytes copied, both ways.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::limits::Allowance;
use crate::forward::tcp::{self, Copied};
use crate::inject::{ScrubIo, Scrubber};
use crate::outcome::Reason;

/// Puts back the two headers that ask for (or grant) an upgrade, after hop-by-hop headers were
/// stripped.
pub fn restore(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Whether an answer with `status` and `headers` grants the upgrade to `asked`, and nothing else.
pub fn granted(status: StatusCode, headers: &HeaderMap, asked: &HeaderValue) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS
        && headers
            .get(UPGRADE)
            .is_some_and(|got| got.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))
}

/// Waits for both sides to leave HTTP, then copies bytes until both directions are closed, or `end`
/// says why it must end now. With a scrubber, what comes back is cleaned, and `hits` counts the
/// copies of secrets that were masked.
pub async fn relay(
    agent: OnUpgrade,
    upstream: OnUpgrade,
    allowance: Option<Allowance>,
    idle: std::time::Duration,
    scrubber: Option<Arc<Scrubber>>,
    hits: Arc<AtomicU64>,
    end: impl Future<Output = Reason>,
) -> Copied {
    let mut end = pin!(end);
    let both = async { tokio::try_join!(agent, upstream) };
    let (agent, upstream) = tokio::select! {
        biased;
        reason = &mut end => return Copied { reason: Some(reason), ..Copied::aborted() },
        upgraded = both => match upgraded {
            Ok(upgraded) => upgraded,
            Err(_) => return Copied::aborted(),
        },
    };
    let (agent, upstream) = (TokioIo::new(agent), TokioIo::new(upstream));
    match scrubber {
        Some(scrubber) => {
            let upstream = ScrubIo::new(upstream, scrubber, hits);
            tcp::copy(agent, upstream, allowance, idle, end).await
        }
        None => tcp::copy(agent, upstream, allowance, idle, end).await,
    }
}

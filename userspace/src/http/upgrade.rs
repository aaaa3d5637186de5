//! WebSocket and other upgrades over HTTP/1.1: forwarded like any request, and only after the
//! upstream's own 101 are bytes copied, both ways.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::limits::Allowance;
use crate::forward::tcp::{self, Copied};

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

/// Waits for both sides to leave HTTP, then copies bytes until both directions are closed.
pub async fn relay(
    agent: OnUpgrade,
    upstream: OnUpgrade,
    allowance: Option<Allowance>,
    idle: std::time::Duration,
) -> Copied {
    match tokio::try_join!(agent, upstream) {
        Ok((agent, upstream)) => {
            tcp::copy(TokioIo::new(agent), TokioIo::new(upstream), allowance, idle).await
        }
        Err(_) => Copied::aborted(),
    }
}

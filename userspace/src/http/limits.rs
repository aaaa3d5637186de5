//! What rules allow in number and size, counted per agent and rule over the whole session.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::outcome::Reason;
use crate::policy::{Limits, Permit};

/// The window of `requests_per_minute`: no such window holds more requests than the limit.
const MINUTE: Duration = Duration::from_secs(60);

/// The accounts of one agent, by rule.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Arc<str>, Arc<Account>>>);

#[derive(Debug, Default)]
struct Account {
    recent: Mutex<VecDeque<Instant>>,
    up: AtomicU64,
    down: AtomicU64,
}

/// The right to use one rule once more; charges its account as bytes pass.
#[derive(Clone, Debug)]
pub struct Allowance {
    account: Arc<Account>,
    limits: Limits,
}

impl Ledger {
    /// Counts one use of the permit's rule, whose upload will have `upload` bytes as far as that
    /// is known. `None` where the rule has no limits.
    ///
    /// # Errors
    /// The limit that is used up.
    pub fn admit(
        &self,
        permit: &Permit,
        upload: Option<u64>,
        now: Instant,
    ) -> Result<Option<Allowance>, Reason> {
        let limits = permit.limits();
        match permit.rule() {
            Some(rule) if limits != Limits::default() => {
                self.enter(rule, limits, upload, now).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn enter(
        &self,
        rule: &Arc<str>,
        limits: Limits,
        upload: Option<u64>,
        now: Instant,
    ) -> Result<Allowance, Reason> {
        let account = {
            let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(accounts.entry(Arc::clone(rule)).or_default())
        };
        let used_up = |used: &AtomicU64, more: u64, limit: Option<u64>| {
            limit.is_some_and(|l| {
                let used = used.load(Ordering::Relaxed);
                used >= l || used.saturating_add(more) > l
            })
        };
        if used_up(&account.up, upload.unwrap_or(0), limits.upload) && upload != Some(0) {
            return Err(Reason::UploadLimit);
        }
        if used_up(&account.down, 0, limits.download) {
            return Err(Reason::DownloadLimit);
        }
        if let Some(most) = limits.requests_per_minute {
            account.count(most, now)?;
        }
        Ok(Allowance { account, limits })
    }
}

impl Account {
    fn count(&self, most: u32, now: Instant) -> Result<(), Reason> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        while recent.front().is_some_and(|t| now.saturating_duration_since(*t) >= MINUTE) {
            recent.pop_front();
        }
        if recent.len() >= most as usize {
            return Err(Reason::RequestLimit);
        }
        recent.push_back(now);
        Ok(())
    }
}

impl Allowance {
    /// Charges `n` bytes from the agent. They may pass only when this succeeds.
    pub fn upload(&self, n: u64) -> Result<(), Reason> {
        charge(&self.account.up, n, self.limits.upload).then_some(()).ok_or(Reason::UploadLimit)
    }

    /// Charges `n` bytes towards the agent. They may pass only when this succeeds.
    pub fn download(&self, n: u64) -> Result<(), Reason> {
        charge(&self.account.down, n, self.limits.download)
            .then_some(())
            .ok_or(Reason::DownloadLimit)
    }
}

fn charge(used: &AtomicU64, n: u64, limit: Option<u64>) -> bool {
    let Some(limit) = limit else { return true };
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| {
        u.checked_add(n).filter(|sum| *sum <= limit)
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { requests_per_minute: Some(2), upload: Some(10), download: Some(10) }
    }

    #[test]
    fn no_minute_holds_more_requests_than_allowed() {
        let ledger = Ledger::default();
        let rule: Arc<str> = "r".into();
        let start = Instant::now();
        let at = |s| ledger.enter(&rule, limits(), Some(0), start + Duration::from_secs(s)).err();
        assert_eq!(at(0), None);
        assert_eq!(at(30), None);
        assert_eq!(at(59), Some(Reason::RequestLimit));
        assert_eq!(at(60), None, "the first request left the window");
        assert_eq!(at(61), Some(Reason::RequestLimit));
        let other = ledger.enter(&"other".into(), limits(), Some(0), start);
        assert!(other.is_ok(), "each rule has its own account");
    }

    #[test]
    fn bytes_are_counted_over_requests_and_never_beyond() {
        let ledger = Ledger::default();
        let rule: Arc<str> = "r".into();
        let limits = Limits { requests_per_minute: None, ..limits() };
        let enter = |up| ledger.enter(&rule, limits, up, Instant::now());
        assert_eq!(enter(Some(11)).err(), Some(Reason::UploadLimit), "known to be too large");
        let first = enter(None).unwrap();
        assert!(first.upload(6).is_ok());
        assert_eq!(first.upload(5), Err(Reason::UploadLimit));
        assert!(first.upload(4).is_ok(), "what was refused was not charged");
        assert_eq!(enter(None).err(), Some(Reason::UploadLimit));
        let reading = enter(Some(0)).unwrap();
        assert!(reading.download(10).is_ok());
        assert_eq!(enter(Some(0)).err(), Some(Reason::DownloadLimit));
    }
}

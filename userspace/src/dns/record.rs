//! Which outcomes are recorded, and how often. A client asks for the same name hundreds of times
//! and a hostile one for a different name each time; the audit log must stay readable and small
//! in both cases, and still say that it happened.
//!
//! - A name that some rule could allow: once in the life of the recorder, which is the session's.
//! - A refusal: once per name and reason in [`REPEAT_AFTER`], and at most [`BURST`] at once and
//!   [`PER_SECOND`] each second for all names together. What this drops is counted, and the
//!   count stands in the next record and in [`Recorder::unrecorded`].
//! - Nothing decided (`localhost`, no data, reverse names): never.

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::answer::DnsOutcome;
use crate::outcome::{Decision, Reason};
use crate::policy::HostName;

/// A refusal of the same name for the same reason is recorded again after this time.
pub const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// How many refusals can be recorded at once.
pub const BURST: u32 = 200;

/// How many refusals a second can be recorded in the long run.
pub const PER_SECOND: u32 = 20;

/// How many recent refusals are remembered; older ones may be recorded again early.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// One record to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRecord<'a> {
    pub outcome: &'a DnsOutcome,
    /// Refusals that were dropped since the record before, because there were too many.
    pub dropped: u64,
}

/// Where records go. Called on the tasks that answer queries, so it must not block.
pub type Sink = Arc<dyn Fn(DnsRecord<'_>) + Send + Sync>;

/// Keeps the rules above for one agent's session.
pub struct Recorder {
    sink: Sink,
    state: Mutex<State>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    /// Bounded by the pool of names, which refuses to hold more.
    allowed: HashSet<HostName>,
    refused: LruCache<(String, Option<Reason>), Instant>,
    tokens: u32,
    refilled: Instant,
    dropped: u64,
}

impl Recorder {
    /// A recorder that has seen nothing.
    pub fn new(sink: Sink) -> Self {
        let state = State {
            allowed: HashSet::new(),
            refused: LruCache::new(REMEMBERED),
            tokens: BURST,
            refilled: Instant::now(),
            dropped: 0,
        };
        Self { sink, state: Mutex::new(state) }
    }

    /// Records `outcome` if the rules say so.
    pub fn record(&self, outcome: &DnsOutcome) {
        self.record_at(outcome, Instant::now());
    }

    /// Refusals dropped since the last record: for the session's last record.
    pub fn unrecorded(&self) -> u64 {
        self.lock().dropped
    }

    fn record_at(&self, outcome: &DnsOutcome, now: Instant) {
        let dropped = {
            let mut state = self.lock();
            if !state.admits(outcome, now) {
                return;
            }
            std::mem::take(&mut state.dropped)
        };
        (self.sink)(DnsRecord { outcome, dropped });
    }

    /// A poisoned lock only means that counting stopped half way; the rules still hold.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admits(&mut self, outcome: &DnsOutcome, now: Instant) -> bool {
        match outcome.decision {
            Decision::Note => false,
            Decision::Allow | Decision::Ask | Decision::WouldDeny => {
                outcome.host.as_ref().is_none_or(|host| self.allowed.insert(host.clone()))
            }
            Decision::Deny => self.admits_refusal(outcome, now),
        }
    }

    fn admits_refusal(&mut self, outcome: &DnsOutcome, now: Instant) -> bool {
        let key = (outcome.name.clone(), outcome.reason);
        let recent = |at: &Instant| now.saturating_duration_since(*at) < REPEAT_AFTER;
        if self.refused.get(&key).is_some_and(recent) {
            return false;
        }
        if !self.take_token(now) {
            self.dropped += 1;
            return false;
        }
        self.refused.put(key, now);
        true
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.tokens = self.tokens.saturating_add(more).min(BURST);
            self.refilled = now;
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Answered, Transport};
    use super::*;

    fn outcome(name: &str, decision: Decision) -> DnsOutcome {
        DnsOutcome {
            name: format!("{name}."),
            host: HostName::parse(name).ok(),
            qtype: "A".into(),
            transport: Transport::Udp,
            decision,
            reason: (decision == Decision::Deny).then_some(Reason::NameNotAllowed),
            answered: Answered::Synthetic,
        }
    }

    /// What the sink received: names and dropped counts.
    type Seen = Arc<Mutex<Vec<(String, u64)>>>;

    fn recorder() -> (Recorder, Seen) {
        let seen = Seen::default();
        let to = Arc::clone(&seen);
        let sink: Sink =
            Arc::new(move |r| to.lock().unwrap().push((r.outcome.name.clone(), r.dropped)));
        (Recorder::new(sink), seen)
    }

    #[test]
    fn allowed_once_refused_once_a_minute_notes_never() {
        let (recorder, seen) = recorder();
        let start = Instant::now();
        for seconds in [0, 1, 59, 60, 61, 200] {
            let now = start + Duration::from_secs(seconds);
            recorder.record_at(&outcome("allowed.example", Decision::Allow), now);
            recorder.record_at(&outcome("denied.example", Decision::Deny), now);
            recorder.record_at(&outcome("localhost", Decision::Note), now);
        }
        let count = |name: &str| seen.lock().unwrap().iter().filter(|(n, _)| n == name).count();
        assert_eq!(count("allowed.example."), 1);
        assert_eq!(count("denied.example."), 3, "at 0, 60 and 200 seconds");
        assert_eq!(count("localhost."), 0);
    }

    #[test]
    fn a_flood_of_refusals_is_bounded_and_counted() {
        let (recorder, seen) = recorder();
        let start = Instant::now();
        for i in 0..1000 {
            recorder.record_at(&outcome(&format!("n{i}.example"), Decision::Deny), start);
        }
        assert_eq!(seen.lock().unwrap().len(), BURST as usize);
        assert_eq!(recorder.unrecorded(), 800);
        recorder.record_at(&outcome("ok.example", Decision::Allow), start);
        assert_eq!(seen.lock().unwrap().last(), Some(&("ok.example.".into(), 800)), "control");

        let later = start + Duration::from_secs(2);
        for i in 0..100 {
            recorder.record_at(&outcome(&format!("m{i}.example"), Decision::Deny), later);
        }
        assert_eq!(seen.lock().unwrap().len(), (BURST + 1 + 2 * PER_SECOND) as usize);
    }
}

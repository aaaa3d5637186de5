//! A moment that two processes of one machine agree on.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// CLOCK_MONOTONIC in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Now; long ago where the clock cannot be read.
    pub(crate) fn now() -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        Self(since_boot.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether it is longer before `now` than this.
    pub(crate) fn is_older(self, now: Self, limit: Duration) -> bool {
        u128::from(now.0.saturating_sub(self.0)) > limit.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_too_long_is_old() {
        let limit = Duration::from_secs(3);
        for (sent, now, old) in [(0, 3000, false), (0, 3001, true), (5, 4, false)] {
            assert_eq!(Moment(sent).is_older(Moment(now), limit), old, "{sent} {now}");
        }
        assert!(!Moment::now().is_older(Moment::now(), limit));
    }
}

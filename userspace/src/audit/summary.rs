//! Pure: counts for the summary at the end of a session. Bounded: past [`HOSTS_MAX`] different
//! rows everything else is counted under one.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::{Event, Record};
use crate::outcome::{Decision, Reason};

/// More rows than this are counted together as `(other)`.
pub(super) const HOSTS_MAX: usize = 1000;

/// One row of the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// `-` when the destination is not known.
    pub host: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    pub count: u64,
}

/// What a session did, most frequent first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub allowed: Vec<SummaryRow>,
    /// Denied, or asked for and not granted.
    pub refused: Vec<SummaryRow>,
    /// Audit mode: passed, and would have been refused.
    pub would_deny: Vec<SummaryRow>,
    /// Allowed, and then it went wrong.
    pub failed: Vec<SummaryRow>,
}

impl Summary {
    /// Of any records.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut counters = Counters::default();
        records.into_iter().for_each(|r| counters.count(r));
        counters.summary()
    }

    /// The sum of a list's counts.
    pub fn total(rows: &[SummaryRow]) -> u64 {
        rows.iter().map(|r| r.count).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Column {
    Allowed,
    Refused,
    WouldDeny,
    Failed,
}

/// Counts records as they are written.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<(Column, Option<Reason>, Arc<str>), u64>);

impl Counters {
    pub(super) fn count(&mut self, r: &Record) {
        let Some(column) = column(r) else { return };
        let host = match r.destination.as_ref() {
            Some(d) => match (&d.host, d.ip) {
                (Some(host), _) => Arc::clone(host),
                (None, Some(ip)) => ip.to_string().into(),
                (None, None) => "-".into(),
            },
            None => "-".into(),
        };
        let mut key = (column, r.reason, host);
        if self.0.len() >= HOSTS_MAX && !self.0.contains_key(&key) {
            key.2 = "(other)".into();
        }
        *self.0.entry(key).or_default() += 1;
    }

    pub(super) fn summary(&self) -> Summary {
        let mut out = Summary::default();
        for ((column, reason, host), count) in &self.0 {
            let rows = match column {
                Column::Allowed => &mut out.allowed,
                Column::Refused => &mut out.refused,
                Column::WouldDeny => &mut out.would_deny,
                Column::Failed => &mut out.failed,
            };
            rows.push(SummaryRow { host: Arc::clone(host), reason: *reason, count: *count });
        }
        for rows in [&mut out.allowed, &mut out.refused, &mut out.would_deny, &mut out.failed] {
            rows.sort_by(|a, b| {
                b.count.cmp(&a.count).then_with(|| (&a.host, a.reason).cmp(&(&b.host, b.reason)))
            });
        }
        out
    }
}

/// A name that was answered is no egress, and one that no rule could allow is counted when it is
/// dialled; of DNS only what was refused for its own sake counts. UDP to a name is what resolvers
/// do to sort addresses and HTTP/3 clients before they fall back: in the log, not in the summary.
fn column(r: &Record) -> Option<Column> {
    let named = r.destination.as_ref().is_some_and(|d| d.host.is_some());
    match (r.event, r.reason) {
        (Event::Dns, None | Some(Reason::NameNotAllowed)) => return None,
        (Event::KernelDeny, Some(Reason::UdpRefused)) if named => return None,
        _ => {}
    }
    match r.decision {
        Decision::Allow => Some(Column::Allowed),
        Decision::Deny | Decision::Ask => Some(Column::Refused),
        Decision::WouldDeny => Some(Column::WouldDeny),
        Decision::Note if r.event == Event::Response && r.reason.is_some() => Some(Column::Failed),
        Decision::Note => None,
    }
}

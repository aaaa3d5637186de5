//! Pure: the sizes and times of `[http]` and the times of `[upstream]`, each within what makes
//! sense.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::Report;
use super::reader::{Reader, integer_of, text_of};
use super::units::{parse_duration, parse_size};
use crate::policy::{HttpSettings, UpstreamTimes};

const SECOND: Duration = Duration::from_secs(1);
const MINUTES: Duration = Duration::from_secs(60 * 60);
const DAYS: Duration = Duration::from_secs(7 * 24 * 3600);

const HTTP_KEYS: &[&str] = &[
    "head",
    "headers",
    "head_timeout",
    "body_timeout",
    "body_rate",
    "read_timeout",
    "streams",
    "resets",
    "idle_timeout",
];

/// The table `[http]`.
pub(super) fn http(top: &Reader<'_, '_>, report: &mut Report<'_>) -> HttpSettings {
    let Some(r) = top.table("http", report) else { return HttpSettings::default() };
    r.only("`http`", HTTP_KEYS, &[], report);
    let size = |n: u64| usize::try_from(n).ok();
    HttpSettings {
        // What clients send at the least, and what one head may hold of memory at the most.
        head: bytes(&r, "head", 4 << 10..=1 << 20, report).and_then(size),
        headers: number(&r, "headers", 16..=1000, report).and_then(size),
        head_timeout: time(&r, "head_timeout", SECOND..=MINUTES, report),
        body_timeout: time(&r, "body_timeout", SECOND..=DAYS, report),
        body_rate: bytes(&r, "body_rate", 1..=1 << 30, report),
        read_timeout: time(&r, "read_timeout", SECOND..=DAYS, report),
        streams: number(&r, "streams", 1..=1024, report).and_then(|n| u32::try_from(n).ok()),
        resets: number(&r, "resets", 1..=10_000, report).and_then(size),
        idle_timeout: time(&r, "idle_timeout", SECOND..=DAYS, report),
    }
}

/// The times of `[upstream]`, whose table `r` is.
pub(super) fn upstream_times(r: &Reader<'_, '_>, report: &mut Report<'_>) -> UpstreamTimes {
    UpstreamTimes {
        connect: time(r, "connect_timeout", SECOND..=MINUTES, report),
        tls: time(r, "tls_timeout", SECOND..=MINUTES, report),
        answer: time(r, "answer_timeout", SECOND..=DAYS, report),
        idle: time(r, "idle_timeout", SECOND..=DAYS, report),
    }
}

fn time(
    r: &Reader<'_, '_>,
    key: &str,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let (text, span) = text_of(r.get(key)?, &format!("`{key}`"), report)?;
    let time = parse_duration(text).map_err(|why| report.error(&span, why)).ok()?;
    if !range.contains(&time) {
        let (low, high) = (range.start().as_secs(), range.end().as_secs() / 3600);
        report.error(&span, format!("`{key}` must be from {low}s to {high}h"));
        return None;
    }
    Some(time)
}

fn bytes(
    r: &Reader<'_, '_>,
    key: &str,
    range: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let value = r.get(key)?;
    let Some(text) = value.get_ref().as_str() else {
        return integer_of(value, &format!("`{key}`"), range, report);
    };
    let size = parse_size(text).map_err(|why| report.error(&value.span(), why)).ok()?;
    if !range.contains(&size) {
        let (low, high) = (range.start(), range.end());
        report.error(&value.span(), format!("`{key}` must be from {low} to {high} bytes"));
        return None;
    }
    Some(size)
}

fn number(
    r: &Reader<'_, '_>,
    key: &str,
    range: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    integer_of(r.get(key)?, &format!("`{key}`"), range, report)
}

//! Pure: ranges of answers that might repeat a secret.
//!
//! A part of an answer can hold a part of a secret, which no search for the whole can find. So a
//! request whose answer is scrubbed may ask for one range only, and one that is longer than any
//! form of any secret: then a part of a secret can stand only at an edge of the answer, where the
//! scrubber masks it. Any other `Range` is removed, and the upstream answers in full, which HTTP
//! always allows.

use ::http::header::{self, HeaderMap, HeaderValue};

/// Ranges shorter than this many bytes are not asked for.
const SHORTEST: u64 = 1024;

/// Removes a `Range` that is not one long range; limits an answer to the rest to plain coding,
/// because a part of a compressed answer cannot be opened. `longest` is the length of the longest
/// form of a secret, in bytes.
pub(super) fn limit(headers: &mut HeaderMap, longest: usize) {
    if !headers.contains_key(header::RANGE) {
        return;
    }
    let least = SHORTEST.max(longest as u64);
    let mut values = headers.get_all(header::RANGE).iter();
    let fits = match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().is_ok_and(|text| is_long(text, least)),
        _ => false,
    };
    if fits {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    } else {
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
    }
}

/// Whether `text` is one `bytes` range of at least `least` bytes (or to the end).
fn is_long(text: &str, least: u64) -> bool {
    let Some((unit, range)) = text.split_once('=') else { return false };
    let Some((first, last)) = range.trim().split_once('-') else { return false };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
    let long = match (digits(first), digits(last)) {
        (Some::<u64>(first), Some::<u64>(last)) => {
            last.checked_sub(first).is_some_and(|n| n.saturating_add(1) >= least)
        }
        (Some(_), None) => last.is_empty(),
        (None, Some(suffix)) => first.is_empty() && suffix >= least,
        (None, None) => false,
    };
    unit.trim().eq_ignore_ascii_case("bytes") && long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (range, kept) in [
            ("bytes=0-", true),
            ("bytes=5000-", true),
            ("bytes=0-1023", true),
            ("bytes=0-2047", true),
            ("Bytes=-1024", true),
            ("bytes=0-1022", false),
            ("bytes=-1023", false),
            ("bytes=10-5", false),
            ("bytes=0-0,5-9999", false),
            ("bytes=0-9999,20000-", false),
            ("bytes=-", false),
            ("bytes=", false),
            ("bytes", false),
            ("lines=0-", false),
            ("bytes=+1-99999", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            headers.insert(header::IF_RANGE, "\"x\"".parse().unwrap());
            limit(&mut headers, 100);
            assert_eq!(headers.contains_key(header::RANGE), kept, "{range}");
            assert_eq!(headers.contains_key(header::IF_RANGE), kept, "{range}");
        }
    }

    #[test]
    fn a_long_secret_raises_the_limit() {
        for (longest, kept) in [(2048, true), (2049, false)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, "bytes=0-2047".parse().unwrap());
            limit(&mut headers, longest);
            assert_eq!(headers.contains_key(header::RANGE), kept, "{longest}");
        }
    }

    #[test]
    fn two_headers_are_not_one_range() {
        let mut headers = HeaderMap::new();
        headers.append(header::RANGE, "bytes=0-".parse().unwrap());
        headers.append(header::RANGE, "bytes=1-".parse().unwrap());
        limit(&mut headers, 100);
        assert!(headers.is_empty());
    }
}

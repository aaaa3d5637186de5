//! Pure: sizes and durations as people write them.

use std::time::Duration;

/// `10MiB`, `1GB`, `512`: whole bytes, KiB/MiB/GiB/TiB (1024) or kB/MB/GB/TB (1000).
///
/// # Errors
/// Says what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(bad_size(text)),
    };
    let number: u64 = number.parse().map_err(|_| bad_size(text))?;
    number.checked_mul(scale).ok_or_else(|| format!("`{text}` is too large"))
}

fn bad_size(text: &str) -> String {
    format!("`{}` is not a size; write for example 512KiB, 10MiB or 1GB", text.escape_debug())
}

/// `90s`, `2h`, `1h30m`, `500ms`, `7d`; never zero.
///
/// # Errors
/// Says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("`{}` is not a duration; write for example 30s, 15m or 2h", text.escape_debug());
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = split(rest);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = after;
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("10MiB", Some(10 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("1kB", Some(1000)),
            ("", None),
            ("MiB", None),
            ("10 MiB", None),
            ("1.5GB", None),
            ("-1", None),
            ("10mib", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("2h", Some(7200)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("7d", Some(604_800)),
            ("", None),
            ("0s", None),
            ("5", None),
            ("h", None),
            ("2 h", None),
            ("2hours", None),
            ("99999999999999999d", None),
        ] {
            assert_eq!(parse_duration(text).ok(), want.map(Duration::from_secs), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
    }
}

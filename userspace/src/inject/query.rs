//! Pure: one parameter of a query, with every other byte left as it is.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
pub(super) const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes bytes for any place in a URL.
pub(super) fn escape(bytes: &[u8]) -> String {
    percent_encoding::percent_encode(bytes, ESCAPED).to_string()
}

/// Percent-encodes a text for any place in a URL.
pub(super) fn escape_text(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The query without every parameter that is called `name`, however it was escaped.
///
/// Parameters end at `&`. The bytes of all others, and their order, stay.
pub(super) fn without(query: &str, name: &str) -> String {
    let kept: Vec<&str> = query.split('&').filter(|p| !is_called(p, name)).collect();
    kept.join("&")
}

/// `query` with `pair` at its end.
pub(super) fn with(query: &str, pair: &str) -> String {
    if query.is_empty() { pair.into() } else { format!("{query}&{pair}") }
}

fn is_called(parameter: &str, name: &str) -> bool {
    let written = parameter.split_once('=').map_or(parameter, |(n, _)| n);
    if written == name {
        return true;
    }
    if !written.contains(['%', '+']) {
        return false;
    }
    let spaced = written.replace('+', " ");
    percent_decode(spaced.as_bytes()).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_that_parameter_alone() {
        for (query, want) in [
            ("key=1", ""),
            ("key", ""),
            ("a=1&key=2&b=3", "a=1&b=3"),
            ("key=1&a=%20+&key=2&key", "a=%20+"),
            ("%6bey=1&a", "a"),
            ("k%65y=1&a", "a"),
            ("Key=1&xkey=2&key2=3&a=key", "Key=1&xkey=2&key2=3&a=key"),
            ("a&&b&", "a&&b&"),
            ("", ""),
            ("a=1;key=2", "a=1;key=2"),
            ("%zz=1&%=2&key%3D=1", "%zz=1&%=2&key%3D=1"),
        ] {
            assert_eq!(without(query, "key"), want, "{query}");
        }
        assert_eq!(without("api+key=1&api%20key=2&x", "api key"), "x");
    }

    #[test]
    fn appends() {
        assert_eq!(with("", "k=v"), "k=v");
        assert_eq!(with("a=%2f", "k=v"), "a=%2f&k=v");
        assert_eq!(escape(b"a b/+&=%~"), "a%20b%2F%2B%26%3D%25~");
    }
}

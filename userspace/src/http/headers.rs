//! Pure: the headers that belong to one hop and must not cross to the other.

use http::HeaderMap;
use http::header::{
    self, ALT_SVC, CONNECTION, EXPECT, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Headers that make some servers serve another path than the one that was decided on.
const OTHER_PATH: [HeaderName; 2] =
    [HeaderName::from_static("x-original-url"), HeaderName::from_static("x-rewrite-url")];

/// Names of RFC 9110 section 7.6.1 and their historic companions.
const HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

/// Whether any `Connection` header lists `token`, in any case.
pub fn connection_lists(headers: &HeaderMap, token: &str) -> bool {
    connection_tokens(headers).any(|t| t.eq_ignore_ascii_case(token))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

/// Removes what the agent said to egret only. Called before anything is injected, so that a
/// `Connection: authorization` of the agent cannot remove what egret attaches.
pub fn strip_request(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(|v| {
        v.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("trailers")))
    });
    strip_hop(headers);
    headers.remove(TE);
    headers.remove(EXPECT);
    for name in &OTHER_PATH {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes what the upstream said to egret only, and the invitation to another protocol.
pub fn strip_response(headers: &mut HeaderMap) {
    strip_hop(headers);
    headers.remove(ALT_SVC);
}

fn strip_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> =
            connection_tokens(headers).filter_map(|t| t.parse().ok()).collect();
        for name in named {
            // Framing and routing are not the peer's to remove.
            if name != header::HOST && name != header::CONTENT_LENGTH && name != TE {
                headers.remove(name);
            }
        }
    }
    for name in &HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (k, v) in pairs {
            map.append(*k, HeaderValue::from_static(v));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn requests_keep_end_to_end_headers_only() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Secret-Hop, host, TE"),
            ("connection", "keep-alive"),
            ("x-secret-hop", "1"),
            ("keep-alive", "5"),
            ("proxy-authorization", "x"),
            ("te", "gzip, Trailers"),
            ("expect", "100-continue"),
            ("x-original-url", "/admin"),
            ("accept", "*/*"),
        ]);
        assert!(connection_lists(&headers, "Close") && connection_lists(&headers, "keep-alive"));
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["host", "accept", "te"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn answers_lose_hop_headers_and_alt_svc() {
        let mut headers = map(&[
            ("alt-svc", "h3=\":443\""),
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("content-type", "text/plain"),
        ]);
        strip_response(&mut headers);
        assert_eq!(names(&headers), ["content-type"]);
    }
}

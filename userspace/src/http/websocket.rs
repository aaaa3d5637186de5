//! WebSocket over HTTP/2 (RFC 8441). An agent's extended CONNECT is the request for an upgrade that the
//! same client would have made over HTTP/1.1: a GET, decided on as such, and sent as such over an
//! HTTP/1.1 connection of its own. The upstream's 101 is the agent's 200.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use super::patience::Exchange;

/// What the upgrade is to.
pub const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Keeps an HTTP/2 connection from being taken for idle while one of its streams is a WebSocket.
#[derive(Clone, Debug)]
pub struct Held(#[expect(dead_code, reason = "kept to be dropped")] Arc<Exchange>);

impl Held {
    pub fn new(mut exchange: Exchange) -> Self {
        exchange.polled(true); // whoever it waits for, it is not the agent's window
        Self(Arc::new(exchange))
    }
}

/// A WebSocket that the agent opens by an extended CONNECT.
#[derive(Debug)]
pub struct Opening {
    key: HeaderValue,
    accept: HeaderValue,
    /// Until the WebSocket has ended.
    pub held: Option<Held>,
}

impl Opening {
    /// Reads one request: if it is such a CONNECT, it is a GET from now on.
    pub fn of(head: &mut Parts) -> Option<Self> {
        let held = head.extensions.remove::<Held>();
        let protocol = head.extensions.remove::<Protocol>();
        if head.version != Version::HTTP_2
            || head.method != Method::CONNECT
            || protocol.is_none_or(|p| p.as_str() != "websocket")
        {
            return None;
        }
        head.method = Method::GET;
        let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
        let accept = accept(&key);
        Some(Self {
            key: HeaderValue::try_from(key).ok()?,
            accept: HeaderValue::try_from(accept).ok()?,
            held,
        })
    }

    /// Writes what the handshake over HTTP/1.1 has besides.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        if !headers.contains_key(SEC_WEBSOCKET_VERSION) {
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
    }

    /// Whether the upstream has answered this handshake; takes that answer out.
    pub fn is_accepted(&self, headers: &mut HeaderMap) -> bool {
        headers.remove(SEC_WEBSOCKET_ACCEPT).is_some_and(|got| got == self.accept)
    }
}

fn accept(key: &str) -> String {
    let text = format!("{key}{GUID}");
    BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn the_example_of_rfc_6455() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_an_extended_connect_for_websocket_is_one() {
        let head = |method: Method, version, protocol: Option<&'static str>| {
            let request = Request::builder().method(method).version(version);
            let mut head = request.uri("https://a.test/x").body(()).unwrap().into_parts().0;
            if let Some(protocol) = protocol {
                head.extensions.insert(Protocol::from_static(protocol));
            }
            head
        };
        let websocket = Some("websocket");
        let mut good = head(Method::CONNECT, Version::HTTP_2, websocket);
        assert!(Opening::of(&mut good).is_some());
        assert_eq!(good.method, Method::GET);
        for mut other in [
            head(Method::CONNECT, Version::HTTP_2, None),
            head(Method::CONNECT, Version::HTTP_2, Some("connect-udp")),
            head(Method::CONNECT, Version::HTTP_11, websocket),
            head(Method::GET, Version::HTTP_2, websocket),
        ] {
            let before = other.method.clone();
            assert!(Opening::of(&mut other).is_none());
            assert_eq!(other.method, before);
        }
    }
}

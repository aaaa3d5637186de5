//! Tables, prefixes and properties of request heads.

use http::Uri;
use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 8 };

fn found(text: &[u8]) -> Head {
    match check(text, LIMITS) {
        Parsed::Found(head) => head,
        other => panic!("{}: {other:?}", text.escape_ascii()),
    }
}

/// `H` stands for a Host field with its end.
fn with_host(text: &str) -> Vec<u8> {
    text.replace("H;", "Host: api.test\r\n").into_bytes()
}

#[test]
fn well_formed_heads_and_their_framing() {
    use Framing::{Chunked, Length, None};
    let cases: &[(&str, Framing, bool)] = &[
        ("GET / HTTP/1.1\r\nH;\r\n", None, false),
        ("GET / HTTP/1.0\r\nH;\r\n", None, false),
        ("GET /a/../%2e%2e;x//b?q=../x HTTP/1.1\r\nH;\r\n", None, false),
        ("GET //a HTTP/1.1\r\nH;\r\n", None, false),
        ("OPTIONS * HTTP/1.1\r\nH;\r\n", None, false),
        ("M-SEARCH /{a|b}^ HTTP/1.1\r\nH;\r\n", None, false),
        ("GET http://API.test/x HTTP/1.1\r\nH;\r\n", None, false),
        ("GET https://api.test/ HTTP/1.1\r\nH;\r\n", None, false),
        ("POST / HTTP/1.1\r\nH;Content-Length: 12\r\n\r\n", Length(12), false),
        ("POST / HTTP/1.1\r\nH;content-length:0\r\n\r\n", None, false),
        ("POST / HTTP/1.1\r\nH;Transfer-Encoding: Chunked\r\n\r\n", Chunked, false),
        ("GET / HTTP/1.1\r\nH;Upgrade: websocket\r\n\r\n", None, true),
        ("CONNECT api.test:443 HTTP/1.1\r\nH;\r\n", None, true),
        ("GET / HTTP/1.1\r\nH;X: \t a\tb \u{e9} \r\nEmpty:\r\n\r\n", None, false),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n", None, false),
    ];
    for (text, framing, leaves_http) in cases {
        let text = with_host(text);
        let expected = Head { len: text.len(), framing: *framing, leaves_http: *leaves_http };
        assert_eq!(found(&text), expected, "{}", text.escape_ascii());
        let followed = [&text[..], b"GET"].concat();
        assert_eq!(found(&followed), expected, "what follows changes nothing");
    }
}

#[test]
fn every_prefix_of_a_head_needs_more() {
    let text = with_host(
        "POST http://api.test/a?b HTTP/1.1\r\nH;X-A: b\r\nContent-Length: 3\r\nUpgrade: x\r\n\r\n",
    );
    for n in 0..text.len() {
        assert_eq!(check(&text[..n], LIMITS), Parsed::NeedMore, "{n}");
    }
    found(&text);
}

#[test]
fn what_two_readers_could_read_differently_is_malformed() {
    let cases: &[&str] = &[
        // Lines and bytes.
        "GET / HTTP/1.1\nHost: api.test\n\n",
        "GET / HTTP/1.1\r\nHost: api.test\n\r\n",
        "GET / HTTP/1.1\r\nH;\n",
        "GET / HTTP/1.1\r\nH;X: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X: a\x0bb\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X: a\x7fb\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: api.test\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nH;\r\n",
        // Request line.
        "GET  / HTTP/1.1\r\nH;\r\n",
        "GET\t/ HTTP/1.1\r\nH;\r\n",
        " GET / HTTP/1.1\r\nH;\r\n",
        "GET / HTTP/1.1 \r\nH;\r\n",
        "GET /\r\n\r\n",
        "get / HTTP/1.1\r\nH;\r\n",
        "Get / HTTP/1.1\r\nH;\r\n",
        "- / HTTP/1.1\r\nH;\r\n",
        "G@T / HTTP/1.1\r\nH;\r\n",
        "GET / HTTP/1.2\r\nH;\r\n",
        "GET / HTTP/2.0\r\nH;\r\n",
        "GET / http/1.1\r\nH;\r\n",
        "GET / HTTP/1.10\r\nH;\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nH;\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // Target.
        "GET /a#b HTTP/1.1\r\nH;\r\n",
        "GET /a?b#c HTTP/1.1\r\nH;\r\n",
        "GET /a\\b HTTP/1.1\r\nH;\r\n",
        "GET /a\"b HTTP/1.1\r\nH;\r\n",
        "GET /<a> HTTP/1.1\r\nH;\r\n",
        "GET /\u{e9} HTTP/1.1\r\nH;\r\n",
        "GET a HTTP/1.1\r\nH;\r\n",
        "GET * HTTP/1.1\r\nH;\r\n",
        "GET ?a HTTP/1.1\r\nH;\r\n",
        "GET api.test:443 HTTP/1.1\r\nH;\r\n",
        "CONNECT / HTTP/1.1\r\nH;\r\n",
        "CONNECT api.test HTTP/1.1\r\nH;\r\n",
        "GET ftp://api.test/ HTTP/1.1\r\nH;\r\n",
        "GET HTTP://api.test/ HTTP/1.1\r\nH;\r\n",
        "GET http://api.test HTTP/1.1\r\nH;\r\n",
        "GET http://api.test?a HTTP/1.1\r\nH;\r\n",
        "GET http://other.test/ HTTP/1.1\r\nH;\r\n",
        "GET http://u@api.test/ HTTP/1.1\r\nHost: u@api.test\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nH;\r\n",
        // Fields.
        "GET / HTTP/1.1\r\nH;X : a\r\n\r\n",
        "GET / HTTP/1.1\r\nH;: a\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X\r\n\r\n",
        "GET / HTTP/1.1\r\nH;X(: a\r\n\r\n",
        "GET / HTTP/1.1\r\nH;a:\r\nb:\r\nc:\r\nd:\r\ne:\r\nf:\r\ng:\r\nh:\r\n\r\n",
        // Host.
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nH;H;\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@api.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test/\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: api.test:+1\r\n\r\n",
        // Framing.
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 3, 3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: +3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: -3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 0x3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 03\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 3 3\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content-Length: 18446744073709551617\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Content_Length: 3\r\n\r\n",
        "POST / HTTP/1.0\r\nH;Transfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: \"chunked\"\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding:\tchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding:\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        "POST / HTTP/1.1\r\nH;Transfer_Encoding: chunked\r\n\r\n",
        "CONNECT api.test:443 HTTP/1.1\r\nH;Content-Length: 3\r\n\r\n",
    ];
    for text in cases {
        let text = with_host(text);
        let got = check(&text, LIMITS);
        assert!(matches!(got, Parsed::Malformed(_)), "{}: {got:?}", text.escape_ascii());
    }
}

#[test]
fn length_and_number_are_bounded() {
    let text = with_host("GET / HTTP/1.1\r\nH;X-A: b\r\n\r\n");
    let exact = HeadLimits { bytes: text.len(), fields: 2 };
    assert!(matches!(check(&text, exact), Parsed::Found(_)), "control");
    for limits in [
        HeadLimits { bytes: text.len() - 1, ..exact },
        HeadLimits { fields: 1, ..exact },
        HeadLimits { bytes: 10, ..exact },
    ] {
        assert!(matches!(check(&text, limits), Parsed::Malformed(_)), "{limits:?}");
    }
    let endless = [b"GET /".to_vec(), vec![b'a'; 5000]].concat();
    assert!(matches!(check(&endless, LIMITS), Parsed::Malformed(_)));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(LONGEST_TARGET));
    let wide = HeadLimits { bytes: 1 << 20, fields: 8 };
    assert!(matches!(check(target.as_bytes(), wide), Parsed::Malformed(_)));
}

#[test]
fn every_accepted_target_byte_survives_the_uri_type() {
    for byte in (0..=255u8).filter(|b| is_target_byte(*b) && !matches!(b, b'#' | b'\\')) {
        let text = format!("/a{0}?b{0}", char::from(byte));
        let uri: Uri = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(uri.path_and_query().unwrap().as_str(), text);
    }
}

/// The head as httparse reads it, written again with one space after each colon.
fn rewritten(text: &[u8]) -> Vec<u8> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut fields);
    let length = request.parse(text).unwrap().unwrap();
    assert_eq!(length, text.len(), "both see the same end");
    let (method, target) = (request.method.unwrap(), request.path.unwrap());
    let version = request.version.unwrap();
    let mut out = format!("{method} {target} HTTP/1.{version}\r\n").into_bytes();
    for field in request.headers.iter() {
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The same by lines alone: only the white space around values is set.
fn normalised(text: &[u8]) -> Vec<u8> {
    let text = text.strip_suffix(b"\r\n\r\n").unwrap();
    let mut out = Vec::new();
    for (n, line) in text.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if n == 0 {
            out.extend_from_slice(line);
        } else {
            let (name, value) = field(line).unwrap();
            out.extend_from_slice(&[name, b": ", value].concat());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"Host: a.test\r\n".to_vec()),
        Just(b"Content-Length: 4\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b" ".to_vec()),
        Just(b":".to_vec()),
        "[A-Za-z-]{1,8}: ?[ -~\t]{0,12}\r\n".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

proptest! {
    #[test]
    fn a_found_head_is_read_identically_by_httparse(
        first in prop_oneof![
            "(GET|POST|M-SEARCH|OPTIONS) (/[!-~]{0,8}|\\*|http://a.test/) HTTP/1.[01]\r\n"
                .prop_map(String::into_bytes),
            piece()
        ],
        pieces in proptest::collection::vec(piece(), 0..6),
    ) {
        let text = [first, b"Host: a.test\r\n".to_vec(), pieces.concat(), b"\r\n".to_vec()].concat();
        if let Parsed::Found(head) = check(&text, LIMITS) {
            let text = &text[..head.len];
            prop_assert_eq!(rewritten(text), normalised(text));
            for n in 0..head.len {
                prop_assert_eq!(check(&text[..n], LIMITS), Parsed::NeedMore);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Parsed::Found(head) = check(&bytes, LIMITS) {
            prop_assert!(head.len <= bytes.len());
        }
    }
}

//! HTTP/1 as data: what two readers could understand differently, each beside the same with one reading.

/// What, the request, and the same well-formed. `H;` stands for a Host field with its end.
pub type Case<'a> = (&'a str, &'a str, &'a str);

pub const OK: &str = "GET / HTTP/1.1\r\nH;\r\n";
pub const LENGTH: &str = "POST / HTTP/1.1\r\nH;Content-Length: 3\r\n\r\nabc";
pub const CHUNKED: &str =
    "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

pub const FRAMING: &[Case<'_>] = &[
    (
        "length and chunked",
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED,
    ),
    (
        "chunked and length",
        "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        CHUNKED,
    ),
    (
        "equal lengths twice",
        "POST / HTTP/1.1\r\nH;Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        LENGTH,
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nH;Content-Length: 3, 3\r\n\r\nabc", LENGTH),
    ("a sign", "POST / HTTP/1.1\r\nH;Content-Length: +3\r\n\r\nabc", LENGTH),
    ("a zero in front", "POST / HTTP/1.1\r\nH;Content-Length: 03\r\n\r\nabc", LENGTH),
    ("overflow", "POST / HTTP/1.1\r\nH;Content-Length: 18446744073709551619\r\n\r\nabc", LENGTH),
    ("gzip", "POST / HTTP/1.1\r\nH;Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("unknown", "POST / HTTP/1.1\r\nH;Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("a tab", "POST / HTTP/1.1\r\nH;Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("a space", "POST / HTTP/1.1\r\nH;Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", CHUNKED),
    ("on 1.0", "POST / HTTP/1.0\r\nH;Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", CHUNKED),
];

pub const LINES: &[Case<'_>] = &[
    ("bare LF everywhere", "GET / HTTP/1.1\nHost: api.test\n\n", OK),
    ("bare LF in one line", "GET / HTTP/1.1\r\nHost: api.test\nX: y\r\n\r\n", OK),
    ("bare LF at the end", "GET / HTTP/1.1\r\nH;\n", OK),
    ("bare CR", "GET / HTTP/1.1\r\nH;X: a\rY: b\r\n\r\n", OK),
    ("folded", "GET / HTTP/1.1\r\nH;X: a\r\n b\r\n\r\n", OK),
    ("NUL", "GET / HTTP/1.1\r\nH;X: a\0b\r\n\r\n", OK),
    ("an empty line first", "\r\nGET / HTTP/1.1\r\nH;\r\n", OK),
    ("two spaces", "GET  / HTTP/1.1\r\nH;\r\n", OK),
    ("another version", "GET / HTTP/1.9\r\nH;\r\n", OK),
    ("no version", "GET /\r\n\r\n", OK),
];

pub const TARGETS: &[Case<'_>] = &[
    ("no Host", "GET / HTTP/1.1\r\n\r\n", OK),
    ("two Hosts", "GET / HTTP/1.1\r\nH;H;\r\n", OK),
    ("a list of Hosts", "GET / HTTP/1.1\r\nHost: api.test, api.test\r\n\r\n", OK),
    ("userinfo", "GET / HTTP/1.1\r\nHost: user@api.test\r\n\r\n", OK),
    (
        "another authority in the target",
        "GET http://other.test/ HTTP/1.1\r\nH;\r\n",
        "GET http://api.test/ HTTP/1.1\r\nH;\r\n",
    ),
    ("an authority alone", "GET api.test:80 HTTP/1.1\r\nH;\r\n", OK),
    ("a fragment", "GET /a#b HTTP/1.1\r\nH;\r\n", "GET /a%23b HTTP/1.1\r\nH;\r\n"),
    ("a backslash", "GET /a\\b HTTP/1.1\r\nH;\r\n", "GET /a%5Cb HTTP/1.1\r\nH;\r\n"),
    ("raw bytes", "GET /\u{e9} HTTP/1.1\r\nH;\r\n", "GET /%C3%A9 HTTP/1.1\r\nH;\r\n"),
    ("lower case", "get / HTTP/1.1\r\nH;\r\n", OK),
    ("mixed case", "Get / HTTP/1.1\r\nH;\r\n", OK),
    ("a PROXY preface", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nH;\r\n", OK),
    ("SOCKS 5", "\x05\x01\0\x05\x01\0\x01\0\0\0\0\0\x50", OK),
];

pub const CHUNKS: &[Case<'_>] = &[
    ("a prefix", "0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("a sign", "+3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n", "03\r\nabc\r\n0\r\n\r\n"),
    ("an extension", "3;a=b\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("a space", "3 \r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("bare LF", "3\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ("more than its size", "3\r\nabcd\r\n0\r\n\r\n", "4\r\nabcd\r\n0\r\n\r\n"),
    ("a length as trailer", "0\r\nContent-Length: 3\r\n\r\n", "0\r\nX-Sum: 3\r\n\r\n"),
    ("a Host as trailer", "0\r\nHost: other.test\r\n\r\n", "0\r\nX-Host: other.test\r\n\r\n"),
    ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n", "0\r\nX: a\r\n\r\n"),
];

//! What is sent: the admission table, request behind request, and mutations of both.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::cases::{CHUNKS, FRAMING, LINES, OK, TARGETS};

pub struct Sent {
    pub name: String,
    pub bytes: Vec<u8>,
}

fn bytes(request: &str) -> Vec<u8> {
    request.replace("H;", "Host: api.test\r\n").into_bytes()
}

fn sent(name: &str, request: &str) -> Sent {
    Sent { name: name.to_owned(), bytes: bytes(request) }
}

/// Every malformed request of the admission table.
pub fn malformed() -> Vec<Sent> {
    let mut all: Vec<Sent> = [FRAMING, LINES, TARGETS]
        .concat()
        .iter()
        .map(|(name, bad, _)| sent(name, &format!("{bad}GET /behind HTTP/1.1\r\nH;\r\n")))
        .collect();
    all.extend(CHUNKS.iter().map(|(name, bad, _)| {
        let head = "POST / HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n";
        sent(&format!("chunks: {name}"), &format!("{head}{bad}GET /behind HTTP/1.1\r\nH;\r\n"))
    }));
    all
}

/// Well-formed ones, alone and one behind the other, with odd but single readings.
pub fn well_formed() -> Vec<Sent> {
    let mut all: Vec<Sent> = [FRAMING, LINES, TARGETS]
        .concat()
        .iter()
        .map(|(name, _, good)| sent(&format!("control of {name}"), good))
        .collect();
    for target in [
        "/a/../b",
        "/%2e%2e/x",
        "//a//b/",
        "/a;x=1/..;/b",
        "/a%5cb?c=%5C&d=../e",
        "/%00%0d%0a",
        "/?",
        "/*",
    ] {
        all.push(sent(target, &format!("GET {target} HTTP/1.1\r\nH;\r\n")));
    }
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "M-SEARCH"]
    {
        let length = if method == "GET" || method == "HEAD" { "" } else { "Content-Length: 0\r\n" };
        all.push(sent(method, &format!("{method} /m HTTP/1.1\r\nH;{length}\r\n")));
    }
    let two = "POST /one HTTP/1.1\r\nH;Content-Length: 30\r\n\r\nGET /in HTTP/1.1\r\nHost: a.b\r\n\r\nGET /two HTTP/1.1\r\nH;\r\n";
    all.push(sent("a request as a body", &two.replace("30", "31")));
    all.push(sent(
        "a request as a chunk",
        "POST /one HTTP/1.1\r\nH;Transfer-Encoding: chunked\r\n\r\n1f\r\nGET /in HTTP/1.1\r\nHost: a.b\r\n\r\n\r\n0\r\n\r\nGET /two HTTP/1.1\r\nH;\r\n",
    ));
    all.push(sent(
        "three",
        &format!("{OK}GET /two HTTP/1.1\r\nH;\r\nGET /three HTTP/1.1\r\nH;\r\n"),
    ));
    for header in [
        "Connection: authorization",
        "Connection: close, host",
        "Connection: content-length",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: Host",
        "Proxy-Connection: keep-alive",
        "Expect: 100-continue",
    ] {
        all.push(sent(header, &format!("POST /h HTTP/1.1\r\nH;{header}\r\nContent-Length: 3\r\n\r\nabcGET /after HTTP/1.1\r\nH;\r\n")));
    }
    all
}

/// What is put in somewhere.
const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\x0b",
    "#",
    "\\",
    "%0d%0a",
    "0",
    "+",
    "-",
    "x",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "content-length:31\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Host: other.test\r\n",
    "0\r\n\r\n",
    "Connection: content-length\r\n",
    "GET /in HTTP/1.1\r\nHost: api.test\r\n\r\n",
    " HTTP/1.1",
    "chunked",
    "\u{e9}",
];

/// `count` mutations; the same ones for the same seed.
pub fn mutations(seed: u64, count: usize) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(seed);
    let base: Vec<Sent> = malformed().into_iter().chain(well_formed()).collect();
    (0..count)
        .map(|n| {
            let from = base.choose(&mut random).unwrap();
            let mut bytes = from.bytes.clone();
            for _ in 0..random.random_range(1..=3) {
                mutate(&mut bytes, &mut random);
            }
            Sent { name: format!("mutation {n} of {}", from.name), bytes }
        })
        .collect()
}

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..4) {
        0 => {
            let end = (at + random.random_range(1..=4)).min(bytes.len());
            bytes.drain(at..end);
        }
        1 => {
            // A line once more, behind itself.
            let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
            let end =
                bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n + 1);
            let line = bytes[start..end].to_vec();
            bytes.splice(end..end, line);
        }
        _ => {
            let piece = PIECES.choose(random).unwrap();
            bytes.splice(at..at, piece.bytes());
        }
    }
}

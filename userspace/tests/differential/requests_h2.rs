//! What is sent over HTTP/2: the admission table, several streams on one connection, and mutations of
//! fields and bodies.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::raw::{self, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame};
use super::requests::Sent;

type Fields = Vec<(String, String)>;

fn fields(method: &str, path: &str, more: &[(&str, &str)]) -> Fields {
    let pseudo =
        [(":method", method), (":scheme", "https"), (":authority", "api.test"), (":path", path)];
    pseudo.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// A request as one stream.
fn stream(id: u32, fields: &Fields, body: Option<&[u8]>) -> Vec<u8> {
    let borrowed: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let last = if body.is_none() { END_STREAM } else { 0 };
    let mut out = frame(HEADERS, END_HEADERS | last, id, &block(&borrowed));
    if let Some(body) = body {
        out.extend(frame(DATA, END_STREAM, id, body));
    }
    out
}

/// Every request of the admission table.
pub fn table() -> Vec<Sent> {
    let one = |(name, bytes, _): (&str, Vec<u8>, raw::End)| Sent { name: name.into(), bytes };
    raw::cases().into_iter().map(one).collect()
}

const SMUGGLED: &[u8] = b"0\r\n\r\nGET /in HTTP/1.1\r\nHost: api.test\r\n\r\n";

/// Well-formed ones whose parts would be dangerous in HTTP/1.
pub fn well_formed() -> Vec<Sent> {
    let mut all = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| all.push(Sent { name: name.to_owned(), bytes });
    for path in ["/a/../b", "/%2e%2e/x", "//a//b/", "/a;x=1/..;/b", "/a%5cb?c=%5C", "/%0d%0a", "/?"]
    {
        add(path, stream(1, &fields("GET", path, &[]), None));
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PURGE", "M-SEARCH"] {
        add(method, stream(1, &fields(method, "/m", &[]), None));
    }
    for header in [
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("te", "trailers"),
        ("trailer", "host"),
        ("expect", "100-continue"),
        ("cookie", "a=b"),
        ("x", ""),
        ("x", "GET /in HTTP/1.1"),
        ("x-forwarded-host", "other.test"),
    ] {
        add(header.0, stream(1, &fields("POST", "/h", &[header]), Some(b"abc")));
    }
    let length = SMUGGLED.len().to_string();
    let told = [("content-length", length.as_str())];
    add("a request as a body", stream(1, &fields("POST", "/b", &told), Some(SMUGGLED)));
    add("the same, its length untold", stream(1, &fields("POST", "/b", &[]), Some(SMUGGLED)));
    add("a GET with a body", stream(1, &fields("GET", "/b", &told), Some(SMUGGLED)));
    let mut many = Vec::new();
    for n in 0..20 {
        let path = format!("/many/{n}");
        let body = (n % 2 == 0).then_some(SMUGGLED);
        many.extend(stream(2 * n + 1, &fields("POST", &path, &[]), body));
    }
    add("twenty streams", many);
    let bad = fields("GET", "/bad#x\\", &[]);
    let both = [stream(1, &bad, None), stream(3, &fields("GET", "/good", &[]), None)].concat();
    add("a refused stream and an allowed one", both);
    all
}

const MORE: &[(&str, &str)] = &[
    ("content-length", "3"),
    ("content-length", "0"),
    ("content-length", "+3"),
    ("transfer-encoding", "chunked"),
    ("transfer_encoding", "chunked"),
    ("connection", "close"),
    ("host", "api.test"),
    ("host", "other.test"),
    (":path", "/twice"),
    (":authority", "other.test"),
    (":scheme", "http"),
    ("X-Upper", "1"),
    ("x y", "1"),
    ("x:y", "1"),
    ("", "1"),
    ("x\r\nhost", "other.test"),
    ("upgrade", "h2c"),
    ("te", "gzip"),
    ("expect", "x"),
];

const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\0",
    " ",
    "\t",
    "#",
    "\\",
    "@",
    ",",
    ":80",
    " HTTP/1.1\r\nHost: other.test\r\n\r\n",
    "http://other.test/",
    "?",
    "%0d%0a",
    "\u{e9}",
];

/// `count` mutations; the same ones for the same seed.
pub fn mutations(seed: u64, count: usize) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|n| {
            let method = *["GET", "POST", "HEAD"].choose(&mut random).unwrap();
            let mut fields = fields(method, "/mutated", &[("x-a", "b")]);
            for _ in 0..random.random_range(1..=2) {
                mutate(&mut fields, &mut random);
            }
            let body = (method == "POST").then_some(SMUGGLED);
            let mut bytes = stream(1, &fields, body);
            bytes.extend(stream(3, &self::fields("GET", "/behind", &[]), None));
            Sent { name: format!("mutation {n}: {fields:?}"), bytes }
        })
        .collect()
}

fn mutate(fields: &mut Fields, random: &mut StdRng) {
    let at = random.random_range(0..fields.len());
    match random.random_range(0..6) {
        0 => {
            fields.remove(at);
        }
        1 => fields.insert(at, fields[at].clone()),
        2 => {
            let last = fields.len() - 1;
            fields.swap(at, last);
        }
        3 | 4 => {
            let (name, value) = MORE.choose(random).unwrap();
            fields.insert(at, ((*name).to_owned(), (*value).to_owned()));
        }
        _ => {
            let value = &mut fields[at].1;
            let ends: Vec<_> = value.char_indices().map(|(i, _)| i).chain([value.len()]).collect();
            value.insert_str(*ends.choose(random).unwrap(), PIECES.choose(random).unwrap());
        }
    }
}

//! The byte-level check of HTTP/1 requests: it never panics, a part of a head is never taken for a
//! whole one, httparse reads the same method, target, version and fields in what it admits, and
//! chunks read alike however they are cut.
#![no_main]

use egret::http::chunked::Chunks;
use egret::http::head::{Framing, HeadLimits, Parsed, check};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };

fuzz_target!(|data: &[u8]| {
    if let Parsed::Found(head) = check(data, LIMITS) {
        let whole = &data[..head.len];
        for cut in 0..head.len {
            assert_eq!(check(&data[..cut], LIMITS), Parsed::NeedMore, "cut at {cut}");
        }
        assert_eq!(check(whole, LIMITS), Parsed::Found(head), "what follows changes nothing");
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(whole).expect("what is admitted parses");
        assert_eq!(parsed, httparse::Status::Complete(head.len));
        same(whole, &request, head.framing);
    }
    let whole = read_in_pieces(data, data.len().max(1));
    assert_eq!(read_in_pieces(data, 1), whole, "one byte at a time");
});

/// What httparse understood is what is written, and says the same of the body.
fn same(whole: &[u8], request: &httparse::Request<'_, '_>, framing: Framing) {
    let line = whole.split(|b| *b == b'\r').next().unwrap_or_default();
    let words = [
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
        if request.version == Some(1) { "HTTP/1.1" } else { "HTTP/1.0" },
    ];
    assert_eq!(words.join(" ").as_bytes(), line);
    let lines = whole.split(|b| *b == b'\n').count() - 3;
    assert_eq!(request.headers.len(), lines, "one field for each line");
    let of = |name: &str| -> Vec<&[u8]> {
        let fields = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        fields.map(|h| h.value).collect()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "{lengths:?} {codings:?}");
    assert_eq!(of("host").len(), 1);
    let length = |n: u64| {
        let text = lengths.first().map(|v| String::from_utf8_lossy(v).into_owned());
        text == (n > 0).then(|| n.to_string())
    };
    match framing {
        Framing::Chunked => {
            assert!(codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        Framing::Length(n) => assert!(n > 0 && length(n)),
        Framing::None => assert!(codings.is_empty() && lengths.iter().all(|l| *l == b"0")),
    }
}

/// How many bytes the body has, or that it is malformed; `None` while it goes on.
fn read_in_pieces(data: &[u8], piece: usize) -> Option<Result<usize, ()>> {
    let (mut chunks, mut used) = (Chunks::default(), 0);
    for part in data.chunks(piece) {
        match chunks.scan(part) {
            Ok(scanned) if scanned.done => return Some(Ok(used + scanned.used)),
            Ok(scanned) => used += scanned.used,
            Err(_) => return Some(Err(())),
        }
    }
    None
}

//! The byte-level check of HTTP/1 requests: it never panics, a part of a head is never taken for a
//! whole one, what it admits parses the same elsewhere, and chunks read alike however they are cut.
#![no_main]

use egret::http::chunked::Chunks;
use egret::http::head::{HeadLimits, Parsed, check};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };

fuzz_target!(|data: &[u8]| {
    if let Parsed::Found(head) = check(data, LIMITS) {
        let whole = &data[..head.len];
        for cut in 0..head.len {
            assert_eq!(check(&data[..cut], LIMITS), Parsed::NeedMore, "cut at {cut}");
        }
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut fields);
        let parsed = request.parse(whole).expect("what is admitted parses");
        assert_eq!(parsed, httparse::Status::Complete(head.len));
    }
    let whole = read_in_pieces(data, data.len().max(1));
    assert_eq!(read_in_pieces(data, 1), whole, "one byte at a time");
});

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

//! The first bytes of a connection, read as a TLS ClientHello: it never panics, what follows a
//! whole hello does not change it, a part of one is never taken for the whole, it reads alike
//! however it is spread over records, and rustls reads the same names in it.
#![no_main]

use std::io::Read as _;

use egret::policy::HostName;
use egret::tls::client_hello::{ClientHello, MAX_HELLO, Parsed, ServerName, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Half of the runs are given a good beginning, so that the fuzzer gets past the headers.
    let Some((&how, data)) = data.split_first() else { return };
    let bytes = if how & 1 == 0 { data.to_vec() } else { wrapped(data) };
    let first = parse(&bytes);

    let mut longer = bytes.clone();
    longer.extend_from_slice(b"more");
    match &first {
        Parsed::Found(hello) => {
            assert_eq!(parse(&longer), first);
            if let ServerName::Name(name) = &hello.server_name {
                assert!(name.as_str().parse() == Ok(name.clone()));
            }
            let part = &bytes[..bytes.len() * usize::from(how) / 256];
            if let Parsed::Found(of_part) = parse(part) {
                assert_eq!(
                    of_part, *hello,
                    "a part may only be the whole hello, less what follows"
                );
            }
            let pieces = 1 + usize::from(how) / 4 % 32;
            assert_eq!(parse(&spread(&bytes, pieces)), first, "in {pieces} records");
            like_rustls(&bytes, hello);
        }
        Parsed::NotTls | Parsed::Malformed(_) => {
            assert!(!matches!(parse(&longer), Parsed::Found(_)))
        }
        Parsed::NeedMore => assert!(bytes.len() <= 2 * MAX_HELLO, "reading is bounded"),
    }
});

/// Where rustls accepts the hello too, it reads the same name and protocols.
fn like_rustls(bytes: &[u8], hello: &ClientHello) {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest.by_ref().take(4096)) {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
    let Ok(Some(accepted)) = acceptor.accept() else { return };
    let theirs = accepted.client_hello();
    match (theirs.server_name(), &hello.server_name) {
        (Some(name), ServerName::Name(ours)) => {
            assert_eq!(HostName::parse(name).as_ref(), Ok(ours));
            let plain = name.to_ascii_lowercase();
            assert_eq!(plain.strip_suffix('.').unwrap_or(&plain), ours.as_str());
        }
        // A name for rustls that is none for egret is one that nothing allows.
        (Some(name), ServerName::Malformed) => assert!(HostName::parse(name).is_err(), "{name}"),
        (None, ServerName::Absent | ServerName::Malformed) => {}
        (theirs, ours) => panic!("rustls sees {theirs:?}, egret {ours:?}"),
    }
    let alpn: Vec<Vec<u8>> =
        theirs.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    assert_eq!(alpn, hello.alpn);
}

/// The handshake message of these records, spread over `pieces` others.
fn spread(bytes: &[u8], pieces: usize) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), bytes);
    while let [_, _, _, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        message.extend_from_slice(&after[..length]);
        rest = &after[length..];
        let whole = message.get(1..4).map(|n| {
            4 + (usize::from(n[0]) << 16 | usize::from(n[1]) << 8 | usize::from(n[2]))
        });
        if whole.is_some_and(|n| message.len() >= n) {
            break;
        }
    }
    let size = message.len().div_ceil(pieces).clamp(1, 1 << 14);
    let records = message.chunks(size).map(|part| {
        let length = u16::try_from(part.len()).expect("a record's length");
        [&[0x16, 3, 1][..], &length.to_be_bytes(), part].concat()
    });
    records.collect::<Vec<_>>().concat()
}

/// `data` as the extensions of a ClientHello that is otherwise in order.
fn wrapped(data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(8000)];
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]); // random
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]); // session id, ciphers, compression
    body.extend_from_slice(&length::<2>(data));
    body.extend_from_slice(data);
    let handshake = [&[1][..], &length::<3>(&body), &body].concat();
    [&[0x16, 3, 1][..], &length::<2>(&handshake), &handshake].concat()
}

fn length<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let all = bytes.len().to_be_bytes();
    std::array::from_fn(|i| all[all.len() - N + i])
}

//! The first bytes of a connection, read as a TLS ClientHello: it never panics, what follows a
//! whole hello does not change it, and a part of one is never taken for the whole.
#![no_main]

use egret::tls::client_hello::{MAX_HELLO, Parsed, ServerName, parse};
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
        }
        Parsed::NotTls | Parsed::Malformed(_) => {
            assert!(!matches!(parse(&longer), Parsed::Found(_)))
        }
        Parsed::NeedMore => assert!(bytes.len() <= 2 * MAX_HELLO, "reading is bounded"),
    }
});

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

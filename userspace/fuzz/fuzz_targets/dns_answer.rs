//! A DNS message from the agent: it never panics, an answer repeats the id and the question, fits
//! its transport, can be read, names no address but a synthetic or a loopback one, and the address
//! of a name is that name's and nobody else's.
#![no_main]

use std::sync::LazyLock;

use egret::dns::{Names, Transport, answer, is_synthetic};
use egret::outcome::Decision;
use egret::policy::{HostName, UnmatchedNames};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use libfuzzer_sys::fuzz_target;

/// `www.example` A IN, with EDNS: what the fuzzer writes over when it asks for a good start.
const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x01\0\x01\
    \0\0\x29\x04\xd0\0\0\0\0\0\0";

/// One pool for all runs: reuse and exhaustion of names are part of what is tested.
static NAMES: LazyLock<Names> = LazyLock::new(Names::new);

fn allowed(name: &HostName) -> bool {
    name.as_str().len() % 2 == 0
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let message = if how & 1 == 0 { data.to_vec() } else { over(QUERY, data) };
    let (transport, limit) =
        if how & 2 == 0 { (Transport::Udp, 1232) } else { (Transport::Tcp, 65_535) };
    let unmatched =
        if how & 4 == 0 { UnmatchedNames::Synthesize } else { UnmatchedNames::Nxdomain };
    let got = answer(&message, transport, &NAMES, &allowed, unmatched);

    assert_eq!(got.outcome.reason.is_some(), got.outcome.decision == Decision::Deny);
    assert!(got.outcome.name.bytes().all(|b| b.is_ascii_graphic()));
    let Some(reply) = got.bytes else { return };
    assert!(reply.len() <= limit);
    assert_eq!(reply[..2], message[..2]);
    let reply = Message::from_vec(&reply).expect("an answer that can be read");
    assert_eq!(reply.metadata.message_type, MessageType::Response);
    assert!(!reply.metadata.authentic_data && !reply.metadata.authoritative);
    assert!(reply.additionals.is_empty() && reply.answers.len() <= 1);
    let Some(question) = reply.queries.first() else {
        assert!(reply.answers.is_empty() && reply.response_code != ResponseCode::NoError);
        return;
    };
    let asked = Message::from_vec(&message).expect("what was answered can be read");
    assert_eq!(asked.queries, reply.queries, "the question is not the one that was asked");
    assert!(question.name().eq_case(asked.queries[0].name()));
    let Some(record) = reply.answers.first() else { return };
    assert!(!reply.metadata.truncation && record.name == *question.name());
    let Some(ip) = record.data.ip_addr() else { return };
    assert!(is_synthetic(ip) || ip.is_loopback(), "{ip}");
    if is_synthetic(ip) {
        let name = got.outcome.host.as_ref().expect("a name was answered");
        assert_eq!(NAMES.name_of(ip).as_ref(), Some(name));
        let spelt = question.name().to_lowercase().to_ascii();
        assert_eq!(spelt.strip_suffix('.').unwrap_or(&spelt), name.as_str());
        assert!(allowed(name) || unmatched == UnmatchedNames::Synthesize, "{name}");
    }
});

/// `base` with pairs of (position, byte) from `data` written over it, and the rest behind it.
fn over(base: &[u8], data: &[u8]) -> Vec<u8> {
    let mut message = base.to_vec();
    let (pairs, rest) = data.as_chunks::<2>();
    for &[at, byte] in pairs {
        match message.get_mut(usize::from(at)) {
            Some(place) => *place = byte,
            None => message.push(byte),
        }
    }
    message.extend_from_slice(rest);
    message
}

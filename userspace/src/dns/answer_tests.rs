//! Tables for [`super::answer`].

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use proptest::prelude::*;

use super::*;
use crate::dns::pool::{MAX_UNMATCHED, Pair};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn ask(name: &Name, qtype: RecordType) -> Message {
    let mut m = Message::new(7, MessageType::Query, OpCode::Query);
    m.add_query(Query::query(name.clone(), qtype));
    m
}

/// A world in which `*.allowed.example` and `single` are allowed.
fn run(names: &Names, message: &Message, unmatched: UnmatchedNames) -> (Message, DnsOutcome) {
    let allowed = |h: &HostName| h.as_str().ends_with(".allowed.example") || h.as_str() == "single";
    let bytes = message.to_vec().unwrap();
    let got = answer(&bytes, Transport::Udp, names, &allowed, unmatched);
    (Message::from_vec(&got.bytes.expect("an answer")).unwrap(), got.outcome)
}

fn synthesize(names: &Names, text: &str, qtype: RecordType) -> (Message, DnsOutcome) {
    run(names, &ask(&name(text), qtype), UnmatchedNames::Synthesize)
}

fn addresses(m: &Message) -> Vec<IpAddr> {
    m.answers.iter().filter_map(|r| r.data.ip_addr()).collect()
}

#[test]
fn an_allowed_name_gets_its_pair_in_both_families() {
    let names = Names::new();
    let (a, outcome) = synthesize(&names, "api.Allowed.example.", RecordType::A);
    let (aaaa, _) = synthesize(&names, "API.allowed.example.", RecordType::AAAA);
    let host = HostName::parse("api.allowed.example").unwrap();
    let Pair { v4, v6 } = names.pair_of(&host).unwrap();
    assert_eq!(addresses(&a), [IpAddr::V4(v4)]);
    assert_eq!(addresses(&aaaa), [IpAddr::V6(v6)]);
    let expected = DnsOutcome {
        name: "api.allowed.example.".into(),
        host: Some(host),
        qtype: "A".into(),
        transport: Transport::Udp,
        decision: Decision::Allow,
        reason: None,
        answered: Answered::Synthetic,
    };
    assert_eq!(outcome, expected);
}

#[test]
fn unmatched_names_follow_the_policy() {
    for (mode, code, answered, count) in [
        (UnmatchedNames::Synthesize, ResponseCode::NoError, Answered::Synthetic, 1),
        (UnmatchedNames::Nxdomain, ResponseCode::NXDomain, Answered::NoSuchName, 0),
    ] {
        let names = Names::new();
        let (m, o) = run(&names, &ask(&name("evil.example."), RecordType::A), mode);
        assert_eq!((m.response_code, o.answered), (code, answered));
        assert_eq!((o.decision, o.reason), (Decision::Deny, Some(Reason::NameNotAllowed)));
        assert_eq!((addresses(&m).len(), names.len()), (count, count), "{mode:?}");
        let (control, o) = run(&names, &ask(&name("x.allowed.example."), RecordType::A), mode);
        assert_eq!((addresses(&control).len(), o.decision), (1, Decision::Allow), "control");
    }
}

#[test]
fn each_type_has_its_answer() {
    use RecordType as T;
    let no_error = (ResponseCode::NoError, None);
    let refused = (ResponseCode::Refused, Some(Reason::DnsType));
    for (qtype, (code, reason), answers) in [
        (T::A, no_error, 1),
        (T::AAAA, no_error, 1),
        (T::HTTPS, no_error, 0),
        (T::SVCB, no_error, 0),
        (T::TXT, refused, 0),
        (T::NULL, refused, 0),
        (T::ANY, refused, 0),
        (T::MX, refused, 0),
        (T::SRV, refused, 0),
        (T::CNAME, refused, 0),
        (T::NS, refused, 0),
        (T::SOA, refused, 0),
        (T::CAA, refused, 0),
        (T::TLSA, refused, 0),
        (T::NAPTR, refused, 0),
        (T::DNSKEY, refused, 0),
        (T::AXFR, refused, 0),
        (T::IXFR, refused, 0),
        (T::Unknown(65_280), refused, 0),
    ] {
        let (m, o) = synthesize(&Names::new(), "x.allowed.example.", qtype);
        assert_eq!((m.response_code, o.reason), (code, reason), "{qtype}");
        assert_eq!(m.answers.len(), answers, "{qtype}");
        assert_eq!(o.reason.is_some(), o.decision == Decision::Deny, "{qtype}");
    }
}

#[test]
fn an_unknown_type_is_named_by_its_number() {
    let (_, o) = synthesize(&Names::new(), "x.example.", RecordType::Unknown(65_280));
    assert_eq!(o.qtype, "TYPE65280");
}

#[test]
fn other_classes_are_refused() {
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::Unknown(0x8001)] {
        let mut m = ask(&name("x.allowed.example."), RecordType::A);
        m.queries[0].set_query_class(class);
        let (m, o) = run(&Names::new(), &m, UnmatchedNames::Synthesize);
        assert_eq!(m.response_code, ResponseCode::Refused, "{class}");
        assert_eq!(o.reason, Some(Reason::DnsType));
    }
}

#[test]
fn odd_names_are_canonical_or_do_not_exist() {
    let exists = [
        ("single.", "single"),
        ("_dmarc.allowed.example.", "_dmarc.allowed.example"),
        ("a--b.allowed.example.", "a--b.allowed.example"),
        ("X.ALLOWED.EXAMPLE.", "x.allowed.example"),
        ("0xg.allowed.example.", "0xg.allowed.example"),
        ("1.2.3.4.allowed.example.", "1.2.3.4.allowed.example"),
        ("4com.", "4com"),
    ];
    for (asked, canonical) in exists {
        let (m, o) = synthesize(&Names::new(), asked, RecordType::A);
        assert_eq!(o.host, HostName::parse(canonical).ok(), "{asked}");
        assert_eq!(addresses(&m).len(), 1, "{asked}");
    }
    let labels: [&[&[u8]]; 11] = [
        &[b"a\0.allowed", b"example"],
        &[b"a.allowed", b"example"], // a dot inside a label
        &[b"a\n", b"allowed", b"example"],
        &[b"a b", b"allowed", b"example"],
        &[b"a\\", b"allowed", b"example"],
        &[b"\xc3\xbc", b"allowed", b"example"],
        &[b"*", b"allowed", b"example"],
        &[b"127", b"0", b"0", b"1"],
        &[b"0x7f000001"],
        &[b"2130706433"],
        &[b"0177", b"1"],
    ];
    for labels in labels {
        let odd = Name::from_labels(labels.iter().copied()).unwrap();
        let names = Names::new();
        let (m, o) = run(&names, &ask(&odd, RecordType::A), UnmatchedNames::Synthesize);
        assert_eq!(m.response_code, ResponseCode::NXDomain, "{odd}");
        assert_eq!(o.reason, Some(Reason::NameNotAllowed), "{odd}");
        assert!(o.host.is_none() && names.is_empty(), "{odd}");
        assert!(o.name.bytes().all(|b| b.is_ascii_graphic()), "{:?}", o.name);
    }
    let (root, _) = synthesize(&Names::new(), ".", RecordType::A);
    assert_eq!(root.response_code, ResponseCode::NXDomain);
}

#[test]
fn the_longest_names_have_addresses_and_lead_back() {
    let (l63, l56) = ("a".repeat(63), "b".repeat(56));
    let longest = format!("{l63}.{l63}.{l63}.{l56}.test");
    assert_eq!(longest.len(), 253);
    let labels = |text: &str| Name::from_labels(text.split('.').map(str::as_bytes)).unwrap();
    for text in [format!("{l63}.test"), longest.clone()] {
        let names = Names::new();
        let (a, o) = run(&names, &ask(&labels(&text), RecordType::A), UnmatchedNames::Synthesize);
        assert_eq!(o.host.as_ref().map(HostName::as_str), Some(&*text));
        let reverse = Name::from(addresses(&a)[0]);
        let (ptr, _) = run(&names, &ask(&reverse, RecordType::PTR), UnmatchedNames::Synthesize);
        assert_eq!(ptr.answers[0].data.to_string(), format!("{text}."));
        let (none, _) = run(&names, &ask(&labels(&text), RecordType::A), UnmatchedNames::Nxdomain);
        assert_eq!(none.response_code, ResponseCode::NXDomain, "control: the policy's word");
    }
    // The wire knows nothing longer: 64 is no length of a label, and 255 bytes are the most.
    let mut long = ask(&name("x.test."), RecordType::A).to_vec().unwrap();
    long.splice(12..13, [&[64][..], &[b'a'; 63]].concat());
    let refused = |bytes: &[u8]| {
        let names = Names::new();
        let got = answer(bytes, Transport::Tcp, &names, &|_| true, UnmatchedNames::Synthesize);
        assert!(names.is_empty());
        (Message::from_vec(&got.bytes.unwrap()).unwrap().response_code, got.outcome.reason)
    };
    let malformed = (ResponseCode::FormErr, Some(Reason::MalformedDns));
    assert_eq!(refused(&long), malformed);
    let whole = ask(&labels(&longest), RecordType::A).to_vec().unwrap();
    let mut longer = whole.clone();
    longer.splice(12..12, [1, b'x']); // 254 bytes as text
    assert_eq!(refused(&longer), malformed);
}

#[test]
fn internationalised_names_are_asked_for_in_their_ascii_form() {
    // A policy may be written in either form; see `HostPattern`. Only one is on the wire.
    let pattern = crate::policy::HostPattern::parse("*.b\u{fc}cher.example").unwrap();
    let allowed = |h: &HostName| pattern.matches_name(h);
    for (labels, exists) in [
        (&[&b"api"[..], b"xn--bcher-kva", b"example"][..], true),
        (&[b"API", b"XN--BCHER-KVA", b"example"], true),
        (&[b"api", b"b\xc3\xbccher", b"example"], false),
        (&[b"api", b"b\xfccher", b"example"], false),
        (&[b"api", b"bucher", b"example"], false),
    ] {
        let query = ask(&Name::from_labels(labels.iter().copied()).unwrap(), RecordType::A);
        let bytes = query.to_vec().unwrap();
        let names = Names::new();
        let got = answer(&bytes, Transport::Udp, &names, &allowed, UnmatchedNames::Nxdomain);
        let m = Message::from_vec(&got.bytes.unwrap()).unwrap();
        assert_eq!(m.response_code == ResponseCode::NoError, exists, "{labels:?}");
        assert_eq!(names.len(), usize::from(exists), "{labels:?}");
    }
}

/// An address is the answer itself, never a chain that leads to it.
#[test]
fn no_answer_has_an_alias() {
    for qtype in [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::ANY] {
        let (m, _) = synthesize(&Names::new(), "www.x.allowed.example.", qtype);
        assert!(m.answers.iter().all(|r| r.data.ip_addr().is_some()), "{qtype}");
        assert!(m.answers.iter().all(|r| r.name == m.queries[0].name().clone()), "{qtype}");
        assert!(m.additionals.is_empty());
    }
}

#[test]
fn names_that_must_not_exist_do_not_even_when_allowed() {
    let all = |_: &HostName| true;
    for (text, exists) in [
        ("use-application-dns.net.", false),
        ("ipv4only.arpa.", false),
        ("x.invalid.", false),
        ("abc.onion.", false),
        ("notinvalid.", true),
        ("an-onion.example.", true),
    ] {
        let bytes = ask(&name(text), RecordType::AAAA).to_vec().unwrap();
        let got = answer(&bytes, Transport::Tcp, &Names::new(), &all, UnmatchedNames::Synthesize);
        let m = Message::from_vec(&got.bytes.unwrap()).unwrap();
        assert_eq!(m.response_code == ResponseCode::NoError, exists, "{text}");
    }
}

#[test]
fn localhost_is_the_agents_own_and_holds_no_address() {
    let names = Names::new();
    for (text, qtype, ip) in [
        ("localhost.", RecordType::A, "127.0.0.1"),
        ("LocalHost.", RecordType::AAAA, "::1"),
        ("x.localhost.", RecordType::A, "127.0.0.1"),
    ] {
        let (m, o) = synthesize(&names, text, qtype);
        assert_eq!(addresses(&m), [ip.parse::<IpAddr>().unwrap()], "{text}");
        assert_eq!((o.decision, o.answered), (Decision::Note, Answered::Local));
    }
    let (m, _) = synthesize(&names, "notlocalhost.", RecordType::A);
    assert!(is_synthetic(addresses(&m)[0]), "control");
}

#[test]
fn reverse_names_lead_back_and_others_do_not_exist() {
    let names = Names::new();
    let (a, _) = synthesize(&names, "x.allowed.example.", RecordType::A);
    let (aaaa, _) = synthesize(&names, "x.allowed.example.", RecordType::AAAA);
    let v4 = addresses(&a)[0];
    for (ip, expected) in [
        (v4, Some("x.allowed.example.")),
        (addresses(&aaaa)[0], Some("x.allowed.example.")),
        ("127.0.0.1".parse().unwrap(), Some("localhost.")),
        ("::1".parse().unwrap(), Some("localhost.")),
        ("198.18.1.1".parse().unwrap(), None),
        ("198.18.0.1".parse().unwrap(), None),
        ("8.8.8.8".parse().unwrap(), None),
        ("10.0.0.1".parse().unwrap(), None),
    ] {
        let (m, o) = run(&names, &ask(&Name::from(ip), RecordType::PTR), UnmatchedNames::Nxdomain);
        let target = m.answers.first().map(|r| r.data.to_string());
        assert_eq!(target.as_deref(), expected, "{ip}");
        assert_eq!((m.response_code == ResponseCode::NoError), expected.is_some(), "{ip}");
        assert_eq!(o.decision, Decision::Note);
    }
    for text in ["18.198.in-addr.arpa.", "x.in-addr.arpa.", "example.", "256.0.0.127.in-addr.arpa."]
    {
        let (m, _) = synthesize(&names, text, RecordType::PTR);
        assert_eq!(m.response_code, ResponseCode::NXDomain, "{text}");
    }
}

#[test]
fn a_flood_of_names_fails_and_known_names_go_on() {
    let names = Names::new();
    synthesize(&names, "first.example.", RecordType::A);
    for i in 1..MAX_UNMATCHED {
        let host = HostName::parse(&format!("n{i}.example")).unwrap();
        names.assign(&host, Standing::Unmatched).unwrap();
    }
    let (m, o) = synthesize(&names, "one-more.example.", RecordType::A);
    assert_eq!(m.response_code, ResponseCode::ServFail);
    assert_eq!((o.reason, o.answered), (Some(Reason::Overloaded), Answered::Failed));
    for control in ["first.example.", "x.allowed.example."] {
        let (m, _) = synthesize(&names, control, RecordType::A);
        assert_eq!(addresses(&m).len(), 1, "{control}");
    }
}

#[test]
fn what_is_not_a_question_says_so_in_its_outcome() {
    let mut two = ask(&name("x.allowed.example."), RecordType::A);
    two.add_query(two.queries[0].clone());
    let (m, o) = run(&Names::new(), &two, UnmatchedNames::Synthesize);
    assert_eq!(m.response_code, ResponseCode::FormErr);
    assert_eq!((o.reason, o.answered), (Some(Reason::MalformedDns), Answered::Malformed));
    let silent =
        answer(b"short", Transport::Udp, &Names::new(), &|_| true, UnmatchedNames::Nxdomain);
    assert_eq!((silent.bytes, silent.outcome.answered), (None, Answered::Nothing));
}

/// A valid query with some of its bytes changed: deeper into the parser than random bytes get.
fn almost_a_query() -> impl Strategy<Value = Vec<u8>> {
    let label = "[a-zA-Z0-9_-]{1,20}";
    let changes = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6);
    (proptest::collection::vec(label, 1..6), any::<u16>(), changes).prop_map(|(ls, t, changes)| {
        let name = Name::from_labels(ls.iter().map(String::as_bytes)).unwrap();
        let mut m = ask(&name, RecordType::from(t));
        m.set_edns(hickory_proto::op::Edns::new());
        let mut bytes = m.to_vec().unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_answers_are_answers(
        bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), almost_a_query()],
        tcp in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let names = Names::new();
        let got = answer(&bytes, transport, &names, &|_| true, UnmatchedNames::Synthesize);
        prop_assert_eq!(got.outcome.reason.is_some(), got.outcome.decision == Decision::Deny);
        if let Some(reply) = got.bytes {
            prop_assert!(reply.len() <= 1232 || tcp);
            prop_assert_eq!(&reply[..2], &bytes[..2], "the id comes back");
            let m = Message::from_vec(&reply).unwrap();
            prop_assert_eq!(m.metadata.message_type, MessageType::Response);
            for ip in addresses(&m) {
                prop_assert!(is_synthetic(ip) || ip.is_loopback());
            }
        }
    }

    #[test]
    fn the_same_name_in_any_case_is_the_same_address(text in "[a-z]{1,10}(\\.[a-z]{2,8}){1,3}") {
        let names = Names::new();
        let (lower, _) = synthesize(&names, &format!("{text}."), RecordType::A);
        let upper = text.to_uppercase();
        let (upper, _) = synthesize(&names, &format!("{upper}."), RecordType::A);
        prop_assert_eq!(addresses(&lower), addresses(&upper));
    }
}

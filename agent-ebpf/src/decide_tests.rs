//! Tables for the verdicts: each refusal stands beside what passes.

use std::net::IpAddr;

use super::*;

const PORTS: ListenerPorts = ListenerPorts {
    tcp4: Port::new(1004),
    tcp6: Port::new(1006),
    dns_udp4: Port::new(5304),
    dns_udp6: Port::new(5306),
    dns_tcp4: Port::new(5314),
    dns_tcp6: Port::new(5316),
    pad: [0; 4],
};
const PRIVATE: AgentFlags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);
const SHARED: AgentFlags = AgentFlags::ACTIVE;
const TCP: u8 = IPPROTO_TCP;
const UDP: u8 = IPPROTO_UDP;

fn dial(protocol: u8, ip: &str, port: u16) -> Dial {
    let ip: IpAddr = ip.parse().unwrap();
    Dial { protocol, dst: ip.into(), port: Port::new(port) }
}

fn to(port: u16, v4: bool) -> Result<Route, Denied> {
    Ok(Route::Redirect { port: Port::new(port), v4 })
}

#[test]
fn only_tcp_and_udp_sockets_exist() {
    let cases = [
        ((2, 1, 6), true, "TCP over IPv4"),
        ((10, 1, 6), true, "TCP over IPv6"),
        ((2, 2, 17), true, "UDP over IPv4"),
        ((10, 2, 17), true, "UDP over IPv6"),
        ((2, 1, 262), false, "MPTCP"),
        ((2, 2, 136), false, "UDP-Lite"),
        ((2, 2, 1), false, "ping"),
        ((10, 2, 58), false, "ping over IPv6"),
        ((2, 3, 6), false, "raw TCP"),
        ((2, 3, 255), false, "raw"),
        ((2, 1, 132), false, "SCTP"),
        ((2, 5, 132), false, "SCTP seqpacket"),
        ((2, 6, 33), false, "DCCP"),
        ((2, 1, 17), false, "a stream of UDP"),
        ((17, 3, 6), false, "packet"),
        ((0, 0, 0), false, "all zero"),
        ((2, 1, 6 + 256), false, "a protocol whose low byte is TCP's"),
    ];
    for ((family, kind, protocol), allowed, what) in cases {
        assert_eq!(socket(family, kind, protocol).is_ok(), allowed, "{what}");
    }
}

#[test]
fn a_lease_ends() {
    let l = |beat, limit| Lease { beat, limit };
    for (now, given, alive) in [
        (100, l(100, 0), true),
        (110, l(100, 10), true),
        (111, l(100, 10), false),
        (99, l(100, 10), false), // from the future
        (0, l(0, 0), false),     // never heard from
        (5, l(0, u64::MAX), false),
        (u64::MAX, l(1, 10), false),
    ] {
        assert_eq!(lease(now, given).is_ok(), alive, "{now} {given:?}");
    }
}

#[test]
fn an_empty_agent_entry_denies() {
    let entry = |flags| AgentEntry { flags, pad: 0 };
    assert_eq!(agent(entry(AgentFlags(0))), Err(Denied::AgentUnknown));
    assert_eq!(agent(entry(AgentFlags::PRIVATE_NETNS)), Err(Denied::AgentUnknown));
    assert_eq!(agent(entry(PRIVATE)), Ok(PRIVATE));
}

#[test]
fn every_destination_has_one_route() {
    let cases = [
        // TCP to the world: to the interceptor of the same family.
        (dial(TCP, "1.2.3.4", 443), PRIVATE, to(1004, true)),
        (dial(TCP, "1.2.3.4", 443), SHARED, to(1004, true)),
        (dial(TCP, "::ffff:1.2.3.4", 443), PRIVATE, to(1004, true)),
        (dial(TCP, "2001:db8::1", 443), PRIVATE, to(1006, false)),
        (dial(TCP, "64:ff9b::102:304", 443), PRIVATE, to(1006, false)),
        (dial(TCP, "fe80::1", 22), PRIVATE, to(1006, false)),
        (dial(TCP, "1.2.3.4", 0), PRIVATE, to(1004, true)),
        (dial(TCP, "1.2.3.4", 1004), PRIVATE, to(1004, true)), // the port alone says nothing
        // Names: to the DNS server, whatever resolver was meant.
        (dial(UDP, "8.8.8.8", 53), PRIVATE, to(5304, true)),
        (dial(UDP, "2001:4860:4860::8888", 53), PRIVATE, to(5306, false)),
        (dial(TCP, "8.8.8.8", 53), PRIVATE, to(5314, true)),
        (dial(TCP, "::1", 53), PRIVATE, to(5316, false)),
        (dial(UDP, "127.0.0.53", 53), PRIVATE, to(5304, true)),
        (dial(UDP, "127.0.0.53", 53), SHARED, to(5304, true)),
        // Other UDP: refused at once, so that QUIC falls back.
        (dial(UDP, "1.2.3.4", 443), PRIVATE, Err(Denied::UdpRefused)),
        (dial(UDP, "224.0.0.251", 5353), PRIVATE, Err(Denied::UdpRefused)),
        (dial(UDP, "255.255.255.255", 67), PRIVATE, Err(Denied::UdpRefused)),
        (dial(UDP, "1.2.3.4", 0), PRIVATE, Err(Denied::UdpRefused)),
        // Loopback: the agent's own if nobody else is there.
        (dial(TCP, "127.0.0.1", 8080), PRIVATE, Ok(Route::Own)),
        (dial(TCP, "127.9.9.9", 8080), PRIVATE, Ok(Route::Own)),
        (dial(TCP, "0.0.0.0", 8080), PRIVATE, Ok(Route::Own)),
        (dial(TCP, "::", 8080), PRIVATE, Ok(Route::Own)),
        (dial(TCP, "::1", 8080), PRIVATE, Ok(Route::Own)),
        (dial(UDP, "::1", 8080), PRIVATE, Ok(Route::Own)),
        (dial(TCP, "127.0.0.1", 8080), SHARED, Ok(Route::Shared)),
        (dial(TCP, "::ffff:127.0.0.1", 8080), SHARED, Ok(Route::Shared)),
        (dial(UDP, "::1", 8080), SHARED, Ok(Route::Shared)),
        // The interceptor is never dialled by name.
        (dial(TCP, "127.0.0.1", 1004), PRIVATE, Err(Denied::InterceptorPort)),
        (dial(TCP, "127.0.0.2", 1006), PRIVATE, Err(Denied::InterceptorPort)),
        (dial(TCP, "::", 1006), PRIVATE, Err(Denied::InterceptorPort)),
        (dial(UDP, "127.0.0.1", 5304), PRIVATE, Err(Denied::InterceptorPort)),
        (dial(TCP, "0.0.0.0", 5314), SHARED, Err(Denied::InterceptorPort)),
        // Not a protocol that the hooks know.
        (dial(132, "1.2.3.4", 443), PRIVATE, Err(Denied::SocketFamily)),
        (dial(0, "127.0.0.1", 80), PRIVATE, Err(Denied::SocketFamily)),
    ];
    for (dial, agent, wanted) in cases {
        assert_eq!(route(dial, agent, PORTS), wanted, "{dial:?} {agent:?}");
    }
}

#[test]
fn without_a_listener_nothing_is_redirected() {
    let none = ListenerPorts::default();
    for d in [
        dial(TCP, "1.2.3.4", 443),
        dial(TCP, "2001:db8::1", 443),
        dial(UDP, "8.8.8.8", 53),
        dial(TCP, "8.8.8.8", 53),
    ] {
        assert_eq!(route(d, PRIVATE, none), Err(Denied::NoListener), "{d:?}");
    }
    // A namespace without IPv6 has only the IPv4 listener.
    let v4_only = ListenerPorts { tcp4: Port::new(1004), ..none };
    assert_eq!(route(dial(TCP, "1.2.3.4", 443), PRIVATE, v4_only), to(1004, true));
    assert_eq!(route(dial(TCP, "2001:db8::1", 443), PRIVATE, v4_only), Err(Denied::NoListener));
}

#[test]
fn a_taken_port_is_not_free() {
    assert_eq!(free(true), Err(Denied::InterceptorPort));
    assert_eq!(free(false), Ok(()));
}

#[test]
fn shared_loopback_is_for_own_sockets_and_opened_ports() {
    for (opened, owner, agent, passes) in [
        (false, 7, 7, true),
        (false, 8, 7, false),
        (false, 0, 7, false),
        (false, 0, 0, false),
        (true, 0, 7, true),
        (true, 8, 7, true),
    ] {
        let wanted = if passes { Ok(()) } else { Err(Denied::SharedLoopback) };
        assert_eq!(shared(opened, owner, agent), wanted, "{opened} {owner} {agent}");
    }
}

#[test]
fn what_others_see_is_bound_where_the_policy_says() {
    let cases = [
        ("127.0.0.1", 8080, Bind::Shared),
        ("127.8.8.8", 8080, Bind::Shared),
        ("::1", 8080, Bind::Shared),
        ("::ffff:127.0.0.1", 8080, Bind::Shared),
        ("0.0.0.0", 0, Bind::Shared),
        ("::", 0, Bind::Shared),
        ("10.0.0.5", 0, Bind::Shared),
        ("0.0.0.0", 8080, Bind::Seen),
        ("::", 8080, Bind::Seen),
        ("::ffff:0.0.0.0", 8080, Bind::Seen),
        ("10.0.0.5", 8080, Bind::Seen),
        ("fe80::1", 8080, Bind::Seen),
        ("224.0.0.251", 5353, Bind::Seen),
    ];
    for (ip, port, shared) in cases {
        for protocol in [TCP, UDP] {
            let local = dial(protocol, ip, port);
            assert_eq!(bind(local, SHARED), shared, "{ip} {port}");
            assert_eq!(bind(local, PRIVATE), Bind::Own, "{ip} {port}");
        }
    }
    assert_eq!(listen(false), Err(Denied::SharedListen));
    assert_eq!(listen(true), Ok(()));
}

#[test]
fn packets_leave_by_loopback_only() {
    for (ifindex, passes) in [(1, true), (0, false), (2, false), (u32::MAX, false)] {
        assert_eq!(packet(ifindex).is_ok(), passes, "{ifindex}");
    }
}

#[test]
fn only_the_substitute_is_replaced() {
    let lo: Address = Address::LOOPBACK_V4;
    let other = dial(TCP, "1.2.3.4", 0).dst;
    let via = Port::new(1004);
    assert!(is_substitute(lo, via, via));
    assert!(is_substitute(Address::LOOPBACK_V6, via, via));
    assert!(!is_substitute(lo, Port::new(1005), via));
    assert!(!is_substitute(other, via, via));
    assert!(!is_substitute(lo, Port::new(0), Port::new(0)));
}

#[test]
fn refusals_travel_as_numbers() {
    for d in Denied::ALL {
        assert_eq!(Denied::from_code(*d as u8), Some(*d));
    }
    assert_eq!(Denied::from_code(0), None);
    assert_eq!(Denied::from_code(200), None);
}

#[test]
fn a_flow_outlives_an_orderly_close_only() {
    let cases = [
        ((2, 7), true, "the connection failed"),
        ((1, 7), true, "reset"),
        ((8, 7), true, "reset after the other side had closed"),
        ((9, 7), true, "both sides have closed, the other one first"),
        ((4, 7), false, "closed at once"),
        ((5, 7), false, "closed, and the other side has not yet"),
        ((11, 7), false, "both sides closed at the same time"),
        ((2, 1), false, "established"),
        ((1, 4), false, "closing"),
    ];
    for ((old, new), ends, what) in cases {
        assert_eq!(flow_ends(old, new), ends, "{what}");
    }
}

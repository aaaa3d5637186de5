//! What the address hooks let pass or cannot see, and the last hook drops.

use std::process::Command;

use egret::outcome::Reason;

use crate::world::in_world;
use crate::{options, reasons};

/// A veth whose far end lives in another namespace; packets that reach it are counted there.
fn with_wire() {
    let sh = |line: &str| {
        let out = Command::new("sh").args(["-ec", line]).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    };
    sh("ip link add out type veth peer name far
        sysctl -qw net.ipv6.conf.out.accept_dad=0 net.ipv6.conf.far.accept_dad=0 || true
        ip addr add 10.9.0.1/24 dev out; ip -6 addr add fd00:9::1/64 dev out nodad
        ip link set out up; ip link set far up
        ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev out
        ip -6 neigh add fd00:9::2 lladdr 02:00:00:00:00:02 dev out
        ip route add default via 10.9.0.2; ip -6 route add default via fd00:9::2");
}

/// IP packets that an agent's probe put on the wire, by the marker in their payload.
fn count_on_wire(run: impl FnOnce() -> String) -> (usize, String) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
    use nix::sys::time::{TimeVal, TimeValLike as _};
    // SOCK_DGRAM on AF_PACKET: every packet of every interface, without its link header.
    let all = nix::sys::socket::SockProtocol::EthAll;
    let tap =
        socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, all).unwrap();
    setsockopt(&tap, sockopt::ReceiveTimeout, &TimeVal::milliseconds(200)).unwrap();
    let out = run();
    let mut seen = 0;
    let mut buffer = [0; 2048];
    use std::os::fd::AsRawFd as _;
    while let Ok((n, Some(from))) =
        nix::sys::socket::recvfrom::<nix::sys::socket::LinkAddr>(tap.as_raw_fd(), &mut buffer)
    {
        if from.ifindex() != 1 && buffer[..n].windows(7).any(|b| b == b"MARKER!") {
            seen += 1;
        }
    }
    (seen, out)
}

#[test]
fn no_trick_puts_a_packet_on_the_wire() {
    in_world(options(), |w| {
        with_wire();
        // Each trick is aimed at loopback or at the resolver's port, which the address hooks let
        // pass or rewrite, and then forced out of the veth.
        let tricks = [
            (
                "SO_BINDTODEVICE",
                "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 25, b'out')
attempt(lambda: s.sendto(b'MARKER!', ('10.9.0.2', 53)) and None)
",
            ),
            (
                "IP_PKTINFO",
                "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
info = struct.pack('=I4s4s', socket.if_nametoindex('out'), socket.inet_aton('10.9.0.1'), b'\\0'*4)
attempt(lambda: s.sendmsg([b'MARKER!'], [(0, 8, info)], 0, ('10.9.0.2', 53)) and None)
",
            ),
            (
                "IPV6_PKTINFO",
                "
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
info = socket.inet_pton(socket.AF_INET6, 'fd00:9::1') + struct.pack('=I', socket.if_nametoindex('out'))
attempt(lambda: s.sendmsg([b'MARKER!'], [(41, 50, info)], 0, ('fd00:9::2', 53)) and None)
",
            ),
            (
                "IPV6_RTHDR type 4",
                "
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
segment = socket.inet_pton(socket.AF_INET6, 'fd00:9::2')
header = struct.pack('!BBBBBBH', 0, 4, 4, 1, 1, 0, 0) + b'\\0'*16 + segment
s.setsockopt(41, 57, header)
attempt(lambda: s.sendto(b'MARKER!', ('fd00:9::2', 53)) and None)
",
            ),
            (
                "IP_UNICAST_IF",
                "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(0, 50, struct.pack('!I', socket.if_nametoindex('out')))
attempt(lambda: s.sendto(b'MARKER!', ('10.9.0.2', 53)) and None)
",
            ),
            (
                "an inherited address",
                "
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt(lambda: s.sendto(b'MARKER!', ('10.9.0.2', 4242)) and None)
",
            ),
        ];
        for (trick, script) in tricks {
            let (control, out) = count_on_wire(|| w.outsider(script));
            assert!(control > 0, "{trick}: the control put nothing on the wire ({out})");
            let (leaked, out) = count_on_wire(|| w.agent(script));
            assert_eq!(leaked, 0, "{trick}: a packet left ({out})");
        }
        let reasons = reasons(&w.kernel);
        assert!(reasons.contains(&Reason::NotLoopback), "no packet met the last hook: {reasons:?}");
    });
}

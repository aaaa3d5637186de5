//! Lines 1 to 12: sockets, and what they can be made to do.

use super::known::{BOTH, BROUGHT, LATER, PASSED_IN, ROOT, UNIX, URING, USER, families, processes};
use super::{line, probe};
use crate::attacks::kinds::Sign::{Done, Wire};
use crate::attacks::kinds::{Attack, Note, Probe, Setup, Special};
use crate::attacks::special;

const TCP4: &str = "$far4 $tcp4";
const TCP6: &str = "$far6 $tcp6";
const UDP4: &str = "$far4 $udp4";
const UDP6: &str = "$far6 $udp6";

pub(super) const LINES: &[Attack] = &[
    line(
        1,
        "TCP to a denied address",
        &[probe("tcp4", "tcp", TCP4, Wire), probe("tcp6", "tcp", TCP6, Wire).ipv6()],
    ),
    line(
        2,
        "v4-mapped addresses",
        &[
            probe("mapped-tcp", "tcp_mapped", TCP4, Wire).ipv6(),
            probe("mapped-udp", "udp_mapped", UDP4, Wire).ipv6(),
            probe("mapped-loopback", "tcp", "::ffff:127.0.0.1 $host", Wire).ipv6(),
        ],
    ),
    line(
        3,
        "the host's loopback by any name, NAT64, 6to4, link-local",
        &[
            probe("own-loopback", "own_loopback", "", Done).passes(),
            probe("local-port", "tcp", "127.0.0.1 $local", Wire)
                .passes()
                .not_in_run("a run has a loopback of its own"),
            probe("loopback-udp", "udp", "127.0.0.1 $hostudp", Wire),
            probe("loopback", "tcp", "127.0.0.1 $host", Wire),
            probe("loopback-2", "tcp", "127.0.0.2 $host", Wire),
            probe("zero", "tcp", "0.0.0.0 $host", Wire),
            probe("loopback6", "tcp", "::1 $host", Wire).ipv6(),
            probe("zero6", "tcp", ":: $host", Wire).ipv6(),
            probe("nat64", "tcp", "64:ff9b::c633:6401 80", Wire).ipv6(),
            probe("6to4", "tcp", "2002:c633:6401::1 80", Wire).ipv6(),
            probe("link-local", "tcp_scoped", "$scoped $tcp6 $index", Wire).ipv6(),
        ],
    ),
    line(4, "UDP by every call and address family", UDP),
    line(
        5,
        "data in a SYN",
        &[
            probe("fastopen", "fastopen", TCP4, Wire),
            probe("fastopen6", "fastopen", TCP6, Wire).ipv6(),
            probe("fastopen-connect", "fastopen_connect", TCP4, Wire),
        ],
    ),
    line(
        6,
        "other transports, raw and ping sockets",
        &[
            probe("mptcp", "stream", "$far4 $tcp4 262", Wire),
            probe("mptcp6", "stream", "$far6 $tcp6 262", Wire).ipv6(),
            probe("sctp", "stream", "$far4 $tcp4 132", Wire),
            probe("dccp", "dccp", TCP4, Wire),
            probe("udplite", "udplite", UDP4, Wire),
            probe("udplite6", "udplite", UDP6, Wire).ipv6(),
            probe("raw", "ping", "$far4 0 SOCK_RAW", Wire).by_root(),
            probe("raw6", "ping", "$far6 0 SOCK_RAW", Wire).by_root().ipv6(),
            probe("raw-header", "raw_header", UDP4, Wire).by_root(),
            probe("ping", "ping", "$far4 0 SOCK_DGRAM", Wire),
            probe("ping6", "ping", "$far6 0 SOCK_DGRAM", Wire).ipv6(),
        ],
    ),
    line(7, "families that no cgroup hook governs", FAMILIES),
    Attack {
        stated: &[Note::run(URING)],
        ..line(8, "io_uring: refused; where it is let in, as the system calls", RINGS)
    },
    line(
        9,
        "IPv6 routing header of type 4",
        &[probe("rthdr", "rthdr", "$far6 $udp6", Wire).ipv6()],
    ),
    line(10, "an interface chosen past the routes, multicast, broadcast", INTERFACES),
    Attack {
        stated: &[Note::run(PASSED_IN)],
        specials: &[Special::attach("open-before-attach", special::open_before_attach)],
        ..line(
            11,
            "sockets made before, inherited, handed over or taken from another process",
            &[
                probe("inherited", "used_fd", "9", Wire).in_attach(BROUGHT),
                probe("pidfd-getfd", "pidfd", "$victim 3", Wire)
                    .by_root()
                    .in_attach(processes(USER)),
                handed("handed-in-tmp", "$late:ask $late:shared").in_run(LATER),
                handed("handed-in-run", "$late:ask $late:run"),
                handed("handed-abstract", "$late:ask $late:abstract"),
            ],
        )
    },
    line(
        12,
        "listening, and answering a peer from outside",
        &[
            probe("inbound", "answer_inbound", "$knocked", Done).setup(Setup::Knocked),
            probe("inbound-unbound", "answer_unbound", "$late:port", Done).setup(Setup::Knocked),
        ],
    ),
];

/// A socket of the machine, from a Unix socket that is made when the agent runs already.
const fn handed(id: &'static str, args: &'static str) -> Probe {
    probe(id, "handed_fd", args, Wire).setup(Setup::Late).in_attach(UNIX)
}

const UDP: &[Probe] = &[
    probe("udp4", "udp", UDP4, Wire),
    probe("udp6", "udp", UDP6, Wire).ipv6(),
    probe("udp-connected4", "udp_connected", UDP4, Wire),
    probe("udp-connected6", "udp_connected", UDP6, Wire).ipv6(),
    probe("sendmsg4", "sendmsg", UDP4, Wire),
    probe("sendmsg6", "sendmsg", UDP6, Wire).ipv6(),
    probe("sendmmsg4", "sendmmsg", UDP4, Wire),
    probe("sendmmsg6", "sendmmsg", UDP6, Wire).ipv6(),
    probe("elsewhere4", "udp_elsewhere", UDP4, Wire),
    probe("unspec", "udp_unspec", UDP4, Wire),
    probe("v4-on-v6", "udp_v4_on_v6", UDP4, Wire).ipv6(),
    probe("v4-on-v6-connected", "udp_v4_on_v6_connected", UDP4, Wire).ipv6(),
];

/// Numbers of linux/socket.h: family, type, protocol.
const FAMILIES: &[Probe] = &[
    probe("packet", "packet", "$dev $index", Wire).by_root().in_attach(families(ROOT)),
    probe("vsock", "opens", "40 1 0", Done).in_attach(families(BOTH)),
    probe("xdp", "opens", "44 3 0", Done).by_root().in_attach(families(ROOT)),
    probe("smc", "opens", "43 1 0", Done).in_attach(families(BOTH)),
    probe("rds", "opens", "21 5 0", Done).in_attach(families(BOTH)),
    probe("tipc", "opens", "30 5 0", Done).in_attach(families(BOTH)),
    probe("alg", "opens", "38 5 0", Done).in_attach(families(BOTH)),
    probe("bluetooth", "opens", "31 5 0", Done).by_root().in_attach(families(BOTH)),
    probe("can", "opens", "29 3 1", Done).in_attach(families(BOTH)),
    probe("key", "opens", "15 3 2", Done).by_root().in_attach(families(BOTH)),
    probe("kcm", "opens", "41 2 0", Done).in_attach(families(BOTH)),
    probe("qrtr", "opens", "42 2 0", Done).in_attach(families(BOTH)),
    probe("netlink-netfilter", "opens", "16 3 12", Done).in_attach(families(BOTH)),
];

const RINGS: &[Probe] = &[
    probe("uring-refused", "uring_setup", "", Done)
        .not_in_attach("attach refuses no system call; what a ring does is governed as the rest"),
    probe("uring-tcp", "uring", "$far4 $tcp4 SOCK_STREAM plain", Wire).setup(Setup::Uring),
    probe("uring-tcp6", "uring", "$far6 $tcp6 SOCK_STREAM plain", Wire).setup(Setup::Uring).ipv6(),
    probe("uring-udp", "uring", "$far4 $udp4 SOCK_DGRAM plain", Wire).setup(Setup::Uring),
    probe("uring-sqpoll", "uring", "$far4 $tcp4 SOCK_STREAM sqpoll", Wire).setup(Setup::Uring),
    probe("uring-socket", "uring", "$far4 $udp4 SOCK_DGRAM socket", Wire).setup(Setup::Uring),
];

const INTERFACES: &[Probe] = &[
    probe("bindtodevice4", "bindtodevice", "$far4 $udp4 $dev", Wire),
    probe("bindtodevice6", "bindtodevice", "$far6 $udp6 $dev", Wire).ipv6(),
    probe("pktinfo4", "pktinfo", "$far4 $udp4 $index", Wire),
    probe("pktinfo6", "pktinfo", "$far6 $udp6 $index", Wire).ipv6(),
    probe("unicast-if4", "unicast_if", "$far4 $udp4 $index", Wire),
    probe("unicast-if6", "unicast_if", "$far6 $udp6 $index", Wire).ipv6(),
    probe("multicast4", "multicast", "239.7.7.7 $udp4 $index", Wire),
    probe("multicast6", "multicast", "ff02::77 $udp6 $index", Wire).ipv6(),
    probe("broadcast", "broadcast", "$broadcast $udp4", Wire),
];

//! Lines 1 to 21: sockets and the kernel.

use super::{line, probe};
use crate::attacks::Sign::{Done, Inside, Wire};
use crate::attacks::{Attack, Probe, Setup, Special, special};

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
        stated: &[
            "It makes sockets of families that no cgroup hook governs, AF_VSOCK among them, which in a virtual machine reaches its host.",
        ],
        ..line(8, "io_uring: refused; where it is let in, as the system calls", URING)
    },
    line(
        9,
        "IPv6 routing header of type 4",
        &[probe("rthdr", "rthdr", "$far6 $udp6", Wire).ipv6()],
    ),
    line(10, "an interface chosen past the routes, multicast, broadcast", INTERFACES),
    Attack {
        stated: &[
            "A socket keeps the cgroup in which it was made. `run` closes every file descriptor but the standard three, and what it is given there is the operator's word: a socket, or a folder, passed as stdin stays usable.",
        ],
        not_yet: &["SCM_RIGHTS over a socket made after the start"],
        ..line(
            11,
            "sockets made before, inherited or taken from another process",
            &[
                probe("inherited", "used_fd", "9", Wire),
                probe("pidfd-getfd", "pidfd", "$victim 3", Wire).by_root(),
            ],
        )
    },
    line(
        12,
        "listening, and answering a peer from outside",
        &[probe("inbound", "answer_inbound", "$knocked", Done).setup(Setup::Knocked)],
    ),
    line(
        13,
        "leaving by cgroup, namespace or sudo",
        &[
            probe("other-cgroup", "other_cgroup", TCP4, Wire),
            probe("nested-cgroup", "nested_cgroup", TCP4, Wire),
            probe("unshare", "unshared", TCP4, Wire),
            probe("setns", "entered", "$victim $far4 $tcp4", Wire).by_root(),
            probe("sudo", "by_sudo", TCP4, Wire).by_root(),
        ],
    ),
    Attack {
        stated: &[
            "A socket that another program creates afterwards, in a folder that both see, is reachable: ssh with agent forwarding and editors do that in /tmp.",
        ],
        not_yet: &["systemd-run, D-Bus and at as installed programs"],
        ..line(
            14,
            "services of the machine that act for whoever asks",
            &[
                probe("service-in-run", "by_unix_socket", "$service:0", Done),
                probe("service-abstract", "by_unix_socket", "$service:1", Done),
                probe("service-in-tmp", "by_unix_socket", "$service:2", Done),
                probe("docker", "by_unix_socket", "$service:5", Done),
            ],
        )
    },
    line(
        15,
        "resolvers on Unix sockets: nscd, systemd-resolved",
        &[
            probe("nscd", "by_unix_socket", "$service:3", Done),
            probe("resolved", "by_unix_socket", "$service:4", Done),
        ],
    ),
    Attack {
        not_yet: &["the ports of a dead interceptor"],
        ..line(
            16,
            "binding the interceptor's ports",
            &[probe("take-port", "take_port", "", Inside)],
        )
    },
    Attack {
        not_yet: &["a stale port of another agent's interceptor"],
        ..line(
            17,
            "connecting straight to the interceptor",
            &[probe("dial-interceptor", "dial_interceptor", "", Inside)],
        )
    },
    Attack { not_yet: &["a full table of flows"], ..line(18, "the flow table full", &[]) },
    Attack {
        specials: &[Special { id: "stopped-then-killed", run: special::stopped_then_killed }],
        not_yet: &["OOM, a bad reload, a restart: there is no daemon yet"],
        ..line(19, "egret stopped, then killed", &[])
    },
    Attack {
        specials: &[
            Special { id: "without-bpf", run: special::without_bpf },
            Special { id: "without-cgroup2", run: special::without_cgroup2 },
        ],
        ..line(20, "a missing kernel feature: refuses to start", &[])
    },
    line(
        21,
        "bpf, nft, ptrace and kill by the agent",
        &[
            probe("bpf-map", "bpf", "0", Done).by_root(),
            probe("bpf-program", "bpf", "5", Done).by_root(),
            probe("nft", "nft", "", Done).by_root(),
            probe("ptrace", "traces", "$victim", Done).by_root(),
            probe("memory", "memory", "$victim", Done).by_root(),
            probe("kill", "kills", "$victim", Done),
        ],
    ),
];

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
    probe("packet", "packet", "$dev $index", Wire).by_root(),
    probe("vsock", "opens", "40 1 0", Done),
    probe("xdp", "opens", "44 3 0", Done).by_root(),
    probe("smc", "opens", "43 1 0", Done),
    probe("rds", "opens", "21 5 0", Done),
    probe("tipc", "opens", "30 5 0", Done),
    probe("alg", "opens", "38 5 0", Done),
    probe("bluetooth", "opens", "31 5 0", Done).by_root(),
    probe("can", "opens", "29 3 1", Done),
    probe("key", "opens", "15 3 2", Done).by_root(),
    probe("kcm", "opens", "41 2 0", Done),
    probe("qrtr", "opens", "42 2 0", Done),
    probe("netlink-netfilter", "opens", "16 3 12", Done),
];

const URING: &[Probe] = &[
    probe("uring-refused", "uring_setup", "", Done),
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

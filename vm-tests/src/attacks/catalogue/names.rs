//! Lines 22 to 33: names.

use super::known::ALIASES;
use super::{line, probe};
use crate::attacks::kinds::Sign::{Dial, Done, Inside, Upstream, Wire};
use crate::attacks::kinds::{Attack, Probe};

const LEAK: &str = "leak.example.org";

pub(super) const LINES: &[Attack] = &[
    line(
        22,
        "port 53 of any resolver",
        &[
            probe("dns-udp", "dns_udp", "$far4 53 leak.example.org 1", Wire),
            probe("dns-udp6", "dns_udp", "$far6 53 leak.example.org 1", Wire).ipv6(),
            probe("dns-tcp", "dns_tcp", "$far4 53 leak.example.org 1", Wire),
            probe("dns-tcp6", "dns_tcp", "$far6 53 leak.example.org 1", Wire).ipv6(),
        ],
    ),
    line(
        23,
        "DNS on other ports",
        &[
            probe("dns-853", "dns_udp", "$far4 853 leak.example.org 1", Wire),
            probe("dns-tls", "dns_tcp", "$far4 853 leak.example.org 1", Wire),
            probe("dns-5353", "dns_udp", "$far4 5353 leak.example.org 1", Wire),
            probe("dns-odd", "dns_udp", "$far4 5300 leak.example.org 1", Wire),
        ],
    ),
    line(
        24,
        "DNS over HTTPS through an allowed host",
        &[
            probe("allowed-get", "https", "$dial:api.test api.test GET $mark", Upstream).passes(),
            probe("doh", "https", "$dial:api.test api.test POST $mark", Upstream),
        ],
    ),
    line(25, "a denied name: no query upstream", &[probe("denied-name", "lookup", LEAK, Wire)]),
    line(
        26,
        "data in labels under an allowed wildcard",
        &[probe("labels", "labels", "wild.test", Wire)],
    ),
    line(
        27,
        "DNS tunnels: their records, iodine, dns2tcp",
        &[
            probe("tunnel", "tunnel", "t.example.org", Wire),
            probe("iodine", "iodine", "$iodine $iodine-domain", Done).by_root(),
            probe("dns2tcp", "dns2tcp", "$dns2tcp $dns2tcp-domain", Done),
        ],
    ),
    line(
        28,
        "TXT, NULL, ANY and AXFR",
        &[
            probe("txt", "dns_udp", "system 53 leak.example.org 16", Wire),
            probe("null", "dns_udp", "system 53 leak.example.org 10", Wire),
            probe("any", "dns_udp", "system 53 leak.example.org 255", Wire),
            probe("axfr", "dns_tcp", "system 53 leak.example.org 252", Wire),
        ],
    ),
    line(
        29,
        "HTTPS and SVCB records",
        &[
            probe("https-record", "dns_udp", "system 53 api.test 65", Wire),
            probe("svcb-record", "dns_udp", "system 53 api.test 64", Wire),
        ],
    ),
    line(30, "names that resolve to private addresses, and clouds' metadata", LURES),
    line(31, "aliases and shared addresses", SHARED),
    line(
        32,
        "odd spellings of a denied name",
        &[
            probe("plain-name", "https", "$dial:api.test api.test GET $mark", Upstream).passes(),
            probe(
                "trailing-dot",
                "https",
                "$dial:forbidden.test forbidden.test. GET $mark",
                Upstream,
            ),
            probe("capitals", "https", "$dial:forbidden.test FORBIDDEN.test GET $mark", Upstream),
            probe(
                "host-dot",
                "https",
                "$dial:api.test api.test GET $mark api.test forbidden.test.",
                Upstream,
            ),
        ],
    ),
    line(
        33,
        "malformed and slow DNS",
        &[
            probe("odd-messages", "odd_messages", "system $dial:api.test", Inside),
            probe("slow-dns", "slow_tcp", "system $dial:api.test", Inside),
        ],
    ),
];

const SHARED: &[Probe] = &[
    probe("shared-allowed", "https", "$dial:api.test api.test GET $mark", Upstream).passes(),
    // The same address serves both names.
    probe(
        "shared-address",
        "https",
        "$dial:api.test api.test GET $mark forbidden.test forbidden.test",
        Upstream,
    ),
    // A name that is an alias, and the addresses behind that.
    probe("alias-to-private", "plain", "c-0a4d0001.lure.test /", Dial),
    probe("alias-to-metadata", "plain", "c-a9fea9fe.lure.test /", Dial),
    probe("alias-to-denied-zone", "plain", "c-5db8d74d.lure.test /", Dial).both(ALIASES),
];

/// The label spells the answer.
const LURES: &[Probe] = &[
    probe("public-answer", "plain", "a-5db8d74d.lure.test /", Dial).passes(),
    probe("private-10", "plain", "a-0a4d0001.lure.test /", Dial),
    probe("private-172", "plain", "a-ac104d01.lure.test /", Dial),
    probe("private-192", "plain", "a-c0a84d01.lure.test /", Dial),
    probe("cgnat", "plain", "a-64404d01.lure.test /", Dial),
    probe("link-local-answer", "plain", "a-a9fe4d07.lure.test /", Dial),
    probe("unique-local", "plain", "aaaa-fd770000000000000000000000000001.lure.test /", Dial)
        .ipv6(),
    probe("nat64-answer", "plain", "aaaa-0064ff9b0000000000000000c6336401.lure.test /", Dial)
        .ipv6(),
    probe("6to4-answer", "plain", "aaaa-2002c633640100000000000000000001.lure.test /", Dial).ipv6(),
    probe("metadata-answer", "plain", "a-a9fea9fe.lure.test /", Dial),
    probe("metadata-azure", "plain", "a-a83f8110.lure.test /", Dial),
    probe("metadata-alibaba", "plain", "a-646464c8.lure.test /", Dial),
    probe("metadata-aws6", "plain", "aaaa-fd000ec2000000000000000000000254.lure.test /", Dial)
        .ipv6(),
    probe("metadata-address", "tcp", "169.254.169.254 80", Wire),
    probe("metadata-named", "plain", "169.254.169.254 /latest/meta-data/", Wire),
];

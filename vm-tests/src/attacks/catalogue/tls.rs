//! Lines 34 to 43: TLS.

use super::{line, probe};
use crate::attacks::kinds::Sign::{Done, Inside, Upstream, Wire};
use crate::attacks::kinds::{Attack, Special};
use crate::attacks::special;

pub(super) const LINES: &[Attack] = &[
    line(
        34,
        "an allowed server name at another address",
        &[
            probe("name-elsewhere", "https", "$far4:$tcp4 api.test GET /", Wire),
            probe("name-elsewhere-443", "https", "$far4:443 api.test GET /", Wire),
        ],
    ),
    line(
        35,
        "server name unlike Host",
        &[
            probe("same-names", "https", "$dial:api.test api.test GET $mark", Upstream).passes(),
            probe(
                "sni-unlike-host",
                "https",
                "$dial:api.test api.test GET $mark api.test forbidden.test",
                Upstream,
            ),
            probe(
                "two-allowed-names",
                "https",
                "$dial:api.test api.test POST $mark api.test other.test",
                Upstream,
            ),
        ],
    ),
    line(
        36,
        "no server name, an address, a malformed one",
        &[
            probe("no-sni", "https", "$far4:443 x GET / -", Wire),
            probe("address-sni", "https", "$far4:443 x GET / 10.0.0.1", Wire),
            probe("nul-sni", "odd_sni", "$far4:443 api.test nul", Wire),
            probe("space-sni", "odd_sni", "$far4:443 api.test space", Wire),
            probe("digits-sni", "odd_sni", "$far4:443 api.test address", Wire),
        ],
    ),
    line(
        37,
        "Encrypted ClientHello",
        &[
            probe("plain-hello", "ech", "$dial:pass.test pass.test none", Done).passes(),
            probe("odd-extension", "ech", "$dial:pass.test pass.test odd", Done).passes(),
            probe("ech-opened", "ech", "$dial:api.test api.test ech", Done).passes(),
            probe("ech", "ech", "$dial:pass.test pass.test ech", Done),
        ],
    ),
    line(
        38,
        "ClientHello in pieces, huge, endless",
        &[probe("hard-hellos", "hard_hellos", "$dial:api.test", Inside)],
    ),
    line(
        39,
        "0-RTT and tickets of others",
        &[probe("early-data", "early_data", "$dial:early.test early.test /early", Done)],
    )
    .specials(&[Special::both("anothers-ticket", special::anothers_ticket)]),
    line(
        40,
        "an unknown ALPN",
        &[
            probe("usual-alpn", "https", "$dial:odd.test odd.test GET $mark", Upstream).passes(),
            probe("unknown-alpn", "unknown_alpn", "$dial:odd.test odd.test", Done),
        ],
    ),
    line(
        41,
        "a bad upstream certificate",
        &[
            probe("good", "https", "$dial:odd.test odd.test GET $mark", Upstream).passes(),
            probe("expired", "https", "$dial:expired.test expired.test GET $mark", Upstream),
            probe("wrong-name", "https", "$dial:wrong.test wrong.test GET $mark", Upstream),
            probe("unknown-ca", "https", "$dial:unknown.test unknown.test GET $mark", Upstream),
            probe("egrets-name", "https", "$dial:own.test own.test GET $mark", Upstream),
        ],
    )
    .specials(&[Special::attach("egrets-own-ca", special::own_authority)]),
    line(42, "a flood of names", &[]).specials(&[Special::both("name-flood", special::name_flood)]),
    line(
        43,
        "QUIC, and the invitation to it",
        &[
            probe("udp443", "udp", "$far4 443", Wire),
            probe("udp443-6", "udp", "$far6 443", Wire).ipv6(),
            probe("udp443-mapped", "udp_mapped", "$far4 443", Wire).ipv6(),
            probe("alt-svc", "early_hints", "$dial:api.test api.test", Done),
        ],
    ),
];

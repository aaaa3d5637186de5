//! Lines 71, 72, 79 and 80: resources, and what belongs to the operator.

use super::{line, probe};
use crate::attacks::Attack;
use crate::attacks::Sign::{Done, Inside};

const OWNS: &str = "An agent of uid 0 has no capability, but it owns root's files";

pub(super) const LINES: &[Attack] = &[
    Attack {
        not_yet: &["that each slow peer times out: a minute and more"],
        ..line(
            71,
            "slow handshakes, heads, bodies and readers",
            &[probe("slow", "slow", "$dial:api.test", Inside)],
        )
    },
    Attack {
        not_yet: &["memory"],
        ..line(72, "exhausted descriptors", &[probe("many", "many", "$dial:api.test 900", Inside)])
    },
    line(
        79,
        "the agent on the control socket",
        &[probe("control-socket", "by_unix_socket", "$service:6", Done)],
    ),
    line(
        80,
        "the agent editing policy, state, trust, units and egret",
        &[
            probe("policy", "writes", "$policy", Done).by_root().stated_for_root(OWNS),
            probe("egret", "creates", "$beside-egret", Done).by_root().stated_for_root(OWNS),
            probe("state", "lists", "$state", Done).by_root(),
            probe("trust", "writes", "/etc/ssl/certs/ca-certificates.crt", Done).by_root(),
            probe("unit", "creates", "/etc/systemd/system/egret-attack.service", Done).by_root(),
            probe("cron", "creates", "/etc/cron.d/egret-attack", Done).by_root(),
            probe("sysctl", "writes", "/proc/sys/kernel/core_pattern", Done).by_root(),
        ],
    ),
];

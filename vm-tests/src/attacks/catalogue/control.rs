//! Lines 71, 72, 79 and 80: resources, and what belongs to the operator.

use super::known::{OWNS, READS, ROOT};
use super::{line, probe};
use crate::attacks::kinds::Known::Through;
use crate::attacks::kinds::Sign::{Done, Inside};
use crate::attacks::kinds::{Attack, Note, Special};
use crate::attacks::special;

const NO_DAEMON: &str = "a run has no daemon";

pub(super) const LINES: &[Attack] = &[
    Attack {
        specials: &[Special::both(special::SLOW, special::slow_peers)],
        not_yet: &[Note::both(
            "peers that are given up after five minutes and more; userspace/tests/connection/slow.rs plays them with shorter limits",
        )],
        ..line(
            71,
            "slow handshakes, heads, bodies and readers",
            &[probe("slow", "slow", "$dial:api.test", Inside)],
        )
    },
    line(
        72,
        "exhausted descriptors and memory",
        &[probe("many", "many", "$dial:api.test 900", Inside)],
    )
    .specials(&[Special::both("memory-hog", special::memory)]),
    line(
        79,
        "the agent on the control socket",
        &[
            probe("control-socket", "by_unix_socket", "$service:6", Done)
                .not_in_attach("the daemon's own socket is asked"),
            probe("status", "egret_control", "$egret $daemon-run status --json", Done)
                .by_root()
                .not_in_run(NO_DAEMON),
        ],
    )
    .specials(&[Special::attach("detach-another", special::detach_from_inside)]),
    line(
        80,
        "the agent editing policy, state, trust, units and egret",
        &[
            probe("policy", "writes", "$policy", Done).by_root().in_run(Through(ROOT, OWNS)),
            probe("egret", "creates", "$beside-egret", Done).by_root().in_run(Through(ROOT, OWNS)),
            probe("state", "lists", "$state", Done)
                .by_root()
                .not_in_attach("the daemon's state is asked for"),
            probe("trust", "writes", "/etc/ssl/certs/ca-certificates.crt", Done).by_root(),
            probe("unit", "creates", "/etc/systemd/system/egret-attack.service", Done).by_root(),
            probe("cron", "creates", "/etc/cron.d/egret-attack", Done).by_root(),
            probe("sysctl", "writes", "/proc/sys/kernel/core_pattern", Done).by_root(),
            probe("daemon-state", "lists", "$daemon-state", Done)
                .by_root()
                .not_in_run(NO_DAEMON)
                .in_attach(READS),
            probe("daemon-config", "writes", "$daemon-config", Done)
                .by_root()
                .not_in_run(NO_DAEMON),
            probe("daemon-trust", "writes", "$daemon-trust", Done).by_root().not_in_run(NO_DAEMON),
            probe("pins", "makes_folder", "$daemon-pins", Done).by_root().not_in_run(NO_DAEMON),
        ],
    ),
];

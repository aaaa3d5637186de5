//! Lines 13 to 21: cgroups, namespaces, services, processes, and egret's own ports and life.

use super::known::{BOTH, UNIX, USER, processes};
use super::{line, probe};
use crate::attacks::kinds::Sign::{Done, Inside, Wire};
use crate::attacks::kinds::{Attack, Special};
use crate::attacks::special;

const TCP4: &str = "$far4 $tcp4";

pub(super) const LINES: &[Attack] = &[
    line(
        13,
        "leaving by cgroup, namespace, sudo or a setuid program",
        &[
            probe("other-cgroup", "other_cgroup", TCP4, Wire),
            probe("nested-cgroup", "nested_cgroup", TCP4, Wire),
            probe("unshare", "unshared", TCP4, Wire),
            probe("new-network", "new_network", "$far4 $tcp4 $dial:api.test", Inside)
                .not_in_run("nobody opens listeners in a namespace that a run's agent makes"),
            probe("setns", "entered", "$victim $far4 $tcp4", Wire).by_root(),
            probe("sudo", "by_sudo", TCP4, Wire).by_root(),
            probe("setuid-program", "by_setuid", "$setuid $far4 $tcp4", Wire),
        ],
    ),
    line(
        14,
        "services of the machine that act for whoever asks",
        &[
            probe("service-in-run", "by_unix_socket", "$service:0", Done).in_attach(UNIX),
            probe("service-abstract", "by_unix_socket", "$service:1", Done).in_attach(UNIX),
            probe("service-in-tmp", "by_unix_socket", "$service:2", Done).in_attach(UNIX),
            probe("docker", "by_unix_socket", "$service:5", Done).in_attach(UNIX),
            probe("bus", "bus", "", Done).in_attach(UNIX),
            probe("systemd-run", "systemd_run", "$network $far4 $tcp4", Wire)
                .by_root()
                .in_attach(UNIX),
            probe("at", "at_job", "$network $far4 $tcp4", Wire).by_root().in_attach(UNIX),
        ],
    ),
    line(
        15,
        "resolvers on Unix sockets: nscd, systemd-resolved",
        &[
            probe("nscd", "by_unix_socket", "$service:3", Done).in_attach(UNIX),
            probe("resolved", "by_unix_socket", "$service:4", Done).in_attach(UNIX),
        ],
    ),
    line(
        16,
        "binding the interceptor's ports",
        &[probe("take-port", "take_port", "$ports", Inside)],
    )
    .specials(&[Special::attach("ports-of-the-dead", special::ports_of_the_dead)]),
    line(
        17,
        "connecting straight to an interceptor, one's own or another's",
        &[probe("dial-interceptor", "dial_interceptor", "$local", Inside)],
    )
    .specials(&[Special::both("anothers-port", special::anothers_port)]),
    line(18, "the flow table full", &[]).specials(&[
        Special::both("full-table", special::full_table),
        Special::attach("another-while-full", special::another_while_full),
    ]),
    line(19, "egret stopped, killed, restarted, reloaded with an error", &[]).specials(&[
        Special::run("stopped-then-killed", special::stopped_then_killed),
        Special::attach("daemon-stopped", special::daemon_stopped),
        Special::attach("interceptor-stopped", special::interceptor_stopped),
        Special::attach("daemon-killed", special::daemon_killed),
        Special::attach("interceptor-killed", special::interceptor_killed),
        Special::attach("daemon-restarted", special::daemon_restarted),
        Special::attach("bad-reload", special::bad_reload),
    ]),
    line(20, "a missing kernel feature: refuses to start", &[]).specials(&[
        Special::both("without-bpf", special::without_bpf),
        Special::both("without-cgroup2", special::without_cgroup2),
    ]),
    line(
        21,
        "bpf, nft, ptrace and kill by the agent",
        &[
            probe("bpf-map", "bpf", "0", Done).by_root(),
            probe("bpf-program", "bpf", "5", Done).by_root(),
            probe("nft", "nft", "", Done).by_root(),
            probe("ptrace", "traces", "$victim", Done).by_root().in_attach(processes(USER)),
            probe("memory", "memory", "$victim", Done).by_root().in_attach(processes(USER)),
            probe("kill", "kills", "$victim", Done).in_attach(processes(BOTH)),
            probe("interceptors-memory", "memory_as_its_user", "$daemon-interceptor $place", Done)
                .by_root()
                .not_in_run("a run hides every process of the machine"),
        ],
    ),
];

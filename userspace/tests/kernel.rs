//! The kernel side on this kernel, as root: programs, cgroups and namespaces are real. Without root
//! each test says that it was skipped.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

#[path = "kernel/agents.rs"]
mod agents;

#[path = "kernel/feed.rs"]
mod feed;

#[path = "kernel/shared.rs"]
mod shared;

#[path = "kernel/wire.rs"]
mod wire;

#[path = "kernel/world.rs"]
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use egret::outcome::Reason;
use egret::redirect::cgroup::Hierarchy;
use egret::redirect::ebpf::{AgentFlags, Kernel, KernelOptions};
use egret::redirect::events::Attempt;
use egret::redirect::self_test;

use world::{World, in_world};

/// With a lease that is longer than a test takes on a busy machine; those about its end end it.
fn options() -> KernelOptions {
    KernelOptions { lease: Duration::from_secs(60), ..KernelOptions::default() }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn reasons(kernel: &Kernel) -> Vec<Reason> {
    kernel.feed().events().into_iter().map(|e| e.reason).collect()
}

#[test]
fn every_hook_fires() {
    in_world(options(), |w| {
        let hierarchy = Hierarchy::find().unwrap();
        let proof = self_test::run(&w.kernel, &hierarchy).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(proof.hooks.len(), if proof.ipv6 { 14 } else { 9 });
        assert_eq!(w.kernel.feed().events(), [], "the test leaves no refusals behind");
    });
}

#[test]
fn tcp_arrives_with_the_address_that_was_dialled() {
    in_world(options(), |w| {
        let out = w.agent(
            "
def go(family, to):
    s = socket.socket(family); s.connect(to); s.send(b'x')
    return s.getpeername()[:2]
attempt(lambda: go(socket.AF_INET, ('203.0.113.5', 443)))
attempt(lambda: go(socket.AF_INET6, ('2001:db8::5', 443)))
attempt(lambda: go(socket.AF_INET6, ('::ffff:203.0.113.6', 80)))
",
        );
        assert_eq!(out, "('203.0.113.5', 443)\n('2001:db8::5', 443)\n('::ffff:203.0.113.6', 80)");
        // The clients have closed already: a flow waits for its connection to be accepted.
        for (listener, dialled) in [
            (&w.tcp4, "203.0.113.5:443"),
            (&w.tcp6, "[2001:db8::5]:443"),
            (&w.tcp4, "203.0.113.6:80"),
        ] {
            let flow = w.accept(listener).expect("no flow");
            assert_eq!(flow.original.0, address(dialled));
            assert_eq!((flow.agent, flow.cgroup), (w.cgroup.id(), w.cgroup.id()));
            assert_eq!((flow.netns, flow.process.uid), (w.netns, 0));
            assert_eq!(flow.process.comm, "python3");
        }
        assert_eq!(w.kernel.feed().events(), []);
    });
}

#[test]
fn a_process_in_a_group_below_is_the_same_agent() {
    in_world(options(), |w| {
        std::fs::create_dir_all(w.cgroup.path().join("a/b/c")).unwrap();
        let out = w.agent(&format!(
            "
open('{}/a/b/c/cgroup.procs', 'w').write(str(os.getpid()))
s = socket.socket()
attempt(lambda: s.connect(('203.0.113.5', 443)))
",
            w.cgroup.path().display()
        ));
        assert_eq!(out, "ok");
        let flow = w.accept(&w.tcp4).expect("no flow");
        assert_eq!(flow.agent, w.cgroup.id());
        assert_ne!(flow.cgroup, w.cgroup.id());
    });
}

#[test]
fn udp_is_refused_at_once_and_said() {
    in_world(options(), |w| {
        let probe = "
u = lambda f: socket.socket(f, socket.SOCK_DGRAM)
attempt(lambda: u(socket.AF_INET).connect(('203.0.113.5', 443)))
attempt(lambda: u(socket.AF_INET).sendto(b'x', ('203.0.113.5', 443)))
attempt(lambda: u(socket.AF_INET6).sendto(b'x', ('2001:db8::5', 443)))
attempt(lambda: u(socket.AF_INET6).sendto(b'x', ('::ffff:203.0.113.5', 443)))
";
        assert_eq!(w.agent(probe), "EPERM\nEPERM\nEPERM\nEPERM");
        // The control: outside, the namespace has no route, which is another error.
        assert!(!w.outsider(probe).contains("EPERM"));
        let events = w.kernel.feed().events();
        assert_eq!(events.len(), 4);
        for event in &events {
            assert_eq!(event.reason, Reason::UdpRefused);
            assert_eq!(event.agent, Some(w.cgroup.id()));
            assert!(matches!(&event.attempt, Attempt::Dial { protocol: "udp", to }
                if to.port() == 443));
        }
    });
}

#[test]
fn names_are_asked_of_egret_and_answered_by_the_resolver_that_was_meant() {
    in_world(options(), |w| {
        std::thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|_| World::echo(&w.dns4)));
            scope.spawn(|| World::echo(&w.dns6));
            let out = w.agent(
                "
def unconnected(family, to):
    s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'name', to)
    data, source = s.recvfrom(64)
    return data, source[:2]
def connected(family, to):
    s = socket.socket(family, socket.SOCK_DGRAM); s.connect(to); s.send(b'name')
    return s.recv(64), s.getpeername()[:2]
attempt(lambda: unconnected(socket.AF_INET, ('203.0.113.53', 53)))
attempt(lambda: connected(socket.AF_INET, ('127.0.0.53', 53)))
attempt(lambda: connected(socket.AF_INET6, ('::ffff:203.0.113.53', 53)))
attempt(lambda: unconnected(socket.AF_INET6, ('2001:db8::53', 53)))
",
            );
            assert_eq!(
                out,
                "(b'NAME', ('203.0.113.53', 53))\n\
                 (b'NAME', ('127.0.0.53', 53))\n\
                 (b'NAME', ('::ffff:203.0.113.53', 53))\n\
                 (b'NAME', ('2001:db8::53', 53))"
            );
        });
    });
}

#[test]
fn ungovernable_sockets_do_not_exist() {
    in_world(options(), |w| {
        let probe = "
for family, kind, protocol in [
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    (socket.AF_INET6, socket.SOCK_RAW, 58),
    (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
    (socket.AF_INET, socket.SOCK_DGRAM, 136),
    (socket.AF_INET, socket.SOCK_STREAM, 262),
    (socket.AF_INET, socket.SOCK_STREAM, 0),
]:
    attempt(lambda: socket.socket(family, kind, protocol).close())
";
        let (inside, outside) = (w.agent(probe), w.outsider(probe));
        let mut opened = 0;
        for (i, (refused, control)) in inside.lines().zip(outside.lines()).enumerate() {
            let plain_tcp = i == 6;
            // Where this kernel has no such protocol, there is nothing to refuse.
            if control == "ok" {
                assert_eq!(refused, if plain_tcp { "ok" } else { "EPERM" }, "case {i}");
                opened += 1;
            }
        }
        assert!(opened >= 4, "the controls opened only {opened} sockets: {outside}");
        assert!(reasons(&w.kernel).iter().all(|r| *r == Reason::SocketFamily));
    });
}

#[test]
fn loopback_is_the_agents_own_but_not_the_interceptors_ports() {
    in_world(options(), |w| {
        let ports = w.ports();
        let out = w.agent(&format!(
            "
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
attempt(lambda: socket.create_connection(server.getsockname()).close())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt(lambda: u.sendto(b'x', server.getsockname()) and None)
attempt(lambda: socket.create_connection(('127.0.0.1', {tcp})).close())
attempt(lambda: socket.create_connection(('0.0.0.0', {tcp})).close())
attempt(lambda: socket.create_connection(('::ffff:127.0.0.1', {tcp})).close())
attempt(lambda: u.sendto(b'x', ('127.0.0.1', {dns})))
attempt(lambda: socket.socket().bind(('0.0.0.0', {dns})))
",
            tcp = ports.tcp4.get(),
            dns = ports.dns_udp4.get(),
        ));
        assert_eq!(out, "ok\nok\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM");
        assert_eq!(reasons(&w.kernel), [Reason::InterceptorPort; 5]);
        // In a namespace that is shared, loopback belongs to others too.
        w.kernel.set_agent(w.cgroup.id(), AgentFlags::ACTIVE).unwrap();
        let out = w.agent(
            "attempt(lambda: socket.create_connection(('127.0.0.1', 9)))
attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())",
        );
        assert_eq!(out, "EPERM\nok");
    });
}

#[test]
fn everything_unknown_is_refused() {
    in_world(options(), |w| {
        let probe = "attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())";
        let ports = w.ports();
        let flags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);
        assert_eq!(w.agent(probe), "ok");

        w.kernel.feed().expire().unwrap();
        assert_eq!(w.agent(probe), "EPERM");
        w.kernel.feed().beat().unwrap();
        assert_eq!(w.agent(probe), "ok");

        w.kernel.remove_listeners(w.netns, w.cgroup.id()).unwrap();
        assert_eq!(w.agent(probe), "EPERM");
        w.kernel.set_listeners(w.netns, w.cgroup.id(), ports).unwrap();
        assert_eq!(w.agent(probe), "ok");

        w.kernel.set_agent(w.cgroup.id(), AgentFlags::default()).unwrap();
        assert_eq!(w.agent(probe), "EPERM");
        w.kernel.remove_agent(w.cgroup.id()).unwrap();
        assert_eq!(w.agent(probe), "EPERM");
        // With the agent its listeners are forgotten.
        w.kernel.set_agent(w.cgroup.id(), flags).unwrap();
        assert_eq!(w.agent(probe), "EPERM");
        w.kernel.set_listeners(w.netns, w.cgroup.id(), ports).unwrap();
        assert_eq!(w.agent(probe), "ok");

        assert_eq!(
            reasons(&w.kernel),
            [
                Reason::LeaseExpired,
                Reason::NoListener,
                Reason::AgentUnknown,
                Reason::AgentUnknown,
                Reason::NoListener
            ]
        );
    });
}

#[test]
fn a_lease_that_is_not_renewed_ends() {
    let short = KernelOptions { lease: Duration::from_millis(1), ..options() };
    in_world(short, |w| {
        let probe = "attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())";
        // Python needs more than a millisecond to start.
        assert_eq!(w.agent(probe), "EPERM");
        assert_eq!(reasons(&w.kernel), [Reason::LeaseExpired]);
    });
}

#[test]
fn a_full_table_of_flows_makes_connect_fail() {
    in_world(KernelOptions { max_flows: Some(4), ..options() }, |w| {
        let out = w.agent(
            "
keep = []
for _ in range(6):
    s = socket.socket(); keep.append(s)
    attempt(lambda: s.connect(('203.0.113.5', 443)))
",
        );
        assert_eq!(out, "ok\nok\nok\nok\nEPERM\nEPERM");
        assert_eq!(reasons(&w.kernel), [Reason::FlowMapFull; 2]);
        // Taking one makes room for one; sweeping makes room for all.
        assert!(w.accept(&w.tcp4).is_some());
        let probe = "attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())";
        assert_eq!(w.agent(probe), "ok");
        assert_eq!(w.agent(probe), "EPERM");
        assert_eq!(w.kernel.feed().sweep_flows(Duration::from_secs(60)).unwrap(), 0);
        assert!(w.kernel.feed().sweep_flows(Duration::ZERO).unwrap() > 0);
        assert_eq!(w.agent(probe), "ok");
    });
}

#[test]
fn a_connection_that_fails_leaves_no_flow() {
    in_world(KernelOptions { max_flows: Some(2), ..options() }, |w| {
        // Nobody listens on this port: each connect is refused, and must give its place back. The
        // second loop never gets as far as a packet, because its device has no route.
        let mut ports = w.ports();
        ports.tcp4 = agent_ebpf::address::Port::new(9);
        w.kernel.set_listeners(w.netns, w.cgroup.id(), ports).unwrap();
        let out = w.agent(
            "
for _ in range(4):
    attempt(lambda: socket.create_connection(('203.0.113.5', 443)))
def bound():
    s = socket.socket(); s.bind(('127.0.0.1', 0))
    s.setsockopt(socket.SOL_SOCKET, 25, b'nodev'); s.connect(('203.0.113.5', 443))
for _ in range(4):
    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
    attempt(lambda: s.connect(('203.0.113.5', 443)))
    s.close()
attempt(lambda: socket.create_connection(('203.0.113.5', 443)))
",
        );
        assert!(!out.contains("EPERM"), "{out}");
        assert!(!out.contains("ok"), "{out}");
        assert_eq!(w.kernel.feed().sweep_flows(Duration::ZERO).unwrap(), 0);
    });
}

//! Loopback in a namespace where others live too: an agent's own sockets, and what the policy opens.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;

use egret::identify::NetnsCookie;
use egret::outcome::Reason;
use egret::redirect::ebpf::{AgentFlags, LocalPorts};
use egret::sys::socket::netns_cookie;

use crate::world::{World, finish, in_world, line, start};
use crate::{options, reasons};

/// A world whose agent shares its namespace.
fn in_shared_world(test: impl FnOnce(&World) + Send + 'static) {
    in_world(options(), |w| {
        w.kernel.set_agent(w.cgroup.id(), AgentFlags::ACTIVE).unwrap();
        test(w);
    });
}

/// A stranger's servers, one port for all of them.
struct Stranger {
    port: u16,
    _tcp: (TcpListener, TcpListener),
    _udp: (UdpSocket, UdpSocket),
}

fn stranger() -> Stranger {
    let listener = |at: (&str, u16)| TcpListener::bind(at).ok();
    let datagrams = |at: (&str, u16)| UdpSocket::bind(at).ok();
    for _ in 0..64 {
        let tcp4 = listener(("127.0.0.1", 0)).unwrap();
        let port = tcp4.local_addr().unwrap().port();
        let rest =
            (listener(("::1", port)), datagrams(("127.0.0.1", port)), datagrams(("::1", port)));
        if let (Some(tcp6), Some(udp4), Some(udp6)) = rest {
            return Stranger { port, _tcp: (tcp4, tcp6), _udp: (udp4, udp6) };
        }
    }
    panic!("no port is free in both families and protocols");
}

/// Dials a port by every name of loopback, with TCP and with datagrams: eight lines.
fn dial_all(port: u16) -> String {
    format!(
        "
for family, host in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '0.0.0.0'),
                     (socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')]:
    def tcp(): s = socket.socket(family); s.connect((host, {port})); s.close()
    def udp(): socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', (host, {port}))
    attempt(tcp)
    attempt(udp)
"
    )
}

fn eight(line: &str) -> String {
    [line; 8].join("\n")
}

#[test]
fn the_agents_own_listeners_are_reached_by_every_name() {
    in_shared_world(|w| {
        let out = w.agent(
            "
def reach(server_family, bound, targets):
    server = socket.socket(server_family); server.bind((bound, 0)); server.listen()
    port = server.getsockname()[1]
    for target in targets:
        def go():
            socket.create_connection((target, port)).close()
            peer, _ = server.accept(); peer.close()
        attempt(go)
reach(socket.AF_INET, '127.0.0.1', ['127.0.0.1', '0.0.0.0', '::ffff:127.0.0.1', '::ffff:0.0.0.0'])
reach(socket.AF_INET, '127.9.9.9', ['127.9.9.9'])
reach(socket.AF_INET, '0.0.0.0', ['127.0.0.1', '127.9.9.9', '0.0.0.0'])
reach(socket.AF_INET6, '::1', ['::1', '::'])
reach(socket.AF_INET6, '::', ['::1', '::', '127.0.0.1', '::ffff:127.0.0.1'])
# At another address than the one that it is bound to nobody waits.
reach(socket.AF_INET, '127.0.0.1', ['127.0.0.2'])
",
        );
        assert_eq!(out, format!("{}\nEPERM", ["ok"; 14].join("\n")));
        assert_eq!(reasons(&w.kernel), [Reason::SharedLoopback]);
    });
}

#[test]
fn a_strangers_listeners_are_reached_where_the_policy_opens_them() {
    in_shared_world(|w| {
        let stranger = stranger();
        let probe = dial_all(stranger.port);
        assert_eq!(w.outsider(&probe), eight("ok"), "the control");
        assert_eq!(w.agent(&probe), eight("EPERM"));
        assert_eq!(reasons(&w.kernel), [Reason::SharedLoopback; 8]);

        let open = |connect: &[u16], listen: &[u16]| {
            let ports = LocalPorts { connect: connect.into(), listen: listen.into() };
            w.kernel.set_local(w.cgroup.id(), &ports).unwrap();
        };
        open(&[9, stranger.port], &[]);
        assert_eq!(w.agent(&probe), eight("ok"));
        // Opened for binding is not opened for dialling, and what was said last counts.
        open(&[9], &[stranger.port]);
        assert_eq!(w.agent(&probe), eight("EPERM"));
        // The interceptor's own ports are never opened.
        let interceptor = w.ports().tcp4.get();
        open(&[interceptor, stranger.port], &[]);
        assert_eq!(w.agent(&dial_all(interceptor)), eight("EPERM"));
        assert_eq!(w.agent(&probe), eight("ok"));
        // Another agent's is not this one's, and an agent that is forgotten has none.
        let other = w.neighbour(AgentFlags::ACTIVE, w.ports());
        assert_eq!(other.agent(&probe), eight("EPERM"));
        w.kernel.remove_agent(w.cgroup.id()).unwrap();
        w.kernel.set_agent(w.cgroup.id(), AgentFlags::ACTIVE).unwrap();
        w.kernel.set_listeners(w.netns, w.cgroup.id(), w.ports()).unwrap();
        assert_eq!(w.agent(&probe), eight("EPERM"));
    });
}

#[test]
fn datagrams_go_to_own_sockets_and_come_back() {
    in_shared_world(|w| {
        let out = w.agent(
            "
def talk(family, bound, to):
    server = socket.socket(family, socket.SOCK_DGRAM); server.bind((bound, 0))
    client = socket.socket(family, socket.SOCK_DGRAM)
    client.sendto(b'there', (to, server.getsockname()[1]))
    data, source = server.recvfrom(9)
    # The client's port was chosen by the kernel, and no bind was seen.
    server.sendto(b'and back', source)
    return client.recv(9)
for family, bound, to in [(socket.AF_INET, '127.0.0.1', '127.0.0.1'),
                          (socket.AF_INET, '127.0.0.1', '0.0.0.0'),
                          (socket.AF_INET6, '::1', '::1'), (socket.AF_INET6, '::1', '::')]:
    attempt(lambda: talk(family, bound, to))
",
        );
        assert_eq!(out, ["b'and back'"; 4].join("\n"));
        assert_eq!(w.kernel.feed().events(), []);
    });
}

#[test]
fn an_answer_finds_the_connected_socket_that_asked() {
    in_shared_world(|w| {
        let ports = LocalPorts { connect: vec![4245], listen: vec![4245] };
        w.kernel.set_local(w.cgroup.id(), &ports).unwrap();
        let out = w.agent(
            "
def talk(family, bound, to):
    server = socket.socket(family, socket.SOCK_DGRAM); server.bind((bound, 4245))
    client = socket.socket(family, socket.SOCK_DGRAM); client.connect((to, 4245))
    client.send(b'there')
    data, source = server.recvfrom(9)
    server.sendto(b'and back', source)
    return client.recv(9)
for family, bound, to in [(socket.AF_INET, '127.0.0.1', '127.0.0.1'),
                          (socket.AF_INET, '0.0.0.0', '127.0.0.1'),
                          (socket.AF_INET6, '::1', '::1'), (socket.AF_INET6, '::', '::1'),
                          (socket.AF_INET6, '::', '::ffff:127.0.0.1')]:
    attempt(lambda: talk(family, bound, to))
",
        );
        assert_eq!(out, ["b'and back'"; 5].join("\n"));
    });
}

#[test]
fn a_connected_datagram_socket_does_not_inherit_who_comes_after() {
    in_shared_world(|w| {
        let connect = "
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(('127.0.0.1', PORT))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt(lambda: client.connect(server.getsockname()))
attempt(lambda: client.sendto(b'x', server.getsockname()) and None)
";
        assert_eq!(w.agent(&connect.replace("PORT", "0")), "EPERM\nok");
        assert_eq!(w.outsider(&connect.replace("PORT", "0")), "ok\nok", "the control");
        let ports = LocalPorts { connect: vec![4242], listen: vec![] };
        w.kernel.set_local(w.cgroup.id(), &ports).unwrap();
        assert_eq!(w.agent(&connect.replace("PORT", "4242")), "ok\nok");
    });
}

#[test]
fn another_agents_listeners_are_a_strangers() {
    in_shared_world(|w| {
        let other = w.neighbour(AgentFlags::ACTIVE, w.ports());
        let serve = "
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(server.getsockname())
print(server.getsockname()[1]); sys.stdout.flush()
attempt(lambda: socket.create_connection(server.getsockname()).close())
sys.stdin.readline()
";
        let mut server = start(Some(&w.cgroup), serve);
        let port: u16 = line(&mut server).parse().unwrap();
        assert_eq!(line(&mut server), "ok", "its own");
        let probe = format!(
            "
attempt(lambda: socket.create_connection(('127.0.0.1', {port})).close())
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt(lambda: u.sendto(b'x', ('127.0.0.1', {port})) and None)
"
        );
        assert_eq!(other.agent(&probe), "EPERM\nEPERM");
        // Another process of the same agent, and one of nobody.
        assert_eq!(w.agent(&probe), "ok\nok");
        assert_eq!(w.outsider(&probe), "ok\nok", "the control");
        finish(server);
    });
}

#[test]
fn what_others_see_is_bound_where_the_policy_opens_it() {
    in_shared_world(|w| {
        let bind = |hosts: &str, port: u16| {
            format!(
                "
for kind in [socket.SOCK_STREAM, socket.SOCK_DGRAM]:
    for host in {hosts}:
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        attempt(lambda: socket.socket(family, kind).bind((host, {port})))
"
            )
        };
        let (seen, hidden) =
            ("['0.0.0.0', '::', '198.18.0.1']", "['127.0.0.1', '127.8.8.8', '::1']");
        address("198.18.0.1/32");
        let six = |line: &str| [line; 6].join("\n");
        assert_eq!(w.outsider(&bind(seen, 4243)), six("ok"), "the control");
        assert_eq!(w.agent(&bind(seen, 4243)), six("EPERM"));
        assert_eq!(reasons(&w.kernel), [Reason::SharedLoopback; 6]);
        // A port that the kernel chooses can be nobody else's.
        assert_eq!(w.agent(&bind(seen, 0)), six("ok"));
        assert_eq!(w.agent(&bind(hidden, 4243)), six("ok"));

        let interceptor = w.ports().tcp4.get();
        let ports = LocalPorts { connect: vec![4244], listen: vec![4243, interceptor] };
        w.kernel.set_local(w.cgroup.id(), &ports).unwrap();
        assert_eq!(w.agent(&bind(seen, 4243)), six("ok"));
        assert_eq!(w.agent(&bind(seen, 4244)), six("EPERM"));
        assert_eq!(w.agent(&bind(seen, interceptor)), six("EPERM"));
        assert_eq!(w.agent(&bind(hidden, interceptor)), six("EPERM"));
        // One that nobody knows binds nothing.
        w.kernel.remove_agent(w.cgroup.id()).unwrap();
        assert_eq!(w.agent(&bind(hidden, 4243)), six("EPERM"));
    });
}

#[test]
fn the_unspecified_address_is_loopback_and_nothing_else() {
    in_shared_world(|w| {
        // Bound to another address of this machine, a socket that dials 0.0.0.0 dials that.
        address("198.18.0.1/32");
        let server = TcpListener::bind("198.18.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let probe = format!(
            "
def go():
    s = socket.socket(); s.bind(('198.18.0.1', 0)); s.connect(('0.0.0.0', {port}))
    return s.getpeername()[0]
attempt(go)
"
        );
        assert_eq!(w.outsider(&probe), "198.18.0.1", "the control");
        server.set_nonblocking(true).unwrap();
        server.accept().unwrap();
        let ports = LocalPorts { connect: vec![port], listen: vec![] };
        w.kernel.set_local(w.cgroup.id(), &ports).unwrap();
        assert_ne!(w.agent(&probe), "198.18.0.1");
        assert!(server.accept().is_err());
    });
}

#[test]
fn a_query_does_not_follow_an_interceptor_that_is_gone() {
    in_shared_world(|w| {
        let probe = "
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('::ffff:203.0.113.53', 53))
attempt(lambda: s.send(b'name') and None)
sys.stdin.readline()
attempt(lambda: s.send(b'name') and None)
";
        // The control: the interceptor stays, and so does the socket's way to it.
        let mut child = start(Some(&w.cgroup), probe);
        assert_eq!(line(&mut child), "ok");
        assert_eq!(finish(child), "ok");

        let mut child = start(Some(&w.cgroup), probe);
        assert_eq!(line(&mut child), "ok");
        let next = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(NetnsCookie(netns_cookie(next.as_fd()).unwrap()), w.netns);
        let mut ports = w.ports();
        ports.dns_udp4 = agent_ebpf::address::Port::new(next.local_addr().unwrap().port());
        w.kernel.set_listeners(w.netns, w.cgroup.id(), ports).unwrap();
        assert_eq!(finish(child), "EPERM");
    });
}

/// Gives this machine, as the test's namespace sees it, another address.
fn address(text: &str) {
    let status = Command::new("ip").args(["addr", "add", text, "dev", "lo"]).status().unwrap();
    assert!(status.success());
}

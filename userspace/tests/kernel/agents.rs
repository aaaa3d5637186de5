//! Several agents in one namespace: each has listeners of its own, and none has another's.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use agent_ebpf::address::Port;
use egret::outcome::Reason;
use egret::redirect::ebpf::{AgentFlags, ListenerPorts};

use crate::world::{World, in_world};
use crate::{options, reasons};

const PRIVATE: AgentFlags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);

/// The second interceptor: TCP, and DNS over UDP.
fn second() -> (TcpListener, UdpSocket, ListenerPorts) {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let ports = ListenerPorts {
        tcp4: Port::new(tcp.local_addr().unwrap().port()),
        dns_udp4: Port::new(dns.local_addr().unwrap().port()),
        ..ListenerPorts::default()
    };
    (tcp, dns, ports)
}

#[test]
fn each_agent_arrives_at_its_own_listeners() {
    in_world(options(), |w| {
        let (tcp, dns, ports) = second();
        let other = w.neighbour(PRIVATE, ports);
        let probe = "
def ask():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'name', ('203.0.113.53', 53))
    return s.recv(9)
attempt(ask)
attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())
";
        let answer = |socket: &UdpSocket, with: &'static [u8]| {
            let socket = socket.try_clone().unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            std::thread::spawn(move || {
                let (_, from) = socket.recv_from(&mut [0; 9]).unwrap();
                socket.send_to(with, from).unwrap();
            })
        };
        let (a, b) = (answer(&w.dns4, b"first"), answer(&dns, b"second"));
        assert_eq!(w.agent(probe), "b'first'\nok");
        assert_eq!(other.agent(probe), "b'second'\nok");
        a.join().unwrap();
        b.join().unwrap();
        let (first, second) = (w.accept(&w.tcp4).unwrap(), w.accept(&tcp).unwrap());
        assert_eq!((first.agent, second.agent), (w.cgroup.id(), other.cgroup.id()));

        // One that has none is not served by those of the other.
        w.kernel.remove_listeners(w.netns, w.cgroup.id()).unwrap();
        assert_eq!(w.agent(probe), "EPERM\nEPERM");
        assert_eq!(reasons(&w.kernel), [Reason::NoListener; 2]);
        let served = answer(&dns, b"second");
        assert_eq!(other.agent(probe), "b'second'\nok");
        served.join().unwrap();
    });
}

#[test]
fn nobody_has_another_agents_interceptor() {
    in_world(options(), |w| {
        let (tcp, dns, ports) = second();
        let other = w.neighbour(PRIVATE, ports);
        let probe = |tcp: u16, dns: u16| {
            format!(
                "
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt(lambda: socket.create_connection(('127.0.0.1', {tcp})).close())
attempt(lambda: u.sendto(b'x', ('127.0.0.1', {dns})) and None)
attempt(lambda: u.connect(('0.0.0.0', {dns})))
"
            )
        };
        let mine = probe(w.ports().tcp4.get(), w.ports().dns_udp4.get());
        let theirs = probe(ports.tcp4.get(), ports.dns_udp4.get());
        for script in [&mine, &theirs] {
            assert_eq!(w.outsider(script), "ok\nok\nok", "the control");
            assert_eq!(w.agent(script), "EPERM\nEPERM\nEPERM");
            assert_eq!(other.agent(script), "EPERM\nEPERM\nEPERM");
        }
        assert_eq!(reasons(&w.kernel), [Reason::InterceptorPort; 12]);

        // Dead, its ports are still taken, until they are given up.
        let port = ports.tcp4.get();
        drop((tcp, dns));
        let bind = format!("attempt(lambda: socket.socket().bind(('127.0.0.1', {port})))");
        assert_eq!(w.outsider(&bind), "ok", "the control");
        assert_eq!(w.agent(&bind), "EPERM");
        w.kernel.remove_listeners(w.netns, other.cgroup.id()).unwrap();
        assert_eq!(w.agent(&bind), "ok");
        // Those of the first are its own as before.
        let own = format!("attempt(lambda: socket.socket().bind(('0.0.0.0', {})))", port_of(w));
        assert_eq!(w.agent(&own), "EPERM");
    });
}

#[test]
fn new_listeners_give_up_the_old_ports() {
    in_world(options(), |w| {
        let old = port_of(w);
        let bind = format!("attempt(lambda: socket.socket(2, 2).bind(('127.0.0.1', {old})))");
        assert_eq!(w.agent(&bind), "EPERM");
        let (_tcp, _dns, ports) = second();
        w.kernel.set_listeners(w.netns, w.cgroup.id(), ports).unwrap();
        assert_eq!(w.agent(&bind), "ok");
        // A port that two agents share stays taken while one of them has it.
        let other = w.neighbour(PRIVATE, ports);
        w.kernel.remove_listeners(w.netns, w.cgroup.id()).unwrap();
        let bind = format!(
            "attempt(lambda: socket.socket(2, 2).bind(('127.0.0.1', {})))",
            ports.tcp4.get()
        );
        assert_eq!((w.agent(&bind), other.agent(&bind)), ("EPERM".into(), "EPERM".into()));
    });
}

fn port_of(w: &World) -> u16 {
    w.ports().tcp4.get()
}

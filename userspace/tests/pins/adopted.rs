//! What the next daemon finds of agents that share their namespace with others.

use std::net::TcpListener;
use std::os::fd::AsFd as _;

use agent_ebpf::address::Port;
use egret::identify::NetnsCookie;
use egret::redirect::ebpf::{AgentFlags, Kernel, ListenerPorts, LocalPorts, Overlap};
use egret::sys::socket::netns_cookie;

use crate::running::{finish, line};
use crate::world::{as_root, group, pinned, run, start};

#[test]
fn what_is_open_on_loopback_and_whose_sockets_are_whose_outlives_the_daemon() {
    as_root(|folder| {
        let options = pinned(folder);
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let interceptor = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let here = NetnsCookie(netns_cookie(stranger.as_fd()).unwrap());
        let ports =
            ListenerPorts { tcp4: Port::new(port(&interceptor)), ..ListenerPorts::default() };
        let cgroup = group();
        let kernel = Kernel::load(&options).unwrap();
        drop(kernel.attach_pinned(&cgroup, "a", Overlap::Refuse).unwrap());
        kernel.set_agent(cgroup.id(), AgentFlags::ACTIVE).unwrap();
        kernel.set_listeners(here, cgroup.id(), ports).unwrap();
        let opened = LocalPorts { connect: vec![port(&stranger)], listen: vec![] };
        kernel.set_local(cgroup.id(), &opened).unwrap();

        let mut server = start(
            Some(cgroup.path()),
            "
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
print(server.getsockname()[1]); sys.stdout.flush()
sys.stdin.readline()
",
        );
        let own: u16 = line(&mut server).parse().unwrap();
        let dial = |port: u16| {
            format!("attempt(lambda: socket.create_connection(('127.0.0.1', {port})).close())\n")
        };
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let probe = dial(own) + &dial(port(&stranger)) + &dial(port(&closed));
        assert_eq!(run(None, &probe), "ok\nok\nok", "the control");
        assert_eq!(run(Some(cgroup.path()), &probe), "ok\nok\nEPERM");
        let taken = format!(
            "attempt(lambda: socket.socket(2, 2).bind(('127.0.0.1', {})))",
            port(&interceptor)
        );
        assert_eq!(run(Some(cgroup.path()), &taken), "EPERM");

        drop(kernel);
        let kernel = Kernel::adopt(&options).unwrap();
        let attachment = kernel.adopt_attachments().unwrap().pop().unwrap();
        kernel.feed().beat().unwrap();
        // The listeners of the dead are nobody's, and without any, nothing is decided.
        assert_eq!(run(Some(cgroup.path()), &probe), "EPERM\nEPERM\nEPERM");
        assert_eq!(run(Some(cgroup.path()), &taken), "ok");
        kernel.set_listeners(here, cgroup.id(), ports).unwrap();
        assert_eq!(run(Some(cgroup.path()), &probe), "ok\nok\nEPERM");
        finish(server);
        attachment.detach().unwrap();
    });
}

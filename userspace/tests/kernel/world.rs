//! One agent's world for one test: a network namespace, a cgroup with the programs attached, and
//! the interceptor's listeners. The agent is Python, because a probe should not share code with
//! what it probes.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use egret::identify::{NetnsCookie, SessionId};
use egret::redirect::cgroup::{Cgroup, Hierarchy};
use egret::redirect::ebpf::{AgentFlags, Attachment, Kernel, KernelOptions, ListenerPorts};
use egret::redirect::orig_dst::{KernelFlow, flow_key};
use egret::sys::socket::netns_cookie;

use agent_ebpf::address::Port;

/// Runs a test in a thread of its own inside a fresh network namespace, or says why not.
pub(crate) fn in_world(options: KernelOptions, test: impl FnOnce(&World) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return skipped("needs root");
    }
    if Command::new("python3").arg("-c").arg("").status().map_or(true, |s| !s.success()) {
        return skipped("needs python3");
    }
    let run = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        egret::sys::probe::loopback_up().unwrap();
        test(&World::new(&options));
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Not by a macro, whose output the test harness keeps to itself.
fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
}

pub(crate) struct World {
    pub(crate) kernel: Kernel,
    pub(crate) netns: NetnsCookie,
    pub(crate) tcp4: TcpListener,
    pub(crate) tcp6: TcpListener,
    pub(crate) dns4: UdpSocket,
    pub(crate) dns6: UdpSocket,
    // In this order: what is attached goes before its cgroup.
    _attachment: Attachment,
    pub(crate) cgroup: Cgroup,
}

impl World {
    fn new(options: &KernelOptions) -> Self {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        let kernel = Kernel::load(options).unwrap_or_else(|e| panic!("{e}"));
        let cgroup = Hierarchy::find().unwrap().create(&SessionId::random()).unwrap();
        let attachment = kernel.attach(&cgroup).unwrap();
        let tcp4 = TcpListener::bind(v4).unwrap();
        let netns = NetnsCookie(netns_cookie(tcp4.as_fd()).unwrap());
        let world = Self {
            kernel,
            netns,
            tcp4,
            tcp6: TcpListener::bind(v6).unwrap(),
            dns4: UdpSocket::bind(v4).unwrap(),
            dns6: UdpSocket::bind(v6).unwrap(),
            _attachment: attachment,
            cgroup,
        };
        world.tcp4.set_nonblocking(true).unwrap();
        world.tcp6.set_nonblocking(true).unwrap();
        let flags = AgentFlags::ACTIVE.with(AgentFlags::PRIVATE_NETNS);
        world.kernel.set_agent(world.cgroup.id(), flags).unwrap();
        world.kernel.set_listeners(netns, world.cgroup.id(), world.ports()).unwrap();
        world
    }

    pub(crate) fn ports(&self) -> ListenerPorts {
        let port = |a: io::Result<SocketAddr>| Port::new(a.unwrap().port());
        ListenerPorts {
            tcp4: port(self.tcp4.local_addr()),
            tcp6: port(self.tcp6.local_addr()),
            dns_udp4: port(self.dns4.local_addr()),
            dns_udp6: port(self.dns6.local_addr()),
            dns_tcp4: port(self.tcp4.local_addr()),
            dns_tcp6: port(self.tcp6.local_addr()),
            pad: [0; 4],
        }
    }

    /// Runs Python in the agent's place, bounded; answers what it printed.
    pub(crate) fn agent(&self, script: &str) -> String {
        finish(start(Some(&self.cgroup), script))
    }

    /// Runs the same Python outside of every agent: the control.
    pub(crate) fn outsider(&self, script: &str) -> String {
        finish(start(None, script))
    }

    /// Makes another agent in the same namespace, with the same flags and with these listeners.
    pub(crate) fn neighbour(&self, flags: AgentFlags, ports: ListenerPorts) -> Neighbour {
        let cgroup = Hierarchy::find().unwrap().create(&SessionId::random()).unwrap();
        let attachment = self.kernel.attach(&cgroup).unwrap();
        self.kernel.set_agent(cgroup.id(), flags).unwrap();
        self.kernel.set_listeners(self.netns, cgroup.id(), ports).unwrap();
        Neighbour { _attachment: attachment, cgroup }
    }

    /// Accepts one connection that is already there, and takes its flow.
    pub(crate) fn accept(&self, listener: &TcpListener) -> Option<KernelFlow> {
        let (stream, from) = listener.accept().expect("a connection should have arrived");
        let key = flow_key(self.netns, from, stream.local_addr().unwrap());
        let flow = self.kernel.feed().take_flow(&key).unwrap();
        assert_eq!(self.kernel.feed().take_flow(&key).unwrap(), None, "a flow was taken twice");
        flow
    }

    /// Answers one DNS query that is already there with its own bytes in capitals.
    pub(crate) fn echo(socket: &UdpSocket) {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 64];
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..n].to_ascii_uppercase(), from).unwrap();
    }
}

/// Another agent.
pub(crate) struct Neighbour {
    _attachment: Attachment,
    pub(crate) cgroup: Cgroup,
}

impl Neighbour {
    /// Runs Python in this agent's place.
    pub(crate) fn agent(&self, script: &str) -> String {
        finish(start(Some(&self.cgroup), script))
    }
}

/// The helpers that every probe has: `attempt(f)` prints "ok", what `f` answered, or the name of the
/// error.
const PRELUDE: &str = "
import errno, os, socket, struct, sys
def attempt(f):
    try:
        r = f()
        print('ok' if r is None else r)
    except OSError as e:
        print(errno.errorcode.get(e.errno, str(e)) if e.errno else type(e).__name__)
    sys.stdout.flush()
socket.setdefaulttimeout(3)
";

/// Python in a group (None: in no agent's), ended after ten seconds.
pub(crate) fn start(group: Option<&Cgroup>, script: &str) -> Child {
    let join = group.map(|g| format!("echo $$ > {}/cgroup.procs && ", g.path().display()));
    let line = format!("{}exec timeout 10 python3 -c \"$0\"", join.unwrap_or_default());
    Command::new("sh")
        .args(["-c", &line])
        .arg(format!("{PRELUDE}{script}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets it go on, and answers what it printed to its end.
pub(crate) fn finish(mut child: Child) -> String {
    drop(child.stdin.take());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What it prints next.
pub(crate) fn line(child: &mut Child) -> String {
    let mut reader = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    text.trim().to_owned()
}

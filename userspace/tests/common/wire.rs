//! What privileged tests share: namespaces that vanish with the thread that made them, a wire to
//! watch, and Python in a group of our choice.

use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};

/// Where nobody is: TEST-NET-3 (RFC 5737).
pub(crate) const NOBODY: &str = "203.0.113.5";

/// Runs a test on a thread with namespaces of its own, or says why not.
pub(crate) fn as_root(test: impl FnOnce(&Path) + Send + 'static) {
    let skip = |why: &str| drop(writeln!(io::stderr(), "SKIPPED: {why}"));
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    if Command::new("python3").arg("-c").arg("").status().map_or(true, |s| !s.success()) {
        return skip("needs python3");
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
        egret::sys::probe::loopback_up().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let _mounted = Unmount(folder.path().to_owned());
        test(folder.path());
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A mount would keep its folder from being removed, also after a failure.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let below: Vec<_> = points.filter(|point| point.starts_with(&self.0)).collect();
        for point in below.into_iter().rev() {
            let _ = umount2(point, MntFlags::MNT_DETACH);
        }
    }
}

/// A connection that is there, or about to be.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    for _ in 0..500 {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody connects");
}

/// One way out: a veth whose far end answers nobody.
pub(crate) fn wire() -> Wire {
    let line = "ip link add out type veth peer name far
        ip addr add 10.9.0.1/24 dev out; ip link set out up; ip link set far up
        ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev out
        ip route add default via 10.9.0.2";
    let made = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // SOCK_DGRAM on AF_PACKET: every packet of every interface, without its link header.
    let all = SockProtocol::EthAll;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let tap = socket(AddressFamily::Packet, SockType::Datagram, flags, all).unwrap();
    setsockopt(&tap, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    Wire(tap)
}

/// Sees what leaves.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// How many packets to [`NOBODY`] have left by anything but loopback since the last call.
    pub(crate) fn packets(&self) -> usize {
        let to: std::net::Ipv4Addr = NOBODY.parse().unwrap();
        let (mut seen, mut buffer) = (0, [0; 2048]);
        while let Ok((n, Some(from))) = recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
            let ipv4_to = buffer[..n].get(16..20) == Some(&to.octets());
            seen += usize::from(from.ifindex() != 1 && buffer[0] >> 4 == 4 && ipv4_to);
        }
        seen
    }
}

const PRELUDE: &str = "
import errno, os, socket, sys, time
def attempt(f):
    try:
        r = f()
        print('ok' if r is None else r)
    except OSError as e:
        print(errno.errorcode.get(e.errno, str(e)) if e.errno else type(e).__name__)
    sys.stdout.flush()
socket.setdefaulttimeout(3)
";

/// One UDP datagram and one SYN to [`NOBODY`], each with its error.
pub(crate) fn tries() -> String {
    format!(
        "
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{NOBODY}', 443)) and None)
def syn():
    s = socket.socket(); s.settimeout(0.3); s.connect(('{NOBODY}', 443))
attempt(syn)
"
    )
}

/// Python in a group (None: in no agent's), ended after a minute.
pub(crate) fn start(group: Option<&Path>, script: &str) -> Child {
    let join = group.map(|g| format!("echo $$ > {}/cgroup.procs && ", g.display()));
    Command::new("sh")
        .args(["-c", &format!("{}exec timeout 60 python3 -c \"$0\"", join.unwrap_or_default())])
        .arg(format!("{PRELUDE}{script}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The same, to its end; answers what it printed.
pub(crate) fn run(group: Option<&Path>, script: &str) -> String {
    let out = start(group, script).wait_with_output().unwrap();
    assert!(out.status.success());
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

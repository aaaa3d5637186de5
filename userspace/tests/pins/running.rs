//! Attaching to groups whose processes run and hold sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use egret::redirect::attach::{AttachError, Attached, How, attach_running, namespaces};
use egret::redirect::cgroup::Hierarchy;
use egret::redirect::ebpf::{Kernel, KernelOptions, Overlap};
use egret::redirect::netns::{Netns, own_cookie};
use egret::sys::sock_diag::Diag;
use nix::unistd::Pid;

use crate::world::{as_root, group, pinned, serve, start};

const HOW: How<'static> =
    How { name: None, freeze: Duration::from_secs(5), overlap: Overlap::Refuse };

pub(crate) fn line(child: &mut Child) -> String {
    let mut reader = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    text.trim().to_owned()
}

/// Asks a waiting child to go on, and reads to its end.
pub(crate) fn finish(mut child: Child) -> String {
    let _ = child.stdin.take().unwrap().write_all(b"go\n");
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// The three connections of a [`holder`] are gone, by whatever error; its listener answers so.
fn assert_lost(printed: &str, listener: &str) {
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{printed}");
    assert!(lines[..3].iter().all(|line| *line != "ok"), "{printed}");
    assert_eq!(lines[3], listener, "{printed}");
}

pub(crate) fn freeze_file(group: &Path) -> String {
    std::fs::read_to_string(group.join("cgroup.freeze")).unwrap().trim().to_owned()
}

/// Holds a connection of its own and one in each direction of UDP, says so, waits, and tries them.
fn holder(port: u16) -> String {
    format!(
        "
t = socket.create_connection(('127.0.0.1', {port}))
server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); six.connect(('::1', {port}))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('127.0.0.1', {port}))
print('ready'); sys.stdout.flush()
sys.stdin.readline()
attempt(lambda: t.send(b'late') and None)
attempt(lambda: u.send(b'late') and None)
attempt(lambda: six.send(b'late') and None)
attempt(lambda: socket.create_connection(server.getsockname()).close())
"
    )
}

#[test]
fn what_was_open_is_destroyed_and_strangers_keep_theirs() {
    as_root(|_| {
        let kernel = Kernel::load(&KernelOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cgroup = group();
        std::fs::create_dir(cgroup.path().join("below")).unwrap();
        let mut inside = start(Some(&cgroup.path().join("below")), &holder(port));
        let (mut theirs, _) = listener.accept().unwrap();
        let mut stranger = start(None, &holder(port));
        let (mut others, _) = listener.accept().unwrap();
        assert_eq!((line(&mut inside), line(&mut stranger)), ("ready".into(), "ready".into()));

        let here = own_cookie().unwrap();
        let mut served = None;
        let attached = attach_running(&kernel, &cgroup, &HOW, |found: &[Netns]| {
            assert_eq!(freeze_file(cgroup.path()), "1");
            assert_eq!(found.iter().map(Netns::cookie).collect::<Vec<_>>(), [here]);
            served = Some(serve(&kernel, &cgroup));
            Ok::<_, std::io::Error>(found.len())
        });
        let Attached { attachment, prepared, destroyed, foreign } = attached.unwrap();
        assert_eq!((prepared, destroyed, foreign), (1, 3, 0));
        assert_eq!(freeze_file(cgroup.path()), "0");

        assert_eq!(
            theirs.read(&mut [0; 9]).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        // Its listener was spared, and its datagrams have lost their peers.
        assert_lost(&finish(inside), "ok");
        assert_eq!(finish(stranger), "ok\nok\nok\nok");
        let mut late = [0; 4];
        others.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"late");
        attachment.detach().unwrap();
    });
}

#[test]
fn a_socket_from_another_group_is_destroyed_and_counted() {
    as_root(|_| {
        let kernel = Kernel::load(&KernelOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Opened outside, and then moved in with its process.
        let mut child = start(None, &holder(listener.local_addr().unwrap().port()));
        let (mut theirs, _) = listener.accept().unwrap();
        assert_eq!(line(&mut child), "ready");
        let cgroup = group();
        // `timeout` has one child: the Python that holds them.
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let python = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
        cgroup.add(Pid::from_raw(python)).unwrap();
        let nothing = |_: &[Netns]| Ok::<_, std::io::Error>(());
        let attached = attach_running(&kernel, &cgroup, &HOW, nothing).unwrap();
        // The listener too: what it accepts would not be governed.
        assert_eq!((attached.destroyed, attached.foreign), (4, 4));
        assert!(theirs.read(&mut [0; 9]).is_err());
        assert_lost(&finish(child), "EPERM");
    });
}

#[test]
fn sockets_of_other_namespaces_are_found() {
    as_root(|_| {
        let kernel = Kernel::load(&KernelOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cgroup = group();
        let mut here = start(Some(cgroup.path()), &holder(port));
        let (_theirs, _) = listener.accept().unwrap();
        let script = "
import ctypes, subprocess
ctypes.CDLL(None).unshare(0x40000000)
subprocess.check_call(['ip', 'link', 'set', 'lo', 'up'])
far = socket.socket(); far.bind(('127.0.0.1', 0)); far.listen()
near = socket.create_connection(far.getsockname()); peer, _ = far.accept()
print('ready'); sys.stdout.flush()
sys.stdin.readline()
attempt(lambda: near.send(b'x') and None)
";
        let mut there = start(Some(cgroup.path()), script);
        assert_eq!((line(&mut here), line(&mut there)), ("ready".into(), "ready".into()));
        assert_eq!(namespaces(&cgroup).unwrap().len(), 2);
        let count = |found: &[Netns]| Ok::<_, std::io::Error>(found.len());
        let attached = attach_running(&kernel, &cgroup, &HOW, count).unwrap();
        // Three here; there, the reset of one end may take the other with it.
        assert_eq!((attached.prepared, attached.foreign), (2, 0));
        assert!((4..=5).contains(&attached.destroyed), "{}", attached.destroyed);
        assert_ne!(finish(there), "ok");
        finish(here);
    });
}

#[test]
fn what_fails_leaves_the_group_running_as_it_was() {
    as_root(|folder| {
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cgroup = group();
        let mut child = start(Some(cgroup.path()), &holder(listener.local_addr().unwrap().port()));
        let _theirs: (TcpStream, _) = listener.accept().unwrap();
        assert_eq!(line(&mut child), "ready");
        let nothing = |_: &[Netns]| Ok::<_, std::io::Error>(());
        let named = How { name: Some("a"), ..HOW };

        let failing = |_: &[Netns]| Err::<(), _>(std::io::Error::other("no port is free"));
        let refused = attach_running(&kernel, &cgroup, &named, failing).unwrap_err();
        assert!(refused.to_string().contains("no port is free"), "{refused}");
        assert_eq!(freeze_file(cgroup.path()), "0");
        assert!(kernel.pins().unwrap().agents().unwrap().is_empty());

        let hierarchy = Hierarchy::find().unwrap();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
        let own = hierarchy.open(Path::new(&own)).unwrap();
        let refused = attach_running(&kernel, &own, &named, nothing).unwrap_err();
        assert!(matches!(refused, AttachError::HoldsEgret(_)), "{refused}");

        // The name is taken, and so is the group, by the one below it.
        let below = cgroup.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let below = hierarchy.open(below.strip_prefix(hierarchy.root()).unwrap()).unwrap();
        let first = attach_running(&kernel, &below, &named, nothing).unwrap().attachment;
        for name in ["a", "b"] {
            let how = How { name: Some(name), ..HOW };
            let refused = attach_running(&kernel, &cgroup, &how, nothing).unwrap_err();
            assert!(matches!(refused, AttachError::Kernel(_)), "{refused}");
            assert_eq!(freeze_file(cgroup.path()), "0");
        }
        first.detach().unwrap();
        // The control: nothing of the child was touched.
        assert_eq!(finish(child), "ok\nok\nok\nok");

        // Somebody else's freeze is left as it was.
        cgroup.freeze().unwrap();
        attach_running(&kernel, &cgroup, &named, nothing).unwrap().attachment.detach().unwrap();
        assert_eq!(freeze_file(cgroup.path()), "1");
        cgroup.thaw().unwrap();

        let path = cgroup.path().to_owned();
        drop(below);
        let gone = hierarchy.open(path.strip_prefix(hierarchy.root()).unwrap()).unwrap();
        cgroup.destroy().unwrap();
        let refused = attach_running(&kernel, &gone, &named, nothing).unwrap_err();
        assert!(matches!(refused, AttachError::Cgroup(_)), "{refused}");
    });
}

#[test]
fn this_kernel_can_destroy_sockets() {
    as_root(|_| {
        let diag = Diag::open_here().unwrap();
        diag.probe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = diag.sockets().unwrap();
        let own: Vec<_> = found.iter().filter(|s| s.ports().0 == port).collect();
        assert_eq!(own.len(), 1);
        assert!(own[0].waits() && own[0].cgroup.is_some());
        assert!(diag.destroy(own[0]).unwrap());
        assert!(!diag.destroy(own[0]).unwrap(), "it is gone already");
    });
}

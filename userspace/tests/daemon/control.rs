//! The control socket: who may ask, and what nobody can do to the others by way of it.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use egret::sys::fdpass;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::probe::{SERVED, run};
use crate::world::{Said, World, eventually, report, with_daemon};

/// Longer than the daemon waits for a request.
const TIME_OUT: Duration = Duration::from_secs(10);

/// Asks in the daemon's own words, as a user.
fn as_user(w: &World, id: u32, request: &str) -> String {
    let path = w.run_dir().join("control.sock");
    let script = format!(
        "
os.setresgid({id}, {id}, {id}); os.setresuid({id}, {id}, {id})
def talk():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{}')
    s.sendall(b'\\0' + b'{request}'); return s.recv(65536)[1:].decode()
attempt(talk)
",
        path.display()
    );
    run(None, &script)
}

#[test]
fn users_may_what_their_group_may_and_agents_nothing() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let detach = r#"{"Detach":{"name":"a","deny":false}}"#;
        // 1 is in the group `daemon` of egret.toml, by its own group; 65533 is not.
        assert!(as_user(w, 1, "\"Status\"").contains("\"agents\""));
        let said = as_user(w, 1, detach);
        assert!(said.contains("is not root"), "{said}");
        w.recorded("control_refused", "uid 1 is not root");
        assert_eq!(as_user(w, 65533, "\"Status\""), "EACCES");
        // Not the socket's mode alone keeps the others out.
        let path = w.run_dir().join("control.sock");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        for request in ["\"Status\"", "\"Reload\"", detach] {
            let said = as_user(w, 65533, request);
            assert!(said.contains("Refused"), "{request}: {said}");
        }
        w.recorded("control_refused", "uid 65533 is not in the daemon's group");
        w.recorded("control_refused", "uid 65533 is not root");

        // A process of an agent is refused whoever it is.
        let inside = |args: &[&str]| {
            let line = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", w.at(&group).display());
            let egret = w.command(args);
            let mut command = Command::new("sh");
            command.args(["-c", &line, "sh"]).arg(egret.get_program()).args(egret.get_args());
            command.env("EGRET_RUN", w.run_dir());
            Said::of(&command.output().unwrap())
        };
        for args in [&["status"][..], &["detach", "a"], &["reload"]] {
            inside(args).refused("agents may not ask");
        }
        w.recorded("control_refused", "of uid 0 is an agent's");
        let records = w.audit();
        let of_agent = records
            .iter()
            .find(|r| r["message"].as_str().is_some_and(|m| m.ends_with("of uid 0 is an agent's")));
        assert_eq!(of_agent.unwrap()["agent"], serde_json::json!(["a"]));
        assert_eq!(w.tries(&group), SERVED);
        w.nothing_left();
        w.detach("a");
        w.leaves(&group);
        assert_eq!(inside(&["status"]).code, 0, "the control");
    });
}

fn dial(w: &World) -> OwnedFd {
    let fd =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let path = w.run_dir().join("control.sock");
    connect(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
    fd
}

/// Sends a packet as it is, and answers what comes back.
fn send(w: &World, packet: &[u8], fds: &[BorrowedFd<'_>]) -> String {
    let socket = dial(w);
    fdpass::send_all(&socket, packet, fds).unwrap();
    let answer = fdpass::receive_all(&socket).unwrap();
    answer.map_or_else(String::new, |(bytes, _)| String::from_utf8_lossy(&bytes[1..]).into_owned())
}

fn memory(text: &[u8], length: u64) -> File {
    let mut file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(text).unwrap();
    file.set_len(length.max(text.len() as u64)).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn garbage_is_answered_and_others_are_served() {
    with_daemon(|w| {
        let status = &b"\0\"Status\""[..];
        let deep = [b"\0", &b"[".repeat(8000)[..]].concat();
        for packet in [
            &b"\0"[..],
            b"\0{",
            b"\0\"Status",
            b"\0\"Nothing\"",
            b"\0{\"Detach\":{}}",
            b"\x01",
            b"\x02\"Status\"",
            b"\xff\xfe",
            &deep,
            &[0; 16_000],
        ] {
            let said = send(w, packet, &[]);
            assert!(said.contains("Refused"), "{:?}: {said}", &packet[..packet.len().min(20)]);
        }
        // Descriptors that nobody asked for, and memory that holds too much.
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let huge = memory(b"\"Status\"", 1 << 40);
        let blanks = memory(&b" ".repeat(17 << 20), 0);
        for fd in [pipe.as_fd(), huge.as_fd(), blanks.as_fd()] {
            let said = send(w, b"\x01", &[fd]);
            assert!(said.contains("Refused"), "{said}");
        }
        assert!(send(w, status, &[pipe.as_fd(); 8]).contains("agents"));
        let small = memory(b"\"Status\"", 0);
        assert!(send(w, b"\x01", &[small.as_fd()]).contains("agents"), "the control");
        // Gone before the answer, and gone before the question.
        for _ in 0..20 {
            let socket = dial(w);
            fdpass::send(&socket, status, None).unwrap();
            drop(socket);
            drop(dial(w));
        }
        assert!(send(w, status, &[]).contains("agents"));
        assert!(!w.log().contains("panicked"), "{}", w.log());
    });
}

#[test]
fn silent_connections_do_not_stand_in_the_way_of_others() {
    with_daemon(|w| {
        let group = w.group("a");
        let silent: Vec<OwnedFd> = (0..100).map(|_| dial(w)).collect();
        let begun = Instant::now();
        // Those of root are many, and do not keep a user out.
        assert!(as_user(w, 1, "\"Status\"").contains("\"agents\""));
        assert!(begun.elapsed() < TIME_OUT, "the user waited for root");
        // Root itself waits until they are timed out.
        eventually("root is served", || w.egret(&["status"]).code == 0);
        report(&format!("beside 100 silent connections served after {:?}", begun.elapsed()));
        w.attach("a", &group, &w.policy("p", &[80], ""));
        assert_eq!(w.tries(&group), SERVED);
        w.nothing_left();
        drop(silent);
    });
}

//! What agents try: Python, because a probe should not share code with what it probes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Child;

use crate::wire;
use crate::world::{World, eventually};

/// A datagram to nobody, a connection to nobody, and one to the served name: governed and served.
pub(crate) const SERVED: &str = "EPERM ok ok";
/// Governed, and the policy does not name the served name's port.
pub(crate) const REFUSED: &str = "EPERM ok closed";
/// Attached, and refused everything.
pub(crate) const CLOSED: &str = "EPERM EPERM no name";
/// Not governed: both leave, and nobody knows the name.
pub(crate) const OUTSIDE: &str = "ok TimeoutError no name";

const LANGUAGE: &str = "
def where(host, port):
    try: return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    except socket.gaierror: return None
def echo(host='served.test', port=80):
    to = where(host, port)
    if to is None: return 'no name'
    s = socket.create_connection(to[:2], 5); s.sendall(b'hi')
    try: r = s.recv(9)
    except ConnectionResetError: r = b''
    return None if r == b'hi' else 'closed'
def say(*words):
    print(*words); sys.stdout.flush()
";

/// Python in a group, with what these tests share.
pub(crate) fn start(group: Option<&Path>, script: &str) -> Child {
    wire::start(group, &format!("{LANGUAGE}{script}"))
}

pub(crate) fn run(group: Option<&Path>, script: &str) -> String {
    wire::run(group, &format!("{LANGUAGE}{script}"))
}

/// One line of a child.
#[track_caller]
pub(crate) fn line(child: &mut Child) -> String {
    let mut reader = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    text.trim().to_owned()
}

/// Lets a child go on that waits for a line, and answers what it says next.
#[track_caller]
pub(crate) fn ask(child: &mut Child, what: &str) -> String {
    writeln!(child.stdin.as_mut().unwrap(), "{what}").unwrap();
    line(child)
}

impl World {
    /// The three tries, from a process in this group.
    pub(crate) fn tries(&self, group: &str) -> String {
        self.tries_on(group, 80)
    }

    pub(crate) fn tries_on(&self, group: &str, port: u16) -> String {
        let script = format!("{}attempt(lambda: echo(port={port}))", wire::tries());
        run(Some(&self.at(group)), &script).lines().collect::<Vec<_>>().join(" ")
    }

    /// Waits until the tries end so; a moment after a start, or on a slow machine, they do not yet.
    #[track_caller]
    pub(crate) fn tries_become(&self, group: &str, expected: &str) {
        let mut last = String::new();
        eventually(&format!("`{expected}` in {group}"), || {
            last = self.tries(group);
            last == expected
        });
    }

    /// The control: outside of every agent they leave, and are seen on the wire.
    #[track_caller]
    pub(crate) fn leaves(&self, group: &str) {
        assert_eq!(self.tries(group), OUTSIDE, "the control: what is not governed");
        assert!(self.wire.packets() >= 2, "the control: it is seen on the wire");
    }

    /// Nothing has left since the last look.
    #[track_caller]
    pub(crate) fn nothing_left(&self) {
        assert_eq!(self.wire.packets(), 0, "packets on the wire");
    }
}

/// A stream to the served name that goes back and forth until it breaks: one line when it runs,
/// and one with the error when it ends.
pub(crate) fn stream(port: u16) -> String {
    format!(
        "
s = socket.create_connection(where('served.test', {port})[:2], 5)
def once():
    s.sendall(b'x')
    if not s.recv(9): raise ConnectionAbortedError()
once(); say('runs')
import select
def go():
    while True:
        once()
        if select.select([0], [], [], 0.02)[0]:
            if not sys.stdin.readline(): return 'left alone'
            say('still')
attempt(go)
"
    )
}

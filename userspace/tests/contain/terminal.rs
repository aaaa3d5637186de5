//! An operator's terminal: the test plays the person in front of it. A driver process (this test
//! binary again) contains a command on a terminal that `setsid -c` makes its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use egret::sys::tty::{self, Size};
use nix::poll::{PollFd, PollFlags, poll};

use crate::harness::{Box, skipped};

/// Not a test: contains `sh -c $SCRIPT` with a terminal and exits with its code.
#[test]
#[ignore = "run by the tests of this file"]
fn driver() {
    let b = Box::new();
    let script = std::env::var("SCRIPT").unwrap();
    let mut plan = b.plan(&["bash", "--norc", "-c", &script]);
    plan.terminal = true;
    let status = b.run(plan);
    println!("CODE={}", status.code());
}

/// For what must appear, in milliseconds; a test that waits so long has failed.
const PATIENCE: u16 = 60_000;

struct Person {
    master: File,
    child: Child,
    seen: String,
}

impl Person {
    /// Runs a shell line on a new terminal; `$DRIVER` in it contains `$SCRIPT`.
    fn new(shell: &[&str], script: &str) -> Self {
        let (master, slave) = tty::new_pair("/dev/ptmx".as_ref()).unwrap();
        tty::set_size(&master, Size { rows: 33, columns: 101 }).unwrap();
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let exe = std::env::current_exe().unwrap();
        let driver = format!("{} --exact terminal::driver --ignored --nocapture", exe.display());
        // Whoever runs the tests may ignore signals (nohup), and a shell cannot trap those.
        let child = Command::new("env")
            .args(["--default-signal=HUP,INT,QUIT,TERM", "setsid", "-c", "-w"])
            .args(shell)
            .env("DRIVER", driver)
            .env("SCRIPT", script)
            .env("PS1", "outside$ ")
            .stdin(end(&slave))
            .stdout(end(&slave))
            .stderr(end(&slave))
            .spawn()
            .unwrap();
        Self { master: master.into(), child, seen: String::new() }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `text` has appeared, and forgets all up to it.
    fn sees(&mut self, text: &str) {
        let mut chunk = [0; 1024];
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let mut screen = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut screen, PATIENCE).unwrap();
            assert!(ready > 0, "waited for {text:?} after {:?}", self.seen);
            match self.master.read(&mut chunk) {
                Ok(n) if n > 0 => self.seen.push_str(&String::from_utf8_lossy(&chunk[..n])),
                end => panic!("waited for {text:?}, ended with {end:?} after {:?}", self.seen),
            }
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn size_resize_and_interrupt_reach_the_command() {
    if skipped("size_resize_and_interrupt_reach_the_command") {
        return;
    }
    let script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 9' INT; tty; stty size; \
        echo ready; while :; do sleep 0.05; done";
    let mut p = Person::new(&["sh", "-c", "$DRIVER"], script);
    p.sees("/dev/pts/0"); // its own devpts: the name is right inside
    p.sees("33 101");
    p.sees("ready");
    tty::set_size(&p.master, Size { rows: 44, columns: 88 }).unwrap();
    p.sees("44 88");
    p.types("\x03");
    p.sees("interrupted");
    p.sees("CODE=9");
}

#[test]
fn job_control_works_inside_and_the_modes_come_back() {
    if skipped("job_control_works_inside_and_the_modes_come_back") {
        return;
    }
    let mut p =
        Person::new(&["sh", "-c", "$DRIVER; stty -a"], "PS1='inside$ ' exec bash --norc -i");
    p.sees("inside$ ");
    p.types("sleep 1000\n");
    p.sees("sleep 1000");
    std::thread::sleep(std::time::Duration::from_millis(300));
    p.types("\x1a");
    p.sees("Stopped");
    p.types("jobs; kill %1; echo he''re; exit 4\n");
    p.sees("here");
    p.types("exit 4\n"); // a shell with stopped jobs asks twice
    p.sees("CODE=4");
    p.sees(" icanon");
    p.sees(" echo ");
}

#[test]
fn suspend_stops_egret_and_fg_goes_on() {
    if skipped("suspend_stops_egret_and_fg_goes_on") {
        return;
    }
    let script = "echo sta''rted; read line; echo got $line";
    let mut p = Person::new(&["bash", "--norc", "-i"], script);
    p.sees("outside$ ");
    p.types("$DRIVER\n");
    p.sees("started");
    p.types("\x1a");
    p.sees("Stopped");
    p.types("echo sh''ell\n");
    p.sees("shell"); // the outer shell has its terminal back
    p.types("fg\n");
    p.sees("$DRIVER");
    std::thread::sleep(std::time::Duration::from_millis(300));
    p.types("word\n");
    p.sees("got word");
    p.sees("CODE=0");
    p.types("exit\n");
}

#[test]
fn in_a_pipeline_the_terminal_is_left_alone_until_it_is_wanted() {
    if skipped("in_a_pipeline_the_terminal_is_left_alone_until_it_is_wanted") {
        return;
    }
    // Standard input is a pipe; the command reads a key from its terminal, as a pager does.
    let script = "cat; echo asking; read key </dev/tty; echo key $key";
    let mut p = Person::new(&["bash", "--norc", "-i"], script);
    p.sees("outside$ ");
    p.types("echo piped | $DRIVER\n");
    p.sees("piped\r");
    p.sees("asking");
    std::thread::sleep(std::time::Duration::from_millis(300));
    p.types("k\n");
    p.sees("key k");
    p.sees("CODE=0");
    p.types("exit\n");
}

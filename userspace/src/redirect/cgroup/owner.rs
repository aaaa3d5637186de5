//! Whose a session's cgroup is, written in its name: the PID namespace, the process and its start
//! time. All three, because a process id alone comes again.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io, process};

/// An egret process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Inode of the PID namespace. A process of another namespace cannot be judged from here.
    namespace: u64,
    pid: u32,
    /// Clock ticks since boot.
    start: u64,
}

impl Owner {
    /// This process.
    pub(super) fn current() -> io::Result<Self> {
        let pid = process::id();
        let start = start_time(pid)?
            .ok_or_else(|| io::Error::other("/proc/self/stat is not in the form of proc(5)"))?;
        Ok(Self { namespace: namespace()?, pid, start })
    }

    pub(super) fn name(&self, session: &str) -> String {
        format!("{}.{}.{}.{session}", self.namespace, self.pid, self.start)
    }

    /// The owner in a name; None if the name is not one of egret's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '.');
        let namespace = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let start = parts.next()?.parse().ok()?;
        parts.next()?;
        Some(Self { namespace, pid, start })
    }

    /// Whether the process is certainly gone. In doubt it lives.
    pub(super) fn is_dead(&self) -> bool {
        if !namespace().is_ok_and(|ours| ours == self.namespace) {
            return false;
        }
        match start_time(self.pid) {
            Ok(Some(start)) => start != self.start,
            Ok(None) => false,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|m| m.ino())
}

fn start_time(pid: u32) -> io::Result<Option<u64>> {
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .map(|stat| parse_start(&stat))
}

/// Field 22 of /proc/pid/stat. The name in field 2 may hold spaces and parentheses, so fields are
/// counted from the last one.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_its_owner() {
        let owner = Owner { namespace: 4026531836, pid: 7, start: 99 };
        let name = owner.name("00ff.more");
        assert_eq!(Owner::parse(&name), Some(owner));
        for other in ["", "session", "1.2.3", "1.2.x.s", "-1.2.3.s", "a.b.c.d"] {
            assert_eq!(Owner::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_process_that_is_gone_is_dead() {
        let me = Owner::current().unwrap();
        assert!(!me.is_dead());
        assert!(Owner { start: me.start + 1, ..me }.is_dead(), "the id came again");
        assert!(Owner { pid: u32::MAX, ..me }.is_dead(), "no such process");
        let elsewhere = Owner { namespace: me.namespace + 1, pid: u32::MAX, ..me };
        assert!(!elsewhere.is_dead(), "cannot be judged from here");
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let fields = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1 1";
        for name in ["cat", "a b", "x) y (z"] {
            assert_eq!(parse_start(&format!("1 ({name}) {fields}")), Some(777), "{name}");
        }
        assert_eq!(parse_start("1 (cat) S 1"), None);
        assert_eq!(parse_start(""), None);
    }
}

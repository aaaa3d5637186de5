//! What /proc adds to the kernel's facts about a process, or nothing: a process is only described
//! when it is provably the one that opened the flow (held by pidfd, started no later than the
//! flow, in the agent's cgroup). A recycled pid must never lend its name to a record.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::Process;
use crate::sys::pidfd;

/// Adds `exe` and `cgroup` to the kernel's facts, if the process that has this pid now is proven to
/// be the one that opened the flow. `opened` is when it did, on CLOCK_BOOTTIME
/// (`bpf_ktime_get_boot_ns`, kernel 5.7), which is also what /proc counts process starts in;
/// `cgroup_prefix` is the agent's cgroup path inside the cgroup v2 mount, such as `/egret/run-17`.
pub fn describe(mut process: Process, opened: Duration, cgroup_prefix: &str) -> Process {
    if let Some((exe, cgroup)) = prove(process.tgid, opened, cgroup_prefix) {
        process.exe = exe;
        process.cgroup = Some(cgroup);
    }
    process
}

fn prove(tgid: u32, opened: Duration, cgroup_prefix: &str) -> Option<(Option<PathBuf>, String)> {
    // The pidfd is taken first: while it reads as alive afterwards, the pid was not recycled.
    let held = pidfd::open(tgid).ok()?;
    let base = PathBuf::from(format!("/proc/{tgid}"));
    let started = start_time(&fs::read_to_string(base.join("stat")).ok()?)?;
    let cgroup = unified_cgroup(&fs::read_to_string(base.join("cgroup")).ok()?)?.to_owned();
    let exe = fs::read_link(base.join("exe")).ok();
    if !pidfd::is_alive(&held) || started > opened + TICK {
        return None;
    }
    is_inside(&cgroup, cgroup_prefix).then_some((exe, cgroup))
}

/// The resolution of `starttime` in /proc/pid/stat: USER_HZ is 100 on every Linux ABI.
const TICK: Duration = Duration::from_millis(10);

/// Field 22 of /proc/pid/stat, since boot. The name in field 2 may contain anything, so the
/// fields are counted from its last parenthesis.
fn start_time(stat: &str) -> Option<Duration> {
    let after = stat.rsplit_once(')')?.1;
    let ticks: u64 = after.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(TICK * u32::try_from(ticks).ok()?)
}

/// The `0::` line of /proc/pid/cgroup.
fn unified_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|l| l.strip_prefix("0::"))
}

fn is_inside(cgroup: &str, prefix: &str) -> bool {
    cgroup.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::time::{ClockId, clock_gettime};

    #[test]
    fn start_time_survives_hostile_names() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 99";
        for name in ["sh", ") R 0", "a b) c", "\n0::/x"] {
            let stat = format!("77 ({name}) {tail}");
            assert_eq!(start_time(&stat), Some(TICK * 4242), "{name:?}");
        }
        assert_eq!(start_time("77 (sh) S 1"), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn a_prefix_is_a_folder_not_a_spelling() {
        assert!(is_inside("/egret/a", "/egret/a"));
        assert!(is_inside("/egret/a/b", "/egret/a"));
        assert!(!is_inside("/egret/ab", "/egret/a"));
        assert!(!is_inside("/", "/egret/a"));
    }

    #[test]
    fn the_unified_line_is_found_in_hybrid_layouts() {
        assert_eq!(unified_cgroup("3:cpu:/x\n1:name=systemd:/y\n0::/egret/a\n"), Some("/egret/a"));
        assert_eq!(unified_cgroup("3:cpu:/x\n"), None);
    }

    #[test]
    fn this_process_is_described_and_a_later_start_is_not() {
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap();
        let prefix = unified_cgroup(&cgroup).map_or("", |c| c.trim_end_matches('/')).to_owned();
        let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let me = |opened, prefix: &str| {
            let id = std::process::id();
            let (exe, cgroup) = (None, None);
            let process = Process { pid: id, tgid: id, uid: 0, comm: "x".into(), exe, cgroup };
            describe(process, opened, prefix).exe
        };
        assert!(me(now, &prefix).is_some(), "control");
        assert!(me(Duration::ZERO, &prefix).is_none(), "flow older than the process");
        assert!(me(now, "/not/here").is_none(), "other cgroup");
    }
}

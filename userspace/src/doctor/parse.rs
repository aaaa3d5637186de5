//! Pure: the texts of /proc and /sys that doctor reads.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::facts::Layout;

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    options: &'a str,
    kind: &'a str,
    super_options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        // 35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
        let mut system = system.split(' ');
        let kind = system.next()?;
        let super_options = system.nth(1).unwrap_or("");
        Some(Mount { root, point: unescape(point), options, kind, super_options })
    })
}

/// Spaces, tabs, newlines and backslashes are written as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| first == b'\\' && d.is_ascii());
        let code = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(out).into()
}

/// Where the hierarchies of cgroups are mounted. `root` is the mount that egret uses.
pub(super) fn cgroups(mountinfo: &str, root: Option<PathBuf>) -> Layout {
    let mut layout = Layout { root, ..Layout::default() };
    for mount in mounts(mountinfo) {
        if mount.kind == "cgroup" {
            layout.v1 += 1;
        }
        // The last one on a mount point is the one that is seen.
        if mount.kind == "cgroup2" && Some(&mount.point) == layout.root.as_ref() {
            layout.read_only = [mount.options, mount.super_options].iter().any(|o| has(o, "ro"));
            layout.part = mount.root != "/";
        }
    }
    layout
}

fn has(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// The mount points of bpffs, in the order of mounting.
pub(super) fn bpffs(mountinfo: &str) -> Vec<PathBuf> {
    mounts(mountinfo).filter(|m| m.kind == "bpf").map(|m| m.point).collect()
}

/// Whether securityfs, in which security modules show their state, is mounted where they say.
pub(super) fn has_securityfs(mountinfo: &str) -> bool {
    mounts(mountinfo)
        .any(|m| m.kind == "securityfs" && m.point.as_os_str() == "/sys/kernel/security")
}

/// The number behind a name in /proc/PID/status, in hexadecimal.
pub(super) fn hex_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Whether a /proc/PID/uid_map is that of the host's own user namespace: everybody is themselves
/// (user_namespaces(7)).
pub(super) fn maps_everybody(uid_map: &str) -> bool {
    let mut lines = uid_map.lines();
    let Some(line) = lines.next() else { return false };
    let fields: Vec<&str> = line.split_whitespace().collect();
    fields == ["0", "0", "4294967295"] && lines.next().is_none()
}

/// What /proc/swaps lists: name and KiB.
pub(super) fn swaps(text: &str) -> Vec<(String, u64)> {
    let area = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some(((*fields.first()?).to_owned(), fields.get(2)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(area).collect()
}

/// The servers that /etc/resolv.conf names (resolv.conf(5)).
pub(super) fn name_servers(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next().map(str::to_owned))?
    };
    text.lines().filter_map(server).collect()
}

/// The last line of the verifier's log that says something: what it did not accept.
pub(super) fn complaint(log: &str) -> Option<&str> {
    let counts = |line: &&str| !line.starts_with("processed ") && !line.trim().is_empty();
    log.lines().rev().find(counts).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw
50 1 0:40 / /sys/fs/bpf rw - bpf bpf rw
51 50 0:41 / /sys/fs/bpf rw - bpf none rw
52 1 0:42 / /a\\040b rw - bpf none rw
not a mount";

    #[test]
    fn layouts_of_cgroups() {
        let at = |p: &str| Some(PathBuf::from(p));
        let hybrid = cgroups(HYBRID, at("/sys/fs/cgroup/unified"));
        let wanted = Layout { root: at("/sys/fs/cgroup/unified"), v1: 1, ..Layout::default() };
        assert_eq!(hybrid, wanted);
        let cases = [
            ("1 2 0:3 / /c rw - cgroup2 c rw", false, false),
            ("1 2 0:3 / /c ro,nosuid - cgroup2 c rw", true, false),
            ("1 2 0:3 / /c rw - cgroup2 c ro", true, false),
            ("1 2 0:3 /docker/x /c rw - cgroup2 c rw", false, true),
            // `ro` as a part of another word is not an option.
            ("1 2 0:3 / /c rw,root - cgroup2 c rw", false, false),
        ];
        for (text, read_only, part) in cases {
            let found = cgroups(text, at("/c"));
            assert_eq!((found.read_only, found.part), (read_only, part), "{text}");
        }
        assert_eq!(cgroups("1 2 0:3 / /c rw - cgroup c rw", None).v1, 1);
    }

    #[test]
    fn every_bpffs_is_listed_in_order() {
        let wanted = ["/sys/fs/bpf", "/sys/fs/bpf", "/a b"].map(PathBuf::from);
        assert_eq!(bpffs(HYBRID), wanted);
    }

    #[test]
    fn securityfs_is_found_by_kind_and_place() {
        let at = |kind: &str, point: &str| format!("1 2 0:3 / {point} rw - {kind} none rw");
        assert!(has_securityfs(&at("securityfs", "/sys/kernel/security")));
        assert!(!has_securityfs(&at("tmpfs", "/sys/kernel/security")));
        assert!(!has_securityfs(&at("securityfs", "/mnt")));
    }

    #[test]
    fn fields_of_status() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        assert_eq!(hex_field(status, "CapEff"), Some(0x1ff_ffff_ffff));
        assert_eq!(hex_field(status, "Cap"), None);
        assert_eq!(hex_field("CapEff:\tzz\n", "CapEff"), None);
    }

    #[test]
    fn only_the_whole_range_is_the_initial_namespace() {
        let cases = [
            ("         0          0 4294967295\n", true),
            ("         0       1000          1\n", false),
            ("0 0 4294967294\n", false),
            ("0 0 1\n1 1 4294967294\n", false),
            ("0 0 4294967295\n1 1 1\n", false),
            ("", false),
        ];
        for (text, wanted) in cases {
            assert_eq!(maps_everybody(text), wanted, "{text}");
        }
    }

    #[test]
    fn swaps_and_servers() {
        let text = "Filename Type Size Used Priority\n/dev/sda2 partition 2097148 0 -2\n";
        assert_eq!(swaps(text), [("/dev/sda2".to_owned(), 2_097_148)]);
        assert!(swaps("Filename Type Size Used Priority\n").is_empty());
        let text = "# nameserver 9.9.9.9\nsearch a\nnameserver 192.0.2.1\nnameserver ::1 x\n";
        assert_eq!(name_servers(text), ["192.0.2.1", "::1"]);
    }

    #[test]
    fn the_complaint_is_the_last_word_before_the_statistics() {
        let log = "0: r0 = 1\ninvalid access to map value\nprocessed 5 insns (limit 1)\n\n";
        assert_eq!(complaint(log), Some("invalid access to map value"));
        assert_eq!(complaint(""), None);
    }
}

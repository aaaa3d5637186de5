//! Pure: finding mounts in the text of /proc/self/mountinfo (proc(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where cgroup v2 is mounted: the first mount of its root, else the first mount of a part of it.
pub(super) fn cgroup2(mountinfo: &str) -> Option<PathBuf> {
    let mut part = None;
    for line in mountinfo.lines() {
        // 35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        if kind.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(at)) = (fields.next(), fields.next()) else { continue };
        if root == "/" {
            return Some(unescape(at));
        }
        part.get_or_insert_with(|| unescape(at));
    }
    part
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redirect) struct Mounted {
    /// The type of the file system.
    pub(in crate::redirect) kind: String,
    /// The folder of the file system that is mounted.
    pub(in crate::redirect) root: PathBuf,
    /// Major and minor number.
    pub(in crate::redirect) device: (u32, u32),
}

/// What is mounted exactly at a path, the topmost last. A line about this path that cannot be read
/// counts as a mount of an unknown kind.
pub(in crate::redirect) fn mounted_at(mountinfo: &str, path: &Path) -> Vec<Mounted> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.get(4).is_none_or(|at| unescape(at) != path) {
            continue;
        }
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        let device = fields[2]
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        found.push(Mounted {
            kind: kind.unwrap_or("unknown").to_owned(),
            root: unescape(fields[3]),
            device: device.unwrap_or_default(),
        });
    }
    found
}

/// Spaces, tabs, newlines and backslashes are written as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let code = bytes.get(i + 1..i + 4).and_then(octal);
        match (bytes[i], code) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                i += 4;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |n, d| {
        let d = d.checked_sub(b'0').filter(|d| *d < 8)?;
        n.checked_mul(8)?.checked_add(d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    const HYBRID: &str = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/unified rw,relatime shared:10 master:2 - cgroup2 cgroup2 rw";

    #[test]
    fn the_hierarchy_is_found_where_it_is() {
        let cases = [
            (PURE, Some("/sys/fs/cgroup")),
            (HYBRID, Some("/sys/fs/cgroup/unified")),
            ("", None),
            ("31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None),
            // Not fooled by a name: only the type of the file system counts.
            ("31 30 0:27 / /cgroup2 rw - tmpfs cgroup2 rw", None),
            ("1 2 0:3 / /a\\040b\\134c rw - cgroup2 none rw", Some("/a b\\c")),
            ("1 2 0:3 / /odd\\9 rw - cgroup2 none rw", Some("/odd\\9")),
            ("cut short - cgroup2", None),
            ("1 2 0:3 / /no-separator rw cgroup2 none rw", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(cgroup2(text), wanted.map(PathBuf::from), "{text}");
        }
    }

    #[test]
    fn every_mount_at_a_path_is_counted() {
        let text = "1 2 0:3 / /run rw - tmpfs none rw
5 1 0:9 / /run/egret/bpf rw,nosuid - bpf none rw,mode=700
6 1 0:9 /x /run/egret/bpf2 rw shared:1 - bpf none rw
7 5 254:10 / /run/egret/bpf rw broken line";
        let found = |path: &str| mounted_at(text, Path::new(path));
        let kinds = |path: &str| found(path).into_iter().map(|m| m.kind).collect::<Vec<_>>();
        assert_eq!(kinds("/run/egret/bpf"), ["bpf", "unknown"]);
        assert_eq!(found("/run/egret/bpf")[1].device, (254, 10));
        assert_eq!(kinds("/run/egret"), [""; 0]);
        assert_eq!(found("/run/egret/bpf2")[0].root, PathBuf::from("/x"));
    }

    #[test]
    fn a_mount_of_the_root_is_better_than_a_part() {
        let text =
            "1 2 0:3 /docker/x /part rw - cgroup2 none rw\n4 2 0:3 / /whole rw - cgroup2 none rw";
        assert_eq!(cgroup2(text), Some("/whole".into()));
        assert_eq!(cgroup2(text.lines().next().unwrap()), Some("/part".into()));
    }
}

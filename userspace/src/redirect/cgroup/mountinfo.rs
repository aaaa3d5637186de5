//! Pure: finding the cgroup v2 mount in the text of /proc/self/mountinfo (proc(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

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
    fn a_mount_of_the_root_is_better_than_a_part() {
        let text =
            "1 2 0:3 /docker/x /part rw - cgroup2 none rw\n4 2 0:3 / /whole rw - cgroup2 none rw";
        assert_eq!(cgroup2(text), Some("/whole".into()));
        assert_eq!(cgroup2(text.lines().next().unwrap()), Some("/part".into()));
    }
}

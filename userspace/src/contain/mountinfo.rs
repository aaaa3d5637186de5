//! Pure: the two tables of /proc that say what else could be reached: mounts and Unix sockets.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(super) kind: String,
    /// The folder of the file system that is mounted there.
    root: PathBuf,
    /// Major and minor number of the file system.
    device: String,
}

/// File systems through which the kernel or other namespaces are controlled.
const KERNEL_KINDS: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "bpf",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "pstore",
    "efivarfs",
    "binfmt_misc",
    "nsfs",
    "rpc_pipefs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "selinuxfs",
    "smackfs",
    "autofs",
];

impl Mount {
    /// Whether this is an interface of the kernel rather than a place for files.
    pub(super) fn is_kernel_interface(&self) -> bool {
        KERNEL_KINDS.contains(&self.kind.as_str())
    }
}

/// Decodes /proc/self/mountinfo (proc_pid_mountinfo(5)). Lines that do not parse are left out.
pub(crate) fn mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().skip(6).position(|f| *f == b"-")? + 6;
    let kind = String::from_utf8_lossy(fields.get(dash + 1)?).into_owned();
    let device = String::from_utf8_lossy(fields.get(2)?).into_owned();
    Some(Mount { point: unescape(fields.get(4)?), kind, root: unescape(fields.get(3)?), device })
}

/// Where `path` (without symlinks) may be seen besides: other mounts of the same part of the same
/// file system. A mount on top may hide one of them.
pub(crate) fn aliases(mounts: &[Mount], path: &Path) -> Vec<PathBuf> {
    // The last of the longest: what was mounted later is on top.
    let holder = mounts
        .iter()
        .filter(|m| path.starts_with(&m.point))
        .max_by_key(|m| m.point.components().count());
    let Some(holder) = holder else { return Vec::new() };
    let Ok(rest) = path.strip_prefix(&holder.point) else { return Vec::new() };
    let inside = holder.root.join(rest);
    mounts
        .iter()
        .filter(|m| m.device == holder.device)
        .filter_map(|m| Some(m.point.join(inside.strip_prefix(&m.root).ok()?)))
        .filter(|alias| alias != path)
        .collect()
}

/// Space, tab, newline and backslash stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(u8::is_ascii_digit));
        let code = octal
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        if let Some(byte) = code {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(out).into()
}

/// A Unix socket with a name in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BoundSocket {
    /// As it was bound: it may be relative.
    pub(super) name: PathBuf,
    /// Of the socket, not of its file.
    pub(super) inode: u64,
}

/// Decodes /proc/net/unix, without the abstract names (a network namespace separates those). The
/// name is everything after the seventh field, so it may contain spaces.
pub(super) fn bound_sockets(text: &[u8]) -> Vec<BoundSocket> {
    text.split(|&b| b == b'\n').skip(1).filter_map(bound_socket).collect()
}

fn bound_socket(line: &[u8]) -> Option<BoundSocket> {
    let mut rest = line;
    let mut inode = &[][..];
    for _ in 0..7 {
        let end = rest.iter().position(|&b| b == b' ')?;
        (inode, rest) = (&rest[..end], rest[end..].trim_ascii_start());
    }
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    // The kernel pads the inode to five places; one space follows it.
    let start = line.len() - rest.len();
    let name = line.get(start..).filter(|n| !n.is_empty() && n[0] != b'@')?;
    Some(BoundSocket { name: OsString::from_vec(name.to_vec()).into(), inode })
}

/// Whether `pattern` (a path, or `FOLDER/**`) names `path`.
pub(super) fn allows(pattern: &str, path: &Path) -> bool {
    match pattern.strip_suffix("/**") {
        Some(folder) => path.starts_with(folder) && path != Path::new(folder),
        None => path == Path::new(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_decoded_with_optional_fields_and_escapes() {
        let text = b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            36 35 98:0 /m /a\\040b\\134c rw master:1 shared:2 - ext4 /dev/root rw\n\
            broken line\n\
            1 2 3 4 /x rw\n";
        let found = mounts(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].point, PathBuf::from("/sys/fs/cgroup/unified"));
        assert!(found[0].is_kernel_interface());
        assert_eq!(found[1].point, PathBuf::from("/a b\\c"));
        assert_eq!(found[1].kind, "ext4");
        assert!(!found[1].is_kernel_interface());
    }

    #[test]
    fn the_same_file_is_found_under_every_mount_of_it() {
        let text = b"1 0 8:1 / / rw - ext4 a rw\n\
            2 1 8:1 /srv/data /mnt/d rw - ext4 a rw\n\
            3 1 8:1 / /chroot rw - ext4 a rw\n\
            4 1 8:2 / /srv/data/other rw - ext4 b rw\n";
        let mounts = mounts(text);
        let of = |path: &str| -> Vec<String> {
            let found = aliases(&mounts, path.as_ref());
            found.into_iter().map(|p| p.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(of("/srv/data/s"), ["/mnt/d/s", "/chroot/srv/data/s"]);
        assert_eq!(of("/mnt/d/s"), ["/srv/data/s", "/chroot/srv/data/s"]);
        assert_eq!(of("/etc/x"), ["/chroot/etc/x"]);
        assert!(of("/srv/data/other/s").is_empty());
    }

    #[test]
    fn sockets_keep_spaces_and_leave_abstract_names_out() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   123 /tmp/a b\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 124 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 125\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 126 run/x\n";
        let found: Vec<_> =
            bound_sockets(text).into_iter().map(|b| (b.inode, b.name.into_os_string())).collect();
        assert_eq!(found, [(123, "/tmp/a b".into()), (126, "run/x".into())]);
    }

    #[test]
    fn a_pattern_names_a_path_or_what_is_below_a_folder() {
        for (pattern, path, expected) in [
            ("/run/a", "/run/a", true),
            ("/run/a", "/run/ab", false),
            ("/run/pg/**", "/run/pg/.s", true),
            ("/run/pg/**", "/run/pg/x/y", true),
            ("/run/pg/**", "/run/pg", false),
            ("/run/pg/**", "/run/pgx/y", false),
        ] {
            assert_eq!(allows(pattern, path.as_ref()), expected, "{pattern} {path}");
        }
    }
}

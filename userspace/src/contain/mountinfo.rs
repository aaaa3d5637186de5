//! Pure: the two tables of /proc that say what else could be reached: mounts and Unix sockets.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    pub(super) kind: String,
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
pub(super) fn mounts(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().skip(6).position(|f| *f == b"-")? + 6;
    let kind = String::from_utf8_lossy(fields.get(dash + 1)?).into_owned();
    Some(Mount { point: unescape(fields.get(4)?), kind })
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

/// The paths of /proc/net/unix, without the abstract ones (a network namespace separates those).
/// The path is everything after the seventh field, so it may contain spaces.
pub(super) fn socket_paths(text: &[u8]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = text
        .split(|&b| b == b'\n')
        .filter_map(|line| {
            let start = line.iter().position(|&b| b == b'/')?;
            Some(OsString::from_vec(line[start..].to_vec()).into())
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Whether `pattern` (a path, or `FOLDER/**`) names `path`.
pub(super) fn allows(pattern: &str, path: &std::path::Path) -> bool {
    match pattern.strip_suffix("/**") {
        Some(folder) => path.starts_with(folder) && path != std::path::Path::new(folder),
        None => path == std::path::Path::new(pattern),
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
    fn socket_paths_keep_spaces_and_leave_abstract_names_out() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 123 /tmp/a b\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 124 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 125\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 126 /run/x\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 127 /run/x\n";
        assert_eq!(socket_paths(text), [PathBuf::from("/run/x"), PathBuf::from("/tmp/a b")]);
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

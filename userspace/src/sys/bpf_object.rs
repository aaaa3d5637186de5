//! bpf(2) for objects that outlive their process: pins on bpffs, and what a descriptor says of the
//! object behind it.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use super::bpf::{bpf, own, raw};

// Commands of include/uapi/linux/bpf.h.
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const ENABLE_STATS: u32 = 32;

/// BPF_STATS_RUN_TIME
const RUN_TIME: u32 = 0;

/// BPF_LINK_TYPE_CGROUP
const LINK_CGROUP: u32 = 3;

/// `attr` of BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `attr` of BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, with the part that a cgroup link has.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    cgroup: u64,
    attach_type: u32,
    rest: u32,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    rest: u32,
}

/// The beginning of `struct bpf_prog_info`, up to what measuring yields.
#[repr(C)]
#[derive(Default)]
struct RawProgramInfo {
    before: [u64; 24],
    nanos: u64,
    runs: u64,
}

/// What a link on a cgroup holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLink {
    /// The program's number in the kernel.
    pub program: u32,
    /// 0 once the group has been removed.
    pub cgroup: u64,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

/// The shape of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// In bytes, as is the next.
    pub key_size: u32,
    pub value_size: u32,
}

/// Gives a map, a program or a link a name on bpffs, under which it lives on without us.
///
/// # Errors
/// EEXIST when the name is taken, EPERM when it holds a dot.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr =
        ObjectAttr { path: path.as_ptr() as u64, fd: raw(object), ..ObjectAttr::default() };
    bpf(OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned under a name.
///
/// # Errors
/// What bpf(2) answers; ENOENT when there is nothing.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..ObjectAttr::default() };
    bpf(OBJ_GET, &mut attr).map(own)
}

/// What a link attaches, and to which group.
///
/// # Minimum kernel version
/// 5.8
///
/// # Errors
/// InvalidData when it is a link of another kind.
pub fn cgroup_link(link: BorrowedFd<'_>) -> io::Result<CgroupLink> {
    let mut info = RawLinkInfo::default();
    describe(link, &mut info)?;
    if info.kind != LINK_CGROUP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let RawLinkInfo { program, cgroup, attach_type, .. } = info;
    Ok(CgroupLink { program, cgroup, attach_type })
}

/// The shape that a map was made with.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_shape(map: BorrowedFd<'_>) -> io::Result<MapShape> {
    let mut info = RawMapInfo::default();
    describe(map, &mut info)?;
    let RawMapInfo { kind, key_size, value_size, .. } = info;
    Ok(MapShape { kind, key_size, value_size })
}

/// How often a program ran and for how long, while it was measured.
///
/// # Errors
/// What bpf(2) answers.
pub fn run_time(program: BorrowedFd<'_>) -> io::Result<(u64, Duration)> {
    let mut info = RawProgramInfo::default();
    describe(program, &mut info)?;
    Ok((info.runs, Duration::from_nanos(info.nanos)))
}

/// Makes the kernel measure every program, as long as the descriptor is open.
///
/// # Minimum kernel version
/// 5.8
///
/// # Errors
/// What bpf(2) answers.
pub fn enable_run_times() -> io::Result<OwnedFd> {
    bpf(ENABLE_STATS, &mut { RUN_TIME }).map(own)
}

fn describe<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    // The kernel writes no more than the length that it is told here.
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let info = std::ptr::from_mut(info) as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut InfoAttr { fd: raw(object), length, info }).map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

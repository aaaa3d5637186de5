//! bpf(2) where aya has no call: maps by `&self` and without copies of their types, taking an
//! entry in one step, and links on cgroups that can be updated in place.
#![expect(unsafe_code, reason = "bpf(2) takes a union of pointers and lengths")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use agent_ebpf::abi::{Plain, bytes_of, bytes_of_mut};
use aya_obj::generated::bpf_insn;

// Commands of include/uapi/linux/bpf.h.
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const PROG_LOAD: u32 = 5;
const BTF_LOAD: u32 = 18;
const MAP_GET_NEXT_KEY: u32 = 4;
const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
const MAP_FREEZE: u32 = 22;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;

/// `attr` of the map commands.
#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `attr` of BPF_PROG_LOAD, as far as it is used here; shorter than the kernel's is allowed.
#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    pad: u32,
}

/// `attr` of BPF_BTF_LOAD.
#[repr(C)]
#[derive(Default)]
struct BtfLoadAttr {
    btf: u64,
    log_buf: u64,
    btf_size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// `attr` of BPF_LINK_CREATE for a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// `attr` of BPF_LINK_UPDATE.
#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

pub(super) fn bpf<T>(command: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live structure whose size is passed; the pointers in it come from
    // borrows that outlive this call. The kernel writes only through `value` of the lookups,
    // `prog_ids` of the query and `log_buf`, which point to buffers of the size that it is told.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>() as u32)
    };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret as i32) }
}

/// Owns what a command that makes a descriptor has returned.
pub(super) fn own(fd: i32) -> OwnedFd {
    // SAFETY: a descriptor that the kernel just made for us; bpf(2) sets close-on-exec.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

fn lookup<K: Plain, V: Plain>(command: u32, map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = MapAttr {
        map_fd: raw(map),
        key: bytes_of(key).as_ptr() as u64,
        value: bytes_of_mut(&mut value).as_mut_ptr() as u64,
        ..MapAttr::default()
    };
    match bpf(command, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads an entry. `K` and `V` must be the map's types (the kernel copies as much as it declared).
///
/// # Errors
/// What bpf(2) answers.
pub fn map_get<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    lookup(MAP_LOOKUP_ELEM, map, key)
}

/// No kernel has more CPUs (CONFIG_NR_CPUS).
const MOST_CPUS: usize = 8192;

/// The sum of an entry of a map that has one word for each CPU.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_sum_per_cpu<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<u64> {
    // The kernel writes a word for each CPU that there could be. How many that is stands in /sys,
    // which not every process sees; so there is room for all.
    let mut words = vec![0_u64; MOST_CPUS];
    let mut attr = MapAttr {
        map_fd: raw(map),
        key: bytes_of(key).as_ptr() as u64,
        value: words.as_mut_ptr() as u64,
        ..MapAttr::default()
    };
    bpf(MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(words.iter().sum())
}

/// Takes an entry out of a hash map in one step, so that no two callers get the same one.
///
/// # Minimum kernel version
/// 5.14, for hash maps.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_take<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    lookup(MAP_LOOKUP_AND_DELETE_ELEM, map, key)
}

/// Writes an entry, new or not.
///
/// # Errors
/// What bpf(2) answers; E2BIG when a map is full.
pub fn map_set<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = MapAttr {
        map_fd: raw(map),
        key: bytes_of(key).as_ptr() as u64,
        value: bytes_of(value).as_ptr() as u64,
        ..MapAttr::default()
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Removes an entry; answers whether there was one.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_remove<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr =
        MapAttr { map_fd: raw(map), key: bytes_of(key).as_ptr() as u64, ..MapAttr::default() };
    match bpf(MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The key after `key`, or the first one; None at the end. An unknown key starts over.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_next_key<K: Plain>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = K::default();
    let mut attr = MapAttr {
        map_fd: raw(map),
        key: key.map_or(0, |key| bytes_of(key).as_ptr() as u64),
        value: bytes_of_mut(&mut next).as_mut_ptr() as u64,
        ..MapAttr::default()
    };
    match bpf(MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(next)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes the one entry of an array that is as long as `value`.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_fill(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let mut attr = MapAttr {
        map_fd: raw(map),
        key: bytes_of(&key).as_ptr() as u64,
        value: value.as_ptr() as u64,
        ..MapAttr::default()
    };
    bpf(MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Makes a map read-only for this side, so that the verifier may rely on what it holds.
///
/// # Errors
/// What bpf(2) answers.
pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf(MAP_FREEZE, &mut raw(map)).map(drop)
}

/// Loads the types of an object, for the maps that must name theirs.
///
/// # Errors
/// What bpf(2) answers.
pub fn load_types(btf: &[u8]) -> io::Result<OwnedFd> {
    let btf_size = u32::try_from(btf.len()).map_err(io::Error::other)?;
    let mut attr = BtfLoadAttr { btf: btf.as_ptr() as u64, btf_size, ..BtfLoadAttr::default() };
    bpf(BTF_LOAD, &mut attr).map(own)
}

/// A program for the kernel.
#[derive(Debug)]
pub struct NewProgram<'a> {
    /// `enum bpf_prog_type`.
    pub kind: u32,
    /// `enum bpf_attach_type`, for the kinds that depend on it.
    pub expected_attach: u32,
    /// For people; cut to 15 characters.
    pub name: &'a str,
    pub license: &'a CStr,
    pub instructions: &'a [bpf_insn],
    /// Absent where the kernel takes no types; then it takes every function for a static one.
    pub functions: Option<Functions<'a>>,
}

/// Which types the functions of a program have. The verifier walks a global function once, instead
/// of once for every way that leads to it.
#[derive(Clone, Copy, Debug)]
pub struct Functions<'a> {
    /// What [`load_types`] returned.
    pub types: BorrowedFd<'a>,
    /// `struct bpf_func_info`, one after the other.
    pub records: &'a [u8],
    /// The size of one.
    pub size: u32,
}

/// Room for what the verifier says of a program that it refuses.
const LOG: u32 = 1 << 20;

/// Takes a program through the verifier.
///
/// # Errors
/// What bpf(2) answers, and what the verifier says of it.
pub fn load_program(new: &NewProgram<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let mut attr = ProgLoadAttr {
        prog_type: new.kind,
        insn_cnt: u32::try_from(new.instructions.len()).unwrap_or(u32::MAX),
        insns: new.instructions.as_ptr() as u64,
        license: new.license.as_ptr() as u64,
        expected_attach_type: new.expected_attach,
        ..ProgLoadAttr::default()
    };
    if let Some(functions) = new.functions
        && functions.size > 0
    {
        attr.prog_btf_fd = raw(functions.types);
        attr.func_info_rec_size = functions.size;
        attr.func_info = functions.records.as_ptr() as u64;
        attr.func_info_cnt =
            u32::try_from(functions.records.len()).unwrap_or(u32::MAX) / functions.size;
    }
    for (to, from) in attr.prog_name[..15].iter_mut().zip(new.name.bytes()) {
        *to = from;
    }
    let refused = match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(own(fd)),
        Err(error) => error,
    };
    // Writing the log is slow, so it is asked for only now.
    let mut log = vec![0_u8; LOG as usize];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, LOG, log.as_mut_ptr() as u64);
    match bpf(PROG_LOAD, &mut attr).map(own) {
        Ok(fd) => Ok(fd),
        Err(_) => {
            let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
            Err((refused, String::from_utf8_lossy(&log[..end]).into_owned()))
        }
    }
}

/// Attaches a program to a cgroup. The link lives as long as its descriptor (or its pin).
///
/// # Minimum kernel version
/// 5.7
///
/// # Errors
/// What bpf(2) answers.
pub fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_fd: raw(cgroup),
        attach_type,
        flags: 0, // links always stack with others: no exclusive mode to ask for
    };
    bpf(LINK_CREATE, &mut attr).map(own)
}

/// Replaces the program of a link without a moment in between.
///
/// # Errors
/// What bpf(2) answers.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        ..LinkUpdateAttr::default()
    };
    bpf(LINK_UPDATE, &mut attr).map(drop)
}

//! What the kernel says about itself through bpf(2), for `egret doctor`: which programs a cgroup
//! has on a hook, and whether a hook exists at all. Nothing here attaches or changes anything.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::bpf_insn;

use super::bpf::{self, NewProgram};

/// BPF_PROG_QUERY of include/uapi/linux/bpf.h.
const PROG_QUERY: u32 = 16;
/// BPF_F_QUERY_EFFECTIVE: also what the groups above have attached.
const QUERY_EFFECTIVE: u32 = 1;
/// A group can have 64 programs on a hook (BPF_CGROUP_MAX_PROGS in include/linux/bpf-cgroup.h);
/// with those of the groups above there can be more, which are then not listed.
const ROOM: usize = 256;

/// BPF_PROG_TYPE_CGROUP_SOCK_ADDR.
const CGROUP_SOCK_ADDR: u32 = 18;
/// BPF_CGROUP_INET4_CONNECT, since Linux 4.17.
const INET4_CONNECT: u32 = 10;
/// BPF_CGROUP_UNIX_CONNECT, since Linux 6.7.
const UNIX_CONNECT: u32 = 49;

/// `attr` of BPF_PROG_QUERY, as long as the newest kernel's, because the kernel writes to its end.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// What a cgroup has on one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Ids of the programs.
    pub programs: Vec<u32>,
    /// BPF_F_ALLOW_OVERRIDE (1) or BPF_F_ALLOW_MULTI (2); 0 lets no group below attach. Always 0
    /// when asked for the effective programs.
    pub flags: u32,
}

/// Lists the programs of `cgroup` on the hook `attach_type` (`enum bpf_attach_type`): its own, or
/// with `effective` also those it inherits.
///
/// # Minimum kernel version
/// 4.15
///
/// # Errors
/// What bpf(2) answers: EPERM without CAP_NET_ADMIN, EINVAL for a hook that the kernel lacks.
pub fn attached(cgroup: BorrowedFd<'_>, attach_type: u32, effective: bool) -> io::Result<Attached> {
    let mut ids = vec![0_u32; ROOM];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type,
        query_flags: if effective { QUERY_EFFECTIVE } else { 0 },
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ROOM as u32,
        ..QueryAttr::default()
    };
    match bpf::bpf(PROG_QUERY, &mut attr) {
        Ok(_) => {}
        // More than there is room for: the first ones are there.
        Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {}
        Err(e) => return Err(e),
    }
    ids.truncate(attr.prog_cnt as usize);
    Ok(Attached { programs: ids, flags: attr.attach_flags })
}

/// Whether the verifier takes a program for `connect` on Unix sockets (Linux 6.7). The same
/// program for `connect` on IPv4 is the control: when that is refused too, nothing is known.
///
/// # Errors
/// What bpf(2) answers to the control.
pub fn has_unix_connect() -> io::Result<bool> {
    let instruction = |code: u8, imm: i32| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    };
    // `r0 = 1; exit`: the least that is a program.
    let allow = [instruction(0xb7, 1), instruction(0x95, 0)];
    let takes = |expected_attach| {
        let new = NewProgram {
            kind: CGROUP_SOCK_ADDR,
            expected_attach,
            name: "egret_probe",
            license: c"GPL",
            instructions: &allow,
            functions: None,
        };
        bpf::load_program(&new).map(drop).map_err(|(error, _)| error)
    };
    takes(INET4_CONNECT)?;
    Ok(takes(UNIX_CONNECT).is_ok())
}

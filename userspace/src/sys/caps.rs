//! Capabilities: what a process may keep. Linux keeps five sets; all of them matter, because uid
//! 0 gets its capabilities back at exec from the bounding set.

#![expect(unsafe_code, reason = "prctl(2) and capset(2) have no safe wrapper here")]

use std::io;

/// `CAP_KILL` of linux/capability.h: signal processes of other users.
pub const CAP_KILL: u64 = 1 << 5;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding set, so that no exec, of uid 0 or of a set-user-id file, gains any.
///
/// # Errors
/// The error of `prctl(PR_CAPBSET_DROP)`; it needs CAP_SETPCAP.
pub fn empty_bounding_set() -> io::Result<()> {
    for cap in 0..64 {
        // SAFETY: PR_CAPBSET_READ and PR_CAPBSET_DROP take integers only.
        let present = unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) };
        if present < 0 {
            break; // past the last capability that this kernel knows
        }
        // SAFETY: as above.
        if present == 1 && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes `keep` the permitted and effective set and empties the inheritable and ambient sets.
///
/// # Errors
/// The error of `prctl(2)` or `capset(2)`.
pub fn limit_to(keep: u64) -> io::Result<()> {
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes integers only.
    let cleared =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if cleared != 0 {
        return Err(io::Error::last_os_error());
    }
    let half = |shift: u32| {
        let bits = ((keep >> shift) & 0xffff_ffff) as u32;
        Data { effective: bits, permitted: bits, inheritable: 0 }
    };
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: both pointers are to live values of the layout that version 3 of the call reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `SECBIT_*` of linux/securebits.h: uid 0 means nothing at exec, a change of uid changes no set,
/// nothing is kept, no ambient capability is raised; each with its lock.
const SECURE: libc::c_int = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40 | 0x80;

/// Takes from uid 0 what it would get at exec or at a change of uid, and locks that.
///
/// # Errors
/// The error of `prctl(PR_SET_SECUREBITS)`; it needs CAP_SETPCAP.
pub fn lock_secure_bits() -> io::Result<()> {
    // SAFETY: PR_SET_SECUREBITS takes integers only.
    let set = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE, 0, 0, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether any capability is left in any of the five sets of this thread.
///
/// # Errors
/// The error of `capget(2)`.
pub fn any_left() -> io::Result<bool> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both pointers are to live values of the layout that version 3 of the call uses.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    if data.iter().any(|d| d.effective | d.permitted | d.inheritable != 0) {
        return Ok(true);
    }
    // SAFETY: both take integers only, and answer an error past the last known capability.
    Ok((0..64).any(|cap| unsafe {
        libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) == 1
            || libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1
    }))
}

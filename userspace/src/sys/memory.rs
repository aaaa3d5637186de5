//! Memory that holds secrets: kept out of swap and out of core dumps.

#![expect(unsafe_code, reason = "mlock(2) and madvise(2) take addresses")]

use std::io;

/// Locks the pages of `bytes` in memory and leaves them out of core dumps. Both work on whole
/// pages, and a page stays locked until the process ends or unlocks it: use it for few, small,
/// long-lived secrets. A refused lock (RLIMIT_MEMLOCK) is reported and changes nothing else.
///
/// # Errors
/// The error of `mlock(2)` or `madvise(2)`.
pub fn guard(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    // SAFETY: the range is a live allocation; mlock does not change its content.
    if unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sysconf has no preconditions.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let start = bytes.as_ptr().addr() & !(page - 1);
    let length = bytes.as_ptr().addr() + bytes.len() - start;
    let start = bytes.as_ptr().with_addr(start).cast_mut();
    // SAFETY: MADV_DONTDUMP marks the pages; it neither moves nor changes them.
    if unsafe { libc::madvise(start.cast(), length, libc::MADV_DONTDUMP) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn guarding_is_possible_for_empty_small_and_large_values() {
        for len in [0, 1, 5000] {
            super::guard(&vec![1_u8; len]).unwrap();
        }
    }
}

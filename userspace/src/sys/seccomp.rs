//! Installing a seccomp filter.

#![expect(unsafe_code, reason = "seccomp(2) takes a pointer to the program")]

use std::io;

use seccompiler::sock_filter;

/// Installs `program` for this process and what it starts. It never comes off. Unlike
/// `seccompiler::apply_filter`, it leaves no_new_privs as it is: without that flag the caller
/// needs CAP_SYS_ADMIN.
///
/// # Errors
/// The error of `seccomp(2)`.
pub fn install(program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `fprog` points at `len` instructions that live over the call; sock_filter of
    // seccompiler is repr(C) with the fields of the kernel's; the kernel copies and checks them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

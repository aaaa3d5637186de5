//! What egret does to itself, so that a process of the same user can neither read its memory nor
//! find it in a core file. The command gets the original limits back.

use std::io;
use std::sync::Mutex;

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Soft limits before egret changed them: (resource, value).
static ORIGINAL: Mutex<Vec<(u32, u64)>> = Mutex::new(Vec::new());

/// Makes this process not dumpable (which also closes /proc/PID/mem and ptrace to others of the
/// same user) and sets the soft limit of core files to zero. Call it first thing.
///
/// # Errors
/// The error of `prctl(2)` or `setrlimit(2)`.
pub fn protect_self() -> io::Result<()> {
    set_dumpable(false)?;
    change(Resource::RLIMIT_CORE, |_, _| 0)
}

/// The same without a change of limits, which the command would inherit.
///
/// # Errors
/// The error of `prctl(2)`.
pub fn protect_memory() -> io::Result<()> {
    Ok(set_dumpable(false)?)
}

/// Raises the soft limit of open files to the hard limit: every connection is two.
///
/// # Errors
/// The error of `setrlimit(2)`.
pub fn raise_open_files() -> io::Result<()> {
    change(Resource::RLIMIT_NOFILE, |_, hard| hard)
}

fn change(resource: Resource, to: impl Fn(u64, u64) -> u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(resource)?;
    let new = to(soft, hard);
    if new != soft {
        setrlimit(resource, new, hard)?;
        let mut original = ORIGINAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if original.iter().all(|(r, _)| *r != resource as u32) {
            original.push((resource as u32, soft));
        }
    }
    Ok(())
}

/// What the command gets back.
pub(super) fn original_limits() -> Vec<(u32, u64)> {
    ORIGINAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Sets the soft limits of [`original_limits`] in the command's process.
pub(super) fn restore_limits(limits: &[(u32, u64)]) -> io::Result<()> {
    for resource in [Resource::RLIMIT_CORE, Resource::RLIMIT_NOFILE] {
        if let Some((_, soft)) = limits.iter().find(|(r, _)| *r == resource as u32) {
            let (_, hard) = getrlimit(resource)?;
            setrlimit(resource, (*soft).min(hard), hard)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_change_once_and_are_remembered() {
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        raise_open_files().unwrap();
        raise_open_files().unwrap();
        let after = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(after, (before.1, before.1));
        restore_limits(&original_limits()).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), before);
    }
}

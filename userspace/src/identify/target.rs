//! Pure: what an operator attaches to: one thing that runs, named as the machine names it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{NameError, check_container, check_slice, check_unit};

/// One group of processes. `redirect::target::resolve` finds it, and checks it again, since a
/// target may have come over a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A folder of the cgroup hierarchy: inside its mount, or relative to its root.
    Cgroup(PathBuf),
    /// A slice of systemd, with all units in it.
    Slice(String),
    /// A unit of systemd that has processes: a service, a scope and the like.
    Unit(String),
    /// The group that this process is in.
    Pid(u32),
    /// The id of a container, or at least its first 12 digits.
    Container(String),
}

impl Target {
    /// Reads what `--cgroup` takes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn cgroup(text: &str) -> Result<Self, NameError> {
        Self::Cgroup(text.into()).checked()
    }

    /// Reads what `--slice` takes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn slice(text: &str) -> Result<Self, NameError> {
        Self::Slice(text.into()).checked()
    }

    /// Reads what `--unit` takes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn unit(text: &str) -> Result<Self, NameError> {
        Self::Unit(text.into()).checked()
    }

    /// Reads what `--pid` takes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn pid(text: &str) -> Result<Self, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let pid = text.parse().ok().filter(|_| digits);
        pid.map_or_else(|| Err(not_a_pid()), |pid| Self::Pid(pid).checked())
    }

    /// Reads what `--container` takes.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn container(text: &str) -> Result<Self, NameError> {
        Self::Container(text.into()).checked()
    }

    /// Whether this could name something. Paths are checked when they are resolved.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn check(&self) -> Result<(), NameError> {
        match self {
            Self::Cgroup(path) if path.as_os_str().is_empty() => {
                Err(NameError::new("the path is empty"))
            }
            Self::Cgroup(_) => Ok(()),
            Self::Slice(name) => check_slice(name, false),
            Self::Unit(name) => check_unit(name, false),
            // As the kernel has it: pid_t, and 0 is nobody.
            Self::Pid(pid) if *pid == 0 || i32::try_from(*pid).is_err() => Err(not_a_pid()),
            Self::Pid(_) => Ok(()),
            Self::Container(id) => check_container(id),
        }
    }

    fn checked(self) -> Result<Self, NameError> {
        self.check().map(|()| self)
    }
}

fn not_a_pid() -> NameError {
    NameError::new("this is not a process id")
}

/// `slice agents.slice`: the kind, and the name as it was given.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Slice(name) => write!(f, "slice {name}"),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Pid(pid) => write!(f, "process {pid}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let id = "0123456789ab";
        for (read, shown) in [
            (Target::cgroup("a/b"), Some("cgroup a/b")),
            (Target::cgroup("/sys/fs/cgroup/a"), Some("cgroup /sys/fs/cgroup/a")),
            (Target::cgroup(""), None),
            (Target::slice("a-b.slice"), Some("slice a-b.slice")),
            (Target::slice("a"), None),
            (Target::slice("a*.slice"), None),
            (Target::unit("a.service"), Some("unit a.service")),
            (Target::unit("a"), None),
            (Target::unit("a*.service"), None),
            (Target::pid("17"), Some("process 17")),
            (Target::pid("0"), None),
            (Target::pid("-1"), None),
            (Target::pid("+1"), None),
            (Target::pid("2147483648"), None),
            (Target::pid("99999999999"), None),
            (Target::pid(""), None),
            (Target::container(id), Some("container 0123456789ab")),
            (Target::container("web"), None),
        ] {
            assert_eq!(read.as_ref().ok().map(ToString::to_string).as_deref(), shown, "{read:?}");
            if let Ok(target) = read {
                let wire = serde_json::to_string(&target).unwrap();
                assert_eq!(serde_json::from_str::<Target>(&wire).unwrap(), target);
            }
        }
    }
}

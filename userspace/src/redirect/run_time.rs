//! What the programs cost, as the kernel measures it while it is asked to.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use super::ebpf::Kernel;
use crate::sys::bpf_object;

/// The runs of one program since it was loaded, as far as they were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTime {
    pub program: &'static str,
    pub runs: u64,
    /// In all of them together.
    pub time: Duration,
}

/// The kernel measures while this lives, every program on the machine.
#[derive(Debug)]
pub struct Measuring {
    _fd: OwnedFd,
}

/// Asks the kernel to measure.
///
/// # Minimum kernel version
/// 5.8
///
/// # Errors
/// Without CAP_SYS_ADMIN.
pub fn measure() -> io::Result<Measuring> {
    Ok(Measuring { _fd: bpf_object::enable_run_times()? })
}

impl Kernel {
    /// What each of these programs has cost while [`measure`] was in force.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn run_times(&self) -> io::Result<Vec<RunTime>> {
        self.all_programs()
            .map(|(program, fd)| {
                let (runs, time) = bpf_object::run_time(fd.as_fd())?;
                Ok(RunTime { program, runs, time })
            })
            .collect()
    }
}

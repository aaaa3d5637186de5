//! The command itself: from a fork of init to an exec with nothing left of what init was.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, getpid, pipe2, setgroups, setpgid,
    setresgid, setresuid, tcsetpgrp,
};

use super::Doing;
use crate::contain::wire::{Failure, Order, Step};
use crate::contain::{env, hardening, seccomp};
use crate::sys::{caps, process, signal};

/// The search path when the environment has none, as execvp(3) has it.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

/// Starts the command; returns when its program runs.
pub(super) fn start(order: &Order, terminal: Option<BorrowedFd<'_>>) -> Result<Pid, Failure> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).doing("make a pipe")?;
    let forked = process::fork_single_threaded().doing("fork")?;
    let Some(pid) = forked else {
        let failure = become_command(order, terminal);
        let _ = serde_json::to_writer(&mut File::from(write_end), &failure);
        process::exit_now(125);
    };
    drop(write_end);
    let _ = setpgid(pid, pid); // the child does it too; whoever is first
    // Before the command can run a single instruction, init is as weak as it will ever be.
    weaken()?;
    let mut answer = Vec::new();
    File::from(read_end).read_to_end(&mut answer).doing("hear from the command")?;
    if answer.is_empty() { Ok(pid) } else { Err(parse(&answer)) }
}

fn weaken() -> Result<(), Failure> {
    caps::empty_bounding_set().doing("empty init's bounding set")?;
    caps::limit_to(caps::CAP_KILL).doing("drop init's capabilities")
}

fn parse(answer: &[u8]) -> Failure {
    serde_json::from_slice(answer).unwrap_or_else(|_| Failure {
        step: Step::Setup,
        doing: "hear from the command".into(),
        errno: libc::EIO,
    })
}

/// Returns only what failed.
fn become_command(order: &Order, terminal: Option<BorrowedFd<'_>>) -> Failure {
    match prepare(order, terminal) {
        Err(failure) => failure,
        Ok(()) => exec(order),
    }
}

fn prepare(order: &Order, terminal: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let plan = &order.plan;
    let none = Pid::from_raw(0);
    setpgid(none, none).doing("make a process group")?;
    if let (Some(tty), Some(replaced)) = (terminal, order.terminal) {
        take_terminal(tty, replaced, order.foreground).doing("take the terminal")?;
    }
    process::close_on_exec_from(3).doing("close descriptors")?;
    hardening::restore_limits(&order.limits).doing("restore limits")?;
    signal::restore_sigpipe();
    if let Some(mask) = plan.umask {
        umask(Mode::from_bits_truncate(mask));
    }

    let user = &plan.user;
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let may_be_root = uid.is_root() || plan.keep_privileges;
    let filter = seccomp::filter(plan.allow_io_uring, may_be_root)
        .map_err(io::Error::other)
        .doing("build the seccomp filter")?;
    caps::empty_bounding_set().doing("empty the bounding set")?;
    setgroups(&groups).doing("set the groups")?;
    setresgid(gid, gid, gid).doing("set the group")?;
    if !plan.keep_privileges {
        nix::sys::prctl::set_no_new_privs().doing("set no_new_privs")?;
    }
    crate::sys::seccomp::install(&filter).doing("install the seccomp filter")?;
    setresuid(uid, uid, uid).doing("set the user")?;
    caps::limit_to(0).doing("drop capabilities")?;
    std::env::set_current_dir(&plan.cwd)
        .doing(&format!("enter the folder {}", plan.cwd.to_string_lossy()))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).doing("unblock signals")
}

/// SIGTTOU is blocked here, so taking the foreground from the background is allowed.
fn take_terminal(tty: BorrowedFd<'_>, replaced: [bool; 3], foreground: bool) -> io::Result<()> {
    if foreground {
        tcsetpgrp(tty.as_fd(), getpid())?;
    }
    if replaced[0] {
        dup2_stdin(tty)?;
    }
    if replaced[1] {
        dup2_stdout(tty)?;
    }
    if replaced[2] {
        dup2_stderr(tty)?;
    }
    Ok(())
}

/// As execvp(3): a name with a slash is a path; any other is looked for in PATH, where a file
/// that may not be executed is remembered and the search goes on. A text file without an
/// interpreter line is given to /bin/sh.
fn exec(order: &Order) -> Failure {
    let failure = |errno| Failure { step: Step::Exec, doing: "start the command".into(), errno };
    let plan = &order.plan;
    let c = |s: &OsStr| CString::new(s.as_bytes());
    let argv: Result<Vec<CString>, _> = plan.argv.iter().map(|a| c(a)).collect();
    let env: Result<Vec<CString>, _> = plan
        .env
        .iter()
        .map(|(n, v)| CString::new([n.as_bytes(), b"=", v.as_bytes()].concat()))
        .collect();
    let (Ok(argv), Ok(env)) = (argv, env) else { return failure(libc::EINVAL) };
    let Some(name) = argv.first().map(|n| n.as_bytes()) else { return failure(libc::ENOENT) };
    let path = env::get(&plan.env, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut worst = libc::ENOENT;
    for candidate in candidates(name, path.as_bytes()) {
        let Ok(program) = CString::new(candidate) else { return failure(libc::ENOENT) };
        let errno = process::exec(&program, &argv, &env).raw_os_error().unwrap_or(libc::EIO);
        match errno {
            libc::ENOEXEC => return failure(run_by_shell(&program, &argv, &env)),
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = libc::EACCES,
            other => return failure(other),
        }
    }
    failure(worst)
}

fn run_by_shell(program: &CString, argv: &[CString], env: &[CString]) -> i32 {
    let mut shell = vec![c"sh".to_owned(), program.clone()];
    shell.extend(argv.iter().skip(1).cloned());
    process::exec(c"/bin/sh", &shell, env).raw_os_error().unwrap_or(libc::ENOEXEC)
}

fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.is_empty() {
        return vec![];
    }
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    path.split(|&b| b == b':')
        .map(|folder| match folder {
            b"" => [b"./", name].concat(), // an empty entry is the working folder
            folder => [folder, b"/", name].concat(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_as_execvp_does() {
        let found = |name: &str, path: &str| -> Vec<String> {
            let found = candidates(name.as_bytes(), path.as_bytes());
            found.into_iter().map(|c| String::from_utf8(c).unwrap()).collect()
        };
        assert_eq!(found("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(found("ls", "/a::"), ["/a/ls", "./ls", "./ls"]);
        assert_eq!(found("./ls", "/a"), ["./ls"]);
        assert!(found("", "/a").is_empty());
    }
}

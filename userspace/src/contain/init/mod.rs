//! Pid 1 of a contained command: egret's own program, started again with a hidden argument.
//!
//! It reads its order, makes the world, starts the command and then only reaps, passes signals
//! on and reports. It holds no secret, is not dumpable, and from the moment the command runs its
//! only capability is CAP_KILL, without which it could not pass signals to another user's
//! processes. Nothing inside can stop or kill it: the kernel shields pid 1 from its own
//! namespace.

mod command;
mod cover;
mod kernel_files;
mod reaper;
mod runtime_files;
mod sockets;
mod trust_files;
mod world;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use nix::unistd::{Gid, Uid, fchown, setsid};

use super::wire::{self, Event, Failure, INIT_ARGUMENT, Order, Request, Step};
use crate::sys::{fdpass, process, tty};

/// Exit code when init itself fails; what failed went over the socket.
const FAILED: u8 = 125;

/// Becomes init if the arguments say so; `None` in every other case. `main` calls it before
/// anything else, so that no thread exists and no runtime was made.
pub fn entry(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let _program = args.next();
    if args.next()? != INIT_ARGUMENT {
        return None;
    }
    let mut descriptor = || {
        let number = args.next()?.to_str()?.parse().ok()?;
        process::adopt(number).ok()
    };
    let code = match (descriptor(), descriptor(), descriptor()) {
        (Some(socket), Some(order), Some(netns)) => run(&socket, order, netns),
        _ => FAILED, // typed by hand
    };
    Some(ExitCode::from(code))
}

fn run(socket: &OwnedFd, order: OwnedFd, netns: OwnedFd) -> u8 {
    match start(socket, order, netns) {
        Ok(reaper) => reaper.run(),
        Err(failure) => {
            let _ = report(socket, &Event::Failed(failure), None);
            FAILED
        }
    }
}

fn start(socket: &OwnedFd, order: OwnedFd, netns: OwnedFd) -> Result<reaper::Reaper, Failure> {
    nix::sys::prctl::set_dumpable(false).doing("harden init")?;
    let _ = nix::sys::prctl::set_name(c"egret-init");
    let order = read_order(order).doing("read the order")?;
    be_killable().doing("give up the protection of egret's unit")?;
    world::build(&order.plan, netns)?;
    setsid().doing("begin a session")?;
    let terminal = match order.terminal {
        Some(_) => Some(open_terminal(socket, &order).doing("make a terminal")?),
        None => None,
    };
    let main = command::start(&order, terminal.as_ref().map(AsFd::as_fd))?;
    let socket = socket.try_clone().doing("keep the socket")?;
    report(&socket, &Event::Started, None).doing("report")?;
    Ok(reaper::Reaper::new(main, socket, terminal, order.plan.die_with_parent))
}

/// egret's unit keeps it from being killed when memory runs out. The command is no egret.
fn be_killable() -> io::Result<()> {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(SCORE)?;
    if score.trim_start().starts_with('-') { std::fs::write(SCORE, "0") } else { Ok(()) }
}

fn read_order(fd: OwnedFd) -> io::Result<Order> {
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes)?;
    wire::decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Makes the terminal of the command in the namespace's own devpts, so that its name is right
/// inside, and gives the master to egret. Returns the slave, now the session's terminal.
fn open_terminal(socket: &OwnedFd, order: &Order) -> io::Result<OwnedFd> {
    let (master, slave) = tty::new_pair(Path::new("/dev/pts/ptmx"))?;
    let user = &order.plan.user;
    let group = nix::unistd::Group::from_name("tty")
        .ok()
        .flatten()
        .map_or(Gid::from_raw(user.gid), |g| g.gid);
    fchown(&slave, Some(Uid::from_raw(user.uid)), Some(group))?;
    report(socket, &Event::Terminal, Some(&master))?;
    match next_request(socket)? {
        Some(Request::Go) => {}
        Some(_) | None => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    tty::make_controlling(&slave)?;
    Ok(slave)
}

fn report(socket: &OwnedFd, event: &Event, fd: Option<&OwnedFd>) -> io::Result<()> {
    fdpass::send(socket, &serde_json::to_vec(event)?, fd.map(AsFd::as_fd))
}

fn next_request(socket: &OwnedFd) -> io::Result<Option<Request>> {
    let message = fdpass::receive(socket)?;
    message.map(|(bytes, _)| serde_json::from_slice(&bytes).map_err(Into::into)).transpose()
}

/// Adds what was being done to an error.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Failure> {
        self.map_err(|e| Failure {
            step: Step::Setup,
            doing: what.into(),
            errno: e.into().raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

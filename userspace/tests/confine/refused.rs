//! What only a process that was taken over would do. Each succeeds outside, in a namespace of
//! mounts of the test's own, and undoes what it did.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use aya::maps::MapData;
use egret::sys::process::{exit_now, fork_single_threaded};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::kill;
use nix::sys::socket::{self as sockets, AddressFamily, SockFlag, SockProtocol, SockType};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Uid, getppid, setgroups, setresuid};

use crate::checks::{Tried, said};
use crate::world::World;

pub(crate) fn fork() -> Tried {
    match fork_single_threaded().map_err(said)? {
        None => exit_now(0),
        Some(child) => waitpid(child, None).map(drop).map_err(said),
    }
}

pub(crate) fn execute() -> Tried {
    Command::new("/bin/true").status().map(drop).map_err(said)
}

/// With arguments after which the program would be gone, so it is one that does not exist: only
/// the error tells.
pub(crate) fn become_program() -> Tried {
    let error = Command::new("/no/such/program").exec();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(said(error)) }
}

pub(crate) fn write(path: impl AsRef<Path>) -> Tried {
    fs::write(&path, "x").and_then(|()| fs::remove_file(&path)).map_err(said)
}

pub(crate) fn append(path: impl AsRef<Path>) -> Tried {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut f| f.write_all(b"x")).map_err(said)
}

pub(crate) fn sysctl() -> Tried {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let mut file = OpenOptions::new().write(true).open(path).map_err(said)?;
    fs::read(path).and_then(|same| file.write_all(&same)).map_err(said)
}

pub(crate) fn cgroup() -> Tried {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(said)?;
    let line = text.lines().find(|l| l.contains(" - cgroup2 ")).ok_or("no cgroup v2")?;
    let root = line.split(' ').nth(4).ok_or("no mount point")?;
    let group = Path::new(root).join(format!("egret-confine-{}", std::process::id()));
    fs::create_dir(&group).and_then(|()| fs::remove_dir(&group)).map_err(said)
}

/// A pipe can be written on a read-only mount.
pub(crate) fn pipe(path: impl AsRef<Path>) -> Tried {
    let mut options = OpenOptions::new();
    let file = options.write(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.and_then(|mut f| f.write_all(b"x")).map_err(said)
}

pub(crate) fn parents_environment() -> Tried {
    fs::read(format!("/proc/{}/environ", getppid())).map(drop).map_err(said)
}

/// Signal 0 only asks whether one could.
pub(crate) fn signal_parent() -> Tried {
    kill(getppid(), None).map_err(said)
}

pub(crate) fn mount(world: &World) -> Tried {
    let (none, target): (Option<&str>, _) = (None, world.path("other"));
    nix::mount::mount(none, &target, Some("tmpfs"), MsFlags::empty(), none).map_err(said)?;
    umount2(&target, MntFlags::MNT_DETACH).map_err(said)
}

/// Of everything, in the test's own namespace, where nothing else needs it.
pub(crate) fn unmount() -> Tried {
    umount2("/proc/sys/fs/binfmt_misc", MntFlags::MNT_DETACH)
        .or_else(|e| if e == nix::errno::Errno::EINVAL { Ok(()) } else { Err(e) })
        .map_err(said)
}

pub(crate) fn enter_namespace() -> Tried {
    let here = fs::File::open("/proc/thread-self/ns/net").map_err(said)?;
    setns(here, CloneFlags::CLONE_NEWNET).map_err(said)
}

pub(crate) fn make_namespace() -> Tried {
    std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS))
        .join()
        .map_err(|_| "it panicked")?
        .map_err(said)
}

/// Only a process with one thread may, so an invalid answer is that of the kernel itself.
pub(crate) fn make_user_namespace() -> Tried {
    match std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWUSER)).join() {
        Ok(Ok(()) | Err(nix::errno::Errno::EINVAL)) => Ok(()),
        Ok(Err(e)) => Err(said(e)),
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// Or stay root: also that is a call for which nothing has a use.
pub(crate) fn become_root() -> Tried {
    let root = Uid::from_raw(0);
    setresuid(root, root, root).map_err(said)
}

pub(crate) fn take_group() -> Tried {
    setgroups(&[Gid::from_raw(0)]).map_err(said)
}

pub(crate) fn be_dumpable() -> Tried {
    set_dumpable(true).map_err(said)
}

pub(crate) fn core_file() -> Tried {
    let (soft, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(said)?;
    setrlimit(Resource::RLIMIT_CORE, 1 << 20, 1 << 20).map_err(said)?;
    setrlimit(Resource::RLIMIT_CORE, soft, hard).map_err(said)
}

pub(crate) fn make_map() -> Tried {
    let map = aya_obj::Map::new_from_params(1, 4, 8, 16, 0);
    MapData::create(map, "confine_more", None).map(drop).map_err(said)
}

pub(crate) fn socket(which: &str) -> Tried {
    let (family, kind, protocol) = match which {
        "unix" => (AddressFamily::Unix, SockType::Stream, None),
        "netlink" => (AddressFamily::Netlink, SockType::Raw, Some(SockProtocol::NetlinkRoute)),
        "packet" => (AddressFamily::Packet, SockType::Raw, None),
        _ => (AddressFamily::Inet, SockType::Raw, Some(SockProtocol::Icmp)),
    };
    sockets::socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).map(drop).map_err(said)
}

/// Ports below 1024 would need a capability, so it is one above that nobody has.
pub(crate) fn listen_at() -> Tried {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(said)?;
    TcpListener::bind(free).map(drop).map_err(said)
}

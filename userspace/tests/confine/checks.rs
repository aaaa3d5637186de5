//! The table, and the process that goes through it.

use std::fmt::Display;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use aya::maps::{Map, MapData, RingBuf};
use egret::confine::confine;
use egret::sys::fdpass;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::world::World;
use crate::{refused, works};

/// What a confined process must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Works,
    Refused,
    /// Refused where the kernel has this version of Landlock.
    Landlock(u32),
    /// Refused; some machines refuse it to every root, and then nothing is shown.
    Machine,
}

/// What a check tries: an error says that it did not succeed.
pub(crate) type Tried = Result<(), String>;

pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// As uid 0 without capabilities.
    pub(crate) root: Want,
    /// As another user.
    pub(crate) stranger: Want,
    pub(crate) run: fn(&World, &Given) -> Tried,
}

/// What the process was given before it was confined.
pub(crate) struct Given {
    pub(crate) hash: MapData,
    pub(crate) ring: std::cell::RefCell<Option<RingBuf<MapData>>>,
    pub(crate) ring_map: std::cell::RefCell<Option<Map>>,
    pub(crate) line: (OwnedFd, OwnedFd),
}

impl Given {
    fn new() -> Self {
        // BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_RINGBUF
        let hash = aya_obj::Map::new_from_params(1, 4, 8, 16, 0);
        let ring = aya_obj::Map::new_from_params(27, 0, 0, 4096, 0);
        let ring = MapData::create(ring, "confine_ring", None).unwrap();
        Self {
            hash: MapData::create(hash, "confine_hash", None).unwrap(),
            ring: None.into(),
            ring_map: Some(Map::RingBuf(ring)).into(),
            line: fdpass::pair().unwrap(),
        }
    }
}

/// An error of any kind, as the table prints it.
pub(crate) fn said(error: impl Display) -> String {
    error.to_string().replace(['\n', '\t'], " ")
}

const fn works(name: &'static str, run: fn(&World, &Given) -> Tried) -> Check {
    Check { name, root: Want::Works, stranger: Want::Works, run }
}

const fn refuses(name: &'static str, run: fn(&World, &Given) -> Tried) -> Check {
    Check { name, root: Want::Refused, stranger: Want::Refused, run }
}

const fn landlock(version: u32, name: &'static str, run: fn(&World, &Given) -> Tried) -> Check {
    Check { name, root: Want::Landlock(version), stranger: Want::Landlock(version), run }
}

/// A container's root may lack CAP_SYS_PTRACE or CAP_SYS_RESOURCE.
const fn machine(name: &'static str, run: fn(&World, &Given) -> Tried) -> Check {
    Check { name, root: Want::Machine, stranger: Want::Machine, run }
}

pub(crate) const CHECKS: &[Check] = &[
    // First, while there is one thread to fork.
    refuses("fork", |_, _| refused::fork()),
    refuses("run a program", |_, _| refused::execute()),
    refuses("become a program", |_, _| refused::become_program()),
    works("read /etc/hosts", |_, _| works::read("/etc/hosts")),
    works("read /proc/self/status", |_, _| works::read("/proc/self/status")),
    works("read the boot id", |_, _| works::read("/proc/sys/kernel/random/boot_id")),
    works("read /dev/urandom", |_, _| works::random()),
    works("write, lock, sync, rename, remove in its folder", |w, _| works::files(w)),
    works("audit log with checkpoints", |w, _| works::audit(w)),
    works("searchable copy of the log", |w, _| works::search(w)),
    works("system roots", |_, _| works::roots()),
    works("TLS handshake", |_, _| works::tls()),
    works("TCP on loopback", |_, _| works::tcp()),
    works("UDP on loopback", |_, _| works::udp()),
    works("threads with names", |_, _| works::threads()),
    works("a panic that is caught", |_, _| works::panic()),
    works("memory: locked, large, small", |_, _| works::memory()),
    works("runtime: tasks, timers, blocking, signals", |_, _| works::runtime()),
    works("resolver, and a file replaced by renaming", |w, _| works::resolver(w)),
    works("map of the kernel: write, read, take", |_, g| works::map(g)),
    works("ring buffer of the kernel", |_, g| works::ring(g)),
    works("a descriptor from the parent", |_, g| works::descriptor(g)),
    works("hold a process by pidfd", |_, _| works::pidfd()),
    works("more open files", |_, _| works::open_files()),
    refuses("write in /etc", |_, _| refused::write("/etc/egret-confine-test")),
    refuses("write in /tmp", |_, _| refused::write("/tmp/egret-confine-test")),
    refuses("write in /proc/sys", |_, _| refused::sysctl()),
    refuses("make a cgroup", |_, _| refused::cgroup()),
    refuses("write beside what it reads", |w, _| refused::write(w.path("conf/new"))),
    refuses("write a file of everybody's", |w, _| refused::append(w.path("other/file"))),
    landlock(1, "read a file of everybody's", |w, _| works::read(w.path("other/file"))),
    landlock(1, "write into a pipe of everybody's", |w, _| refused::pipe(w.path("other/pipe"))),
    refuses("read a hidden folder", |w, _| works::read(w.path("hidden/secret"))),
    refuses("read another view of it", |w, _| works::read(w.path("elsewhere/secret"))),
    refuses("read a hidden folder in a readable one", |w, _| {
        works::read(w.path("conf/inner/secret"))
    }),
    refuses("see what is mounted in a hidden folder", |w, _| works::mounted(w.path("hidden/deep"))),
    Check {
        name: "read /etc/shadow",
        root: Want::Works, // its own: give it a user
        stranger: Want::Refused,
        run: |_, _| works::read("/etc/shadow"),
    },
    machine("read /proc/1/environ", |_, _| works::read("/proc/1/environ")),
    refuses("read the parent's environment", |_, _| refused::parents_environment()),
    refuses("open /dev/kmsg", |_, _| works::open("/dev/kmsg")),
    refuses("signal the parent", |_, _| refused::signal_parent()),
    refuses("mount", |w, _| refused::mount(w)),
    refuses("unmount", |_, _| refused::unmount()),
    refuses("enter a namespace", |_, _| refused::enter_namespace()),
    refuses("make a namespace", |_, _| refused::make_namespace()),
    refuses("make a user namespace", |_, _| refused::make_user_namespace()),
    refuses("become root", |_, _| refused::become_root()),
    refuses("take a group", |_, _| refused::take_group()),
    refuses("be dumpable", |_, _| refused::be_dumpable()),
    machine("leave a core file", |_, _| refused::core_file()),
    refuses("make a kernel map", |_, _| refused::make_map()),
    refuses("Unix socket", |_, _| refused::socket("unix")),
    refuses("netlink socket", |_, _| refused::socket("netlink")),
    refuses("packet socket", |_, _| refused::socket("packet")),
    refuses("raw socket", |_, _| refused::socket("raw")),
    landlock(4, "listen on a port of its choice", |_, _| refused::listen_at()),
];

/// The process in the world: confined or not, as its mode says. Prints what the harness reads.
pub(crate) fn inside(world: &World) -> ExitCode {
    own_mounts(world);
    let given = Given::new();
    if world.mode != "free" {
        let mut wanted = world.confinement();
        let mut held = None;
        match world.mode.as_str() {
            "thread" => drop(std::thread::spawn(std::thread::park)),
            "folder" => held = Some(File::open("/").unwrap()),
            "hidden" => wanted.hidden.push(world.path("no-such-folder")),
            "file" => wanted.hidden.push(world.path("conf/hosts")),
            "writable" => wanted.writable.push(world.path("no-such-folder")),
            "without Landlock" => without_landlock(),
            "again" => drop(confine(&wanted).unwrap()),
            _ => {}
        }
        let result = confine(&wanted);
        drop(held);
        match result {
            Ok(confined) => println!("status\t{}", serde_json::to_string(&confined).unwrap()),
            Err(error) => {
                println!("error\t{}", said(error));
                return ExitCode::SUCCESS;
            }
        }
    }
    match world.mode.as_str() {
        "abort" => std::process::abort(),
        "free" | "confined" | "without Landlock" => {
            for check in CHECKS {
                let tried = (check.run)(world, &given);
                println!("check\t{}\t{}", check.name, tried.err().unwrap_or("ok".into()));
            }
        }
        _ => {}
    }
    ExitCode::SUCCESS
}

/// Makes this a kernel that was built without it.
fn without_landlock() {
    let rules = [(libc::SYS_landlock_create_ruleset, vec![])].into_iter().collect();
    let answer = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    egret::sys::seccomp::install(&program).unwrap();
}

/// A namespace of mounts for this test, so that controls may mount, with a second view of the
/// hidden folder and a mount in it.
fn own_mounts(world: &World) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let (hidden, view) = (world.path("hidden"), world.path("elsewhere"));
    mount(Some(&hidden), &view, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &hidden.join("deep"), Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

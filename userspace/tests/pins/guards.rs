//! Groups that are closed before their agent is known.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use agent_ebpf::abi::{Closed, Hook};
use egret::identify::CgroupId;
use egret::outcome::Reason;
use egret::redirect::cgroup::{Cgroup, Hierarchy};
use egret::redirect::ebpf::{Kernel, KernelError, KernelOptions, Overlap};
use egret::redirect::guards::Guard;
use egret::redirect::pins::PinError;
use egret::sys::{bpf, bpf_object};

use crate::running::{finish, line};
use crate::world::{accept, as_root, group, pinned, run, serve, start, tries, wire};
use crate::{CLOSED, OUTSIDE, SERVED, pin_error};

/// A group below another one; it goes with it.
fn below(parent: &Cgroup, name: &str) -> Cgroup {
    let path = parent.path().join(name);
    fs::create_dir(&path).unwrap();
    let hierarchy = Hierarchy::find().unwrap();
    hierarchy.open(path.strip_prefix(hierarchy.root()).unwrap()).unwrap()
}

fn guard_of(name: &str, cgroup: &Cgroup) -> Guard {
    Guard { name: name.into(), cgroup: Some(cgroup.id()), complete: true }
}

/// The numbers of the programs behind the links in a folder.
fn programs(folder: &Path) -> Vec<u32> {
    let id = |closed: &Closed| {
        let link = bpf_object::open(&folder.join(closed.hook().name())).unwrap();
        bpf_object::cgroup_link(link.as_fd()).unwrap().program
    };
    Closed::ALL.iter().map(id).collect()
}

/// What the closed programs leave a process: no socket.
const NO_SOCKET: &str = "EPERM\nEPERM";

#[test]
fn a_guarded_group_is_closed_until_its_agent_is_there() {
    as_root(|folder| {
        let wire = wire();
        let parent = group();
        let child = below(&parent, "unit");
        let place = Some(child.path());
        assert_eq!(run(place, &tries()), OUTSIDE);
        assert!(wire.packets() >= 2, "the control: before the guard, both leave");

        let kernel = Kernel::load(&pinned(folder)).unwrap();
        kernel.guard(&parent, "sl.ice").unwrap();
        assert_eq!(kernel.guards().unwrap(), [guard_of("sl.ice", &parent)]);
        assert_eq!(run(place, &tries()), NO_SOCKET);
        assert_eq!(run(Some(below(&parent, "later").path()), &tries()), NO_SOCKET);
        assert_eq!(run(Some(parent.path()), &tries()), NO_SOCKET);
        let events = kernel.feed().events();
        assert_eq!(events.len(), 6);
        for event in events {
            assert_eq!((event.hook, event.reason), (Hook::SockCreate, Reason::AgentUnknown));
            assert_eq!(event.agent, None);
        }
        // Whoever is outside is not concerned.
        assert_eq!(run(None, &tries()), OUTSIDE);
        wire.packets();

        // Its programs alone do not open it, and being an agent alone does not either.
        let attachment = kernel.attach_pinned(&child, "unit", Overlap::Refuse).unwrap();
        assert_eq!(run(place, &tries()), NO_SOCKET);
        let listeners = serve(&kernel, &child);
        assert_eq!(run(place, &tries()), SERVED);
        // Those beside it stay closed, and it is again when it is an agent no more.
        assert_eq!(run(Some(&parent.path().join("later")), &tries()), NO_SOCKET);
        kernel.remove_agent(child.id()).unwrap();
        attachment.detach().unwrap();
        drop(listeners);
        assert_eq!(run(place, &tries()), NO_SOCKET);
        assert_eq!(wire.packets(), 0);

        kernel.unguard("sl.ice").unwrap();
        assert_eq!(run(place, &tries()), OUTSIDE);
        assert!(wire.packets() >= 2, "the control: without the guard, both leave again");
        assert_eq!(kernel.guards().unwrap(), []);
        assert!(matches!(pin_error(kernel.unguard("sl.ice")), PinError::UnknownGuard(_)));
    });
}

#[test]
fn what_was_open_before_the_guard_goes_nowhere() {
    as_root(|folder| {
        let wire = wire();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!(
            "
t = socket.create_connection(('127.0.0.1', {port}))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('203.0.113.5', 443))
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
print('ready'); sys.stdout.flush()
sys.stdin.readline()
attempt(lambda: t.send(b'x') and None)
attempt(lambda: u.send(b'x') and None)
attempt(lambda: v.sendto(b'x', ('203.0.113.5', 443)) and None)
attempt(lambda: six.sendto(b'x', ('::1', 9)) and None)
attempt(lambda: v.connect(('127.0.0.1', {port})))
attempt(lambda: six.connect(('::1', {port})))
"
        );
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        for guarded in [false, true] {
            let parent = group();
            let mut child = start(Some(below(&parent, "unit").path()), &script);
            let mut theirs = accept(&listener);
            assert_eq!(line(&mut child), "ready");
            if guarded {
                kernel.guard(&parent, "a").unwrap();
            }
            wire.packets();
            let out = finish(child);
            theirs.set_nonblocking(true).unwrap();
            if guarded {
                // A TCP socket takes what it cannot send.
                assert_eq!(out, "ok\nEPERM\nEPERM\nEPERM\nEPERM\nEPERM");
                assert_eq!(wire.packets(), 0);
                assert!(theirs.read(&mut [0; 9]).is_err(), "loopback is closed too");
                kernel.unguard("a").unwrap();
            } else {
                assert_eq!(out, "ok\nok\nok\nok\nok\nok", "the control");
                assert!(wire.packets() >= 2);
                assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 1);
            }
        }
    });
}

#[test]
fn a_unit_carries_the_programs_that_are_pinned() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let unit = group();
        let place = Some(unit.path());
        let closed = folder.join("bpf/closed");
        let kernel = Kernel::load(&options).unwrap();
        assert_eq!(kernel.pin_closed().unwrap(), closed);
        assert_eq!(kernel.pins().unwrap().closed(), closed);
        // What systemd does for `BPFProgram=`: the daemon knows nothing of it.
        let carried: Vec<OwnedFd> = ["egress", "sock_create", "connect4", "sendmsg4"]
            .map(|hook| {
                let number = match hook {
                    "egress" => 1,
                    "sock_create" => 2,
                    "connect4" => 10,
                    _ => 14,
                };
                let program = bpf_object::open(&closed.join(hook)).unwrap();
                bpf::link_create(program.as_fd(), unit.as_fd(), number).unwrap()
            })
            .into();
        assert_eq!(run(place, &tries()), NO_SOCKET);

        // A daemon that comes back pins its own, at no moment none; the unit has what it has.
        drop(kernel);
        assert_eq!(run(place, &tries()), NO_SOCKET);
        let kernel = Kernel::adopt(&options).unwrap();
        kernel.pin_closed().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&closed).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            ["connect4", "connect6", "egress", "sendmsg4", "sendmsg6", "sock_create"]
        );
        assert_eq!(wire.packets(), 0);

        let attachment = kernel.attach_pinned(&unit, "unit", Overlap::Refuse).unwrap();
        let _listeners = serve(&kernel, &unit);
        assert_eq!(run(place, &tries()), SERVED);
        attachment.detach().unwrap();
        kernel.remove_agent(unit.id()).unwrap();
        assert_eq!(run(place, &tries()), NO_SOCKET);
        assert_eq!(wire.packets(), 0);
        drop(carried);
        assert_eq!(run(place, &tries()), OUTSIDE);
        assert!(wire.packets() >= 2, "the control");
    });
}

#[test]
fn guards_outlive_the_daemon_and_get_the_next_ones_programs() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let parent = group();
        let child = below(&parent, "unit");
        let place = Some(child.path());
        let pins = folder.join("bpf/guards/a");
        Kernel::load(&options).unwrap().guard(&parent, "a").unwrap();
        let old = programs(&pins);
        assert_eq!(run(place, &tries()), NO_SOCKET);

        // No agent was there, but the maps are complete.
        let kernel = Kernel::load_or_adopt(&options).unwrap();
        assert_eq!(kernel.adopt_guards().unwrap(), [guard_of("a", &parent)]);
        let new = programs(&pins);
        assert!(old.iter().all(|id| !new.contains(id)), "{old:?} {new:?}");
        assert_eq!(run(place, &tries()), NO_SOCKET);
        let attachment = kernel.attach_pinned(&child, "unit", Overlap::Refuse).unwrap();
        let listeners = serve(&kernel, &child);
        assert_eq!(run(place, &tries()), SERVED);
        // A guard lets an agent pass for as long as it is one.
        kernel.remove_agent(child.id()).unwrap();
        attachment.detach().unwrap();
        drop(listeners);
        assert_eq!(run(place, &tries()), NO_SOCKET);

        // The maps are gone: the old programs would never see an agent again.
        drop(kernel);
        for map in fs::read_dir(folder.join("bpf/maps")).unwrap() {
            fs::remove_file(map.unwrap().path()).unwrap();
        }
        let kernel = Kernel::load_or_adopt(&options).unwrap();
        let attachment = kernel.attach_pinned(&child, "unit", Overlap::Refuse).unwrap();
        let _listeners = serve(&kernel, &child);
        assert_eq!(run(place, &tries()), NO_SOCKET);
        kernel.adopt_guards().unwrap();
        assert_eq!(run(place, &tries()), SERVED);
        attachment.detach().unwrap();
        assert_eq!(wire.packets(), 0);
    });
}

#[test]
fn a_guard_in_part_is_closed_to_the_wire_and_completed() {
    as_root(|folder| {
        let wire = wire();
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let parent = group();
        let place = Some(parent.path());
        let pins = folder.join("bpf/guards/a");
        for keep in 0..Closed::ALL.len() {
            kernel.guard(&parent, "a").unwrap();
            for closed in &Closed::ALL[keep..] {
                fs::remove_file(pins.join(closed.hook().name())).unwrap();
            }
            let cgroup = (keep > 0).then_some(parent.id());
            let half = Guard { name: "a".into(), cgroup, complete: false };
            assert_eq!(kernel.adopt_guards().unwrap(), [half]);
            run(place, &tries());
            // With nothing attached the group is as it was: the control.
            assert_eq!(wire.packets() > 0, keep == 0, "{keep} pins");
            kernel.guard(&parent, "a").unwrap();
            assert_eq!(kernel.guards().unwrap(), [guard_of("a", &parent)]);
            assert_eq!(run(place, &tries()), NO_SOCKET);
        }
    });
}

#[test]
fn a_guards_name_stands_for_one_group() {
    as_root(|folder| {
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let (first, second) = (group(), group());
        kernel.guard(&first, "a").unwrap();
        assert!(matches!(pin_error(kernel.guard(&second, "a")), PinError::GuardTaken(_)));
        kernel.guard(&second, "b").unwrap();
        let (a, b) = (guard_of("a", &first), guard_of("b", &second));
        assert_eq!(kernel.guards().unwrap(), [a.clone(), b]);
        // Two on one group are one too many, and no harm.
        kernel.guard(&first, "c").unwrap();
        kernel.unguard("c").unwrap();
        assert_eq!(run(Some(first.path()), &tries()), NO_SOCKET);

        // Egret does not cut itself off.
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
        let own = Hierarchy::find().unwrap().open(Path::new(&own)).unwrap();
        assert!(matches!(kernel.guard(&own, "own"), Err(KernelError::HoldsEgret(_))));

        // A link of something else under the name of one of ours.
        let pins = folder.join("bpf/guards/b");
        fs::rename(pins.join("connect4"), pins.join("x")).unwrap();
        fs::rename(pins.join("connect6"), pins.join("connect4")).unwrap();
        assert!(matches!(pin_error(kernel.guards()), PinError::Foreign { .. }));
        fs::remove_file(pins.join("connect4")).unwrap();
        fs::rename(pins.join("x"), pins.join("connect4")).unwrap();
        kernel.unguard("b").unwrap();

        // The group goes; its name is used for the next one.
        drop(first);
        let gone = Guard { cgroup: None, ..a };
        let moment = std::time::Duration::from_millis(50);
        assert!((0..200).any(|_| {
            std::thread::sleep(moment);
            kernel.guards().unwrap() == [gone.clone()]
        }));
        let next = group();
        kernel.guard(&next, "a").unwrap();
        assert_eq!(kernel.guards().unwrap(), [guard_of("a", &next)]);
        let unpinned = Kernel::load(&KernelOptions::default()).unwrap();
        assert!(matches!(pin_error(unpinned.guard(&next, "a")), PinError::NotPinned));
        let known: CgroupId = next.id();
        assert_eq!(kernel.adopt_guards().unwrap()[0].cgroup, Some(known));
    });
}

/// A unit that is closed and attached meets both kinds of programs, and the order does not matter.
#[test]
fn an_agent_behind_a_guard_is_closed_like_any_other() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let parent = group();
        let child = below(&parent, "unit");
        let deep = below(&child, "deep");
        let kernel = Kernel::load(&options).unwrap();
        kernel.guard(&parent, "a").unwrap();
        let attachment = kernel.attach_pinned(&child, "unit", Overlap::Refuse).unwrap();
        let listeners = serve(&kernel, &child);
        assert_eq!(run(Some(deep.path()), &tries()), SERVED, "below its root it is the same agent");
        kernel.feed().expire().unwrap();
        assert_eq!(run(Some(deep.path()), &tries()), CLOSED);
        drop((kernel, attachment, listeners));
        assert_eq!(run(Some(deep.path()), &tries()), CLOSED);
        assert_eq!(wire.packets(), 0);
    });
}

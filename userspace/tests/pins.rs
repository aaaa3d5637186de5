//! What outlives a daemon, and attaching to what runs already, on this kernel as root. Without root
//! each test says that it was skipped.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

#[path = "pins/world.rs"]
mod world;

#[path = "pins/adopted.rs"]
mod adopted;

#[path = "pins/guards.rs"]
mod guards;

#[path = "pins/killed.rs"]
mod killed;

#[path = "pins/nested.rs"]
mod nested;

#[path = "pins/running.rs"]
mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_ebpf::abi::ABI_VERSION;
use egret::redirect::bpffs::{Bpffs, BpffsError};
use egret::redirect::ebpf::{Kernel, KernelError, Overlap};
use egret::redirect::pins::{MapPins, PinError, Pins};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use world::{as_root, group, keep_pins, pinned, run, serve, start, tries, wire};

/// What a refused datagram and a refused SYN look like, and what they look like outside.
const CLOSED: &str = "EPERM\nEPERM";
const OUTSIDE: &str = "ok\nTimeoutError";
/// Governed and served: UDP is refused, TCP goes to the interceptor.
const SERVED: &str = "EPERM\nok";

fn pin_error(result: Result<impl std::fmt::Debug, KernelError>) -> PinError {
    match result {
        Err(KernelError::Pins(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mount_is_found_again_and_anything_else_is_refused() {
    as_root(|folder| {
        let at = folder.join("bpf");
        assert!(Bpffs::open_or_mount(&at).unwrap().made());
        assert!(!Bpffs::open_or_mount(&at).unwrap().made());
        fs::create_dir(at.join("kept")).unwrap();

        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Bpffs::open_or_mount(&at), Err(BpffsError::Open { mode: 0o755, .. })));
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();

        let over = |kind: &str, at: &Path| {
            mount(Some("x"), at, Some(kind), MsFlags::empty(), None::<&str>).unwrap();
        };
        for kind in ["bpf", "tmpfs"] {
            over(kind, &at);
            assert!(matches!(Bpffs::open_or_mount(&at), Err(BpffsError::Stacked(_))), "{kind}");
            umount2(&at, MntFlags::MNT_DETACH).unwrap();
        }
        // Hidden by a mount on a folder above.
        over("tmpfs", folder);
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Bpffs::open_or_mount(&at), Err(BpffsError::Hidden(_))));
        umount2(folder, MntFlags::MNT_DETACH).unwrap();

        let other = folder.join("other");
        fs::create_dir(&other).unwrap();
        over("tmpfs", &other);
        let refused = Bpffs::open_or_mount(&other).unwrap_err();
        assert!(matches!(refused, BpffsError::Foreign { ref kind, .. } if kind == "tmpfs"));
        umount2(&other, MntFlags::MNT_DETACH).unwrap();
        let none = None::<&str>;
        mount(Some(&at.join("kept")), &other, none, MsFlags::MS_BIND, none).unwrap();
        assert!(matches!(Bpffs::open_or_mount(&other), Err(BpffsError::Shared(_))));
        umount2(&other, MntFlags::MNT_DETACH).unwrap();

        std::os::unix::fs::symlink(&at, folder.join("link")).unwrap();
        let link = Bpffs::open_or_mount(&folder.join("link"));
        assert!(matches!(link, Err(BpffsError::Indirect { .. })));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Bpffs::open_or_mount(&at), Err(BpffsError::Unsafe { .. })));
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();

        // The control: after all that, what was pinned is still there.
        assert!(!Bpffs::open_or_mount(&at).unwrap().made());
        assert!(at.join("kept").is_dir());
    });
}

#[test]
fn what_is_attached_outlives_the_daemon_until_it_is_detached() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let cgroup = group();
        let place = Some(cgroup.path());
        assert_eq!(run(place, &tries()), OUTSIDE);
        assert!(wire.packets() >= 2, "the control: before egret, both leave");

        let kernel = Kernel::load(&options).unwrap();
        let attachment = kernel.attach_pinned(&cgroup, "tri.age", Overlap::Refuse).unwrap();
        let listeners = serve(&kernel, &cgroup);
        assert_eq!(run(place, &tries()), SERVED);
        let again = pin_error(kernel.attach_pinned(&cgroup, "other", Overlap::Refuse));
        assert!(matches!(again, PinError::Overlap(name) if name == "tri.age"));

        // The daemon dies; nothing is closed in good order.
        kernel.feed().expire().unwrap();
        drop((kernel, attachment, listeners));
        assert_eq!(run(place, &tries()), CLOSED);
        assert!(matches!(pin_error(Kernel::load(&options)), PinError::AlreadyPinned(_)));

        let kernel = Kernel::adopt(&options).unwrap();
        let mut adopted = kernel.adopt_attachments().unwrap();
        let attachment = adopted.pop().unwrap();
        assert!(adopted.is_empty());
        assert_eq!((attachment.name(), attachment.cgroup()), (Some("tri.age"), cgroup.id()));
        // The agent is still known; the listeners of the dead are not trusted.
        kernel.feed().beat().unwrap();
        assert_eq!(run(place, &tries()), CLOSED);
        let _listeners = serve(&kernel, &cgroup);
        assert_eq!(run(place, &tries()), SERVED);
        assert_eq!(wire.packets(), 0);

        let refused = pin_error(kernel.forget("tri.age"));
        assert!(matches!(refused, PinError::NameTaken(_)), "a living group is not forgotten");
        attachment.detach().unwrap();
        assert_eq!(run(place, &tries()), OUTSIDE);
        assert!(wire.packets() >= 2, "the control: detached, both leave again");
        assert!(kernel.adopt_attachments().unwrap().is_empty());
    });
}

#[test]
fn an_attachment_in_part_is_closed_and_completed() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let kernel = Kernel::load(&options).unwrap();
        for keep in [0, 1, 2, 7, 13] {
            let cgroup = group();
            let place = Some(cgroup.path());
            let pins = folder.join("bpf/agents/a");
            drop(kernel.attach_pinned(&cgroup, "a", Overlap::Refuse).unwrap());
            keep_pins(&pins, keep);

            let refused = pin_error(kernel.adopt_attachment("a"));
            let PinError::Half { cgroup: seen, .. } = refused else { panic!("{refused:?}") };
            assert_eq!(seen, (keep > 0).then_some(cgroup.id()));
            assert!(matches!(pin_error(kernel.adopt_attachments()), PinError::Half { .. }));
            run(place, &tries());
            // With nothing attached yet the group is as it was: the control.
            assert_eq!(wire.packets() > 0, keep == 0, "{keep} pins");

            let elsewhere = group();
            if keep > 0 {
                let refused = pin_error(kernel.repair("a", &elsewhere));
                assert!(matches!(refused, PinError::Overlap(_)));
            }
            let attachment = kernel.repair("a", &cgroup).unwrap();
            let _listeners = serve(&kernel, &cgroup);
            assert_eq!(run(place, &tries()), SERVED, "{keep} pins");
            drop(attachment);
            kernel.adopt_attachment("a").unwrap().detach().unwrap();
            assert!(!pins.exists());
        }
        assert!(matches!(pin_error(kernel.adopt_attachment("a")), PinError::Unknown(_)));
        assert!(matches!(pin_error(kernel.repair("a", &group())), PinError::Unknown(_)));
    });
}

#[test]
fn every_map_is_found_or_none_is() {
    as_root(|folder| {
        let options = pinned(folder);
        let pins = Pins::new(folder.join("bpf"));
        assert!(matches!(pin_error(Kernel::adopt(&options)), PinError::MissingMap { .. }));
        let cgroup = group();
        drop(Kernel::load(&options).unwrap().attach_pinned(&cgroup, "a", Overlap::Refuse).unwrap());
        Kernel::adopt(&options).unwrap();

        let maps = folder.join("bpf/maps");
        for role in ["AGENTS", "SOCKS", "STATS"] {
            let (name, away) = (format!("{role}_v{ABI_VERSION}"), format!("{role}_v999"));
            fs::rename(maps.join(&name), folder.join("bpf").join(&name)).unwrap();
            let refused = pin_error(Kernel::adopt(&options));
            assert!(matches!(refused, PinError::MissingMap { role: r, .. } if r == role));
            // An agent is attached to the old maps, so new ones would change nothing for it.
            let refused = pin_error(Kernel::load(&options));
            assert!(matches!(refused, PinError::MissingMap { role: r, .. } if r == role));
            fs::rename(folder.join("bpf").join(&name), maps.join(&away)).unwrap();
            assert_eq!(pins.maps().unwrap(), MapPins::OtherAbi(999));
            assert!(matches!(
                pin_error(Kernel::adopt(&options)),
                PinError::AbiMismatch { found: 999, .. }
            ));
            fs::rename(maps.join(&away), maps.join(&name)).unwrap();
        }
        // One map under the name of another.
        let at = |role: &str| maps.join(format!("{role}_v{ABI_VERSION}"));
        fs::rename(at("LEASE"), folder.join("bpf/away")).unwrap();
        fs::rename(at("AGENTS"), at("LEASE")).unwrap();
        fs::rename(folder.join("bpf/away"), at("AGENTS")).unwrap();
        let refused = pin_error(Kernel::adopt(&options));
        assert!(matches!(refused, PinError::Layout { .. }), "{refused:?}");
    });
}

#[test]
fn a_link_under_the_name_of_another_and_a_group_that_is_gone_are_noticed() {
    as_root(|folder| {
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let cgroup = group();
        drop(kernel.attach_pinned(&cgroup, "a", Overlap::Refuse).unwrap());
        let pins = folder.join("bpf/agents/a");
        let rename = |a: &str, b: &str| fs::rename(pins.join(a), pins.join(b)).unwrap();
        let exchange = || {
            rename("connect4", "x");
            rename("connect6", "connect4");
            rename("x", "connect6");
        };
        exchange();
        assert!(matches!(pin_error(kernel.adopt_attachment("a")), PinError::Foreign { .. }));
        exchange();
        kernel.adopt_attachment("a").unwrap();

        drop(cgroup);
        // The kernel lets go of a removed group a moment later.
        let gone = || {
            matches!(kernel.adopt_attachment("a"), Err(KernelError::Pins(PinError::CgroupGone(_))))
        };
        let moment = Duration::from_millis(50);
        assert!((0..200).any(|_| gone() || {
            std::thread::sleep(moment);
            false
        }));
        kernel.forget("a").unwrap();
        assert!(kernel.pins().unwrap().agents().unwrap().is_empty());
        // Its name is free again.
        let next = group();
        kernel.attach_pinned(&next, "a", Overlap::Refuse).unwrap().detach().unwrap();
    });
}

#[test]
fn programs_are_replaced_under_load_without_a_gap() {
    as_root(|folder| {
        let wire = wire();
        let options = pinned(folder);
        let cgroup = group();
        let place = Some(cgroup.path());
        // A UDP connect sends nothing, so only the address hook can refuse it: a hook that is
        // missing for a moment shows as a success even while no packet leaves.
        let load = "
refused = passed = rounds = 0
os.set_blocking(0, False)
print('ready'); sys.stdout.flush()
while True:
    rounds += 1
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        u.connect(('203.0.113.5', 443)); passed += 1
    except PermissionError: refused += 1
    t = socket.socket(); t.setblocking(False); t.connect_ex(('203.0.113.5', 443))
    u.close(); t.close()
    try:
        if os.read(0, 1) == b'': break
    except BlockingIOError: pass
print(rounds > 100, refused == rounds, passed == 0)
";
        let under_load = |group: Option<&Path>, meanwhile: &mut dyn FnMut()| {
            let mut child = start(group, load);
            assert_eq!(running::line(&mut child), "ready");
            std::thread::sleep(Duration::from_millis(300));
            meanwhile();
            std::thread::sleep(Duration::from_millis(300));
            drop(child.stdin.take());
            let out = child.wait_with_output().unwrap();
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(under_load(place, &mut || ()), "True False False");
        assert!(wire.packets() > 100, "the control: without egret they leave");

        let kernel = Kernel::load(&options).unwrap();
        drop(kernel.attach_pinned(&cgroup, "a", Overlap::Refuse).unwrap());
        let _listeners = serve(&kernel, &cgroup);
        drop(kernel);
        let mut updates = 0;
        let out = under_load(place, &mut || {
            // Where a verifier is slow, the load must not end before.
            let start = Instant::now();
            while updates < 20 && start.elapsed() < Duration::from_secs(10) {
                let next = Kernel::adopt(&options).unwrap();
                assert_eq!(next.adopt_attachments().unwrap().len(), 1);
                updates += 1;
            }
        });
        assert_eq!(out, "True True True");
        assert!(updates >= 3, "only {updates} in ten seconds");
        assert_eq!(wire.packets(), 0);
    });
}

//! Agents within agents: links on the outermost group only.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use egret::redirect::attach::{AttachError, How, attach_running, join_running, while_frozen};
use egret::redirect::cgroup::{Cgroup, Hierarchy};
use egret::redirect::ebpf::{Attachment, Kernel, Overlap};
use egret::redirect::netns::{Netns, own_cookie};
use egret::redirect::pins::PinError;

use crate::running::{finish, freeze_file, line};
use crate::world::{accept, as_root, group, pinned, run, serve, start, tries, wire};
use crate::{OUTSIDE, SERVED, pin_error};

const LIMIT: Duration = Duration::from_secs(5);

/// Three groups, one in the other. The first takes the others with it.
fn three() -> (Cgroup, Cgroup, Cgroup) {
    let top = group();
    let hierarchy = Hierarchy::find().unwrap();
    std::fs::create_dir_all(top.path().join("b/c")).unwrap();
    let open = |below: &str| {
        let path = top.path().join(below);
        hierarchy.open(path.strip_prefix(hierarchy.root()).unwrap()).unwrap()
    };
    let (middle, deepest) = (open("b"), open("b/c"));
    (top, middle, deepest)
}

fn overlaps(result: Result<Attachment, egret::redirect::ebpf::KernelError>, with: &str) -> bool {
    matches!(pin_error(result), PinError::Overlap(name) if name == with)
}

#[test]
fn one_takes_the_place_of_those_around_it_only_when_asked_to() {
    as_root(|folder| {
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let (top, middle, deepest) = three();
        let held = kernel.attach_pinned(&middle, "b", Overlap::Refuse).unwrap();
        // Above the one that is attached.
        assert!(overlaps(kernel.attach_pinned(&top, "a", Overlap::Refuse), "b"));
        assert!(overlaps(kernel.attach_pinned(&top, "a", Overlap::Below), "b"));
        kernel.attach_pinned(&top, "a", Overlap::Above).unwrap().detach().unwrap();
        // Below it.
        assert!(overlaps(kernel.attach_pinned(&deepest, "c", Overlap::Refuse), "b"));
        assert!(overlaps(kernel.attach_pinned(&deepest, "c", Overlap::Above), "b"));
        kernel.attach_pinned(&deepest, "c", Overlap::Below).unwrap().detach().unwrap();
        // On it: never.
        for overlap in [Overlap::Refuse, Overlap::Above, Overlap::Below] {
            assert!(overlaps(kernel.attach_pinned(&middle, "d", overlap), "b"), "{overlap:?}");
        }
        held.detach().unwrap();
        kernel.attach_pinned(&deepest, "c", Overlap::Refuse).unwrap().detach().unwrap();
    });
}

/// Asks for the same again and again, and counts what does not go as it should.
fn load() -> &'static str {
    "
wrong = rounds = 0
os.set_blocking(0, False)
print('ready'); sys.stdout.flush()
while True:
    rounds += 1
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try: u.connect(('203.0.113.5', 443)); wrong += 1
    except PermissionError: pass
    t = socket.socket()
    try: t.connect(('203.0.113.5', 443))
    except OSError: wrong += 1
    u.close(); t.close()
    try:
        if os.read(0, 1) == b'': break
    except BlockingIOError: pass
print(rounds > 50, wrong)
"
}

#[test]
fn links_move_outwards_and_inwards_and_nobody_notices() {
    as_root(|folder| {
        let wire = wire();
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let (top, middle, deepest) = three();
        let inner = kernel.attach_pinned(&middle, "b", Overlap::Refuse).unwrap();
        let listeners = serve(&kernel, &middle);
        // What is not accepted would fill the backlog.
        let (stop, stopped) = channel::<()>();
        let accepting = std::thread::spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                if listeners.intercept_v4.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut child = start(Some(deepest.path()), load());
        assert_eq!(line(&mut child), "ready");
        std::thread::sleep(Duration::from_millis(200));
        let mut outer = None;
        while_frozen(&top, LIMIT, || {
            assert_eq!(freeze_file(top.path()), "1");
            outer = Some(kernel.attach_pinned(&top, "a", Overlap::Above).unwrap());
            inner.detach().unwrap();
        })
        .unwrap();
        assert_eq!(freeze_file(top.path()), "0");
        std::thread::sleep(Duration::from_millis(200));
        // The new place reaches further, and nobody there is an agent yet.
        assert_eq!(run(Some(top.path()), &tries()), "EPERM\nEPERM");
        let mut inner = None;
        while_frozen(&top, LIMIT, || {
            inner = Some(kernel.attach_pinned(&middle, "b", Overlap::Below).unwrap());
            outer.take().unwrap().detach().unwrap();
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(finish(child), "True 0");
        assert_eq!(wire.packets(), 0);
        assert_eq!(run(Some(top.path()), &tries()), OUTSIDE, "the control: it is let go");
        assert_eq!(run(Some(middle.path()), &tries()), SERVED);
        inner.unwrap().detach().unwrap();
        drop(stop);
        accepting.join().unwrap();
    });
}

#[test]
fn a_running_group_takes_over_with_what_is_attached_below() {
    as_root(|folder| {
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let (top, middle, _deepest) = three();
        let inner = kernel.attach_pinned(&middle, "b", Overlap::Refuse).unwrap();
        let nothing = |_: &[Netns]| Ok::<_, std::io::Error>(());
        let how = |overlap| How { name: Some("a"), freeze: LIMIT, overlap };
        let refused = attach_running(&kernel, &top, &how(Overlap::Refuse), nothing).unwrap_err();
        assert!(matches!(refused, AttachError::Kernel(_)), "{refused}");
        let attached = while_frozen(&top, LIMIT, || {
            let attached = attach_running(&kernel, &top, &how(Overlap::Above), nothing).unwrap();
            assert_eq!(freeze_file(top.path()), "1", "the caller's freeze is left as it is");
            inner.detach().unwrap();
            attached
        })
        .unwrap();
        assert_eq!(kernel.pins().unwrap().agents().unwrap(), ["a"]);
        let _listeners = serve(&kernel, &top);
        assert_eq!(run(Some(middle.path()), &tries()), SERVED);
        attached.attachment.detach().unwrap();
    });
}

#[test]
fn a_group_below_becomes_an_agent_of_its_own() {
    as_root(|folder| {
        let wire = wire();
        let kernel = Kernel::load(&pinned(folder)).unwrap();
        let (top, middle, deepest) = three();
        let attachment = kernel.attach_pinned(&top, "a", Overlap::Refuse).unwrap();
        let first = serve(&kernel, &top);
        let script = "
t = socket.create_connection(('203.0.113.5', 443))
print('ready'); sys.stdout.flush()
sys.stdin.readline()
attempt(lambda: t.send(b'late') and None)
attempt(lambda: socket.create_connection(('203.0.113.5', 443)).close())
";
        let mut moved = start(Some(deepest.path()), script);
        let mut theirs = accept(&first.intercept_v4);
        assert_eq!(line(&mut moved), "ready");
        let mut stays = start(Some(top.path()), script);
        let mut others = accept(&first.intercept_v4);
        assert_eq!(line(&mut stays), "ready");

        // What fails leaves it as it was.
        let failing = |_: &[Netns]| Err::<(), _>(std::io::Error::other("no port is free"));
        let refused = join_running(&middle, LIMIT, failing).unwrap_err();
        assert!(refused.to_string().contains("no port is free"), "{refused}");
        assert_eq!(freeze_file(middle.path()), "0");
        theirs.write_all(b"x").unwrap();

        let here = own_cookie().unwrap();
        let joined = join_running(&middle, LIMIT, |found: &[Netns]| {
            assert_eq!(freeze_file(middle.path()), "1");
            assert_eq!(found.iter().map(Netns::cookie).collect::<Vec<_>>(), [here]);
            Ok::<_, std::io::Error>(serve(&kernel, &middle))
        })
        .unwrap();
        assert_eq!((joined.destroyed, joined.foreign), (1, 0));
        assert_eq!(freeze_file(middle.path()), "0");
        assert!(matches!(theirs.read(&mut [0; 9]), Err(_) | Ok(0)));

        // The one was cut off and arrives elsewhere from now on; the other goes on as before.
        let moved = finish(moved);
        assert!(moved.starts_with('E') && moved.ends_with("\nok"), "{moved}");
        accept(&joined.prepared.intercept_v4);
        assert_eq!(finish(stays), "ok\nok");
        others.read_exact(&mut [0; 4]).unwrap();
        accept(&first.intercept_v4);

        // The links above are its only ones; unknown again, it belongs to the one above.
        assert_eq!(run(Some(deepest.path()), &tries()), SERVED);
        kernel.remove_agent(middle.id()).unwrap();
        assert_eq!(run(Some(deepest.path()), &tries()), SERVED);
        assert_eq!(wire.packets(), 0);
        attachment.detach().unwrap();

        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned();
        let own = Hierarchy::find().unwrap().open(Path::new(&own)).unwrap();
        let nothing = |_: &[Netns]| Ok::<_, std::io::Error>(());
        let refused = join_running(&own, LIMIT, nothing).unwrap_err();
        assert!(matches!(refused, AttachError::HoldsEgret(_)), "{refused}");
        assert!(while_frozen(&own, LIMIT, || ()).is_err());
    });
}

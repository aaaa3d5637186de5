//! Asked for what cannot be: nothing changes, stderr says why with exit code 125, and it is in the
//! audit log.

use std::fs;

use crate::probe::{OUTSIDE, SERVED};
use crate::world::{World, with_daemon};

/// It was refused with these words, on stderr and in the log.
#[track_caller]
fn refused(w: &World, said: &crate::world::Said, words: &str) {
    said.refused(words);
    w.recorded("attach_refused", words);
}

#[test]
fn what_is_no_group_to_attach_to_is_refused() {
    with_daemon(|w| {
        let policy = w.policy("p", &[80], "");
        for (group, words) in [
            ("/tmp", "outside the cgroup v2 hierarchy"),
            ("no/such/group", "is not there"),
            ("/", ""),
            ("..", "`..`"),
        ] {
            refused(w, &w.try_attach("a", group, &policy), words);
        }
        if fs::metadata("/sys/fs/cgroup/cpu/cgroup.procs").is_ok() {
            refused(w, &w.try_attach("a", "/sys/fs/cgroup/cpu", &policy), "cgroup v2");
        }
        // It was there a moment ago.
        let group = w.group("gone");
        fs::remove_dir(w.at(&group)).unwrap();
        refused(w, &w.try_attach("a", &group, &policy), "is not there");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().to_string();
        child.wait().unwrap();
        let policy_path = policy.to_str().unwrap();
        let said = w.egret(&["attach", "a", "--pid", &pid, "--policy", policy_path]);
        refused(w, &said, &format!("there is no process {pid}"));
        // A file of a group is no group.
        let group = w.group("a");
        let said = w.try_attach("a", &format!("{group}/cgroup.procs"), &policy);
        refused(w, &said, "name the group itself");
        assert!(w.pins().is_empty() && w.records().is_empty());

        w.attach("a", &group, &policy);
        assert_eq!(w.tries(&group), SERVED, "the control");
        w.nothing_left();
    });
}

#[test]
fn egret_itself_is_not_governed() {
    with_daemon(|w| {
        let (group, other) = (w.group("egret-in-it"), w.group("other"));
        let policy = w.policy("p", &[80], "");
        w.attach("other", &other, &policy);
        for pid in [w.warden(), w.interceptor()] {
            let home = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let home = home.lines().find_map(|l| l.strip_prefix("0::/")).unwrap().to_owned();
            let below = w.group(&format!("egret-in-it/{pid}"));
            fs::write(w.at(&below).join("cgroup.procs"), pid.to_string()).unwrap();
            refused(w, &w.try_attach("a", &group, &policy), "holds egret itself");
            assert_eq!(w.tries(&other), SERVED, "nobody stood still");
            fs::write(w.at(&home).join("cgroup.procs"), pid.to_string()).unwrap();
        }
        assert_eq!((w.pins(), w.tries(&group).as_str()), (vec!["other".into()], OUTSIDE));
        w.wire.packets();
        w.attach("a", &group, &policy);
        assert_eq!(w.tries(&group), SERVED, "the control");
        w.nothing_left();
    });
}

#[test]
fn a_name_and_a_group_are_taken_once_and_a_policy_has_no_error() {
    with_daemon(|w| {
        let (one, two) = (w.group("one"), w.group("two"));
        let policy = w.policy("p", &[80], "");
        let wider = w.policy("wider", &[80, 81], "");
        w.attach("a", &one, &policy);
        refused(w, &w.try_attach("b", &one, &wider), "one cgroup has one policy");
        refused(w, &w.try_attach("a", &two, &wider), "named `a` is attached already");
        refused(w, &w.try_attach("a", &one, &wider), "attached already");
        for name in ["", "a b", "../a", "a/b", "a:b", "ä", "a\nb", &"a".repeat(65)] {
            refused(w, &w.try_attach(name, &two, &policy), "is no name for an agent");
        }
        // What is wrong with a policy is said before anybody is asked, with its place.
        let text = fs::read_to_string(&policy).unwrap();
        let bad = w.folder.join("bad.toml");
        fs::write(&bad, text.replace("protocol = \"tcp\"", "protocol = \"tpc\"")).unwrap();
        w.try_attach("b", &two, &bad).refused(&format!("{}:9:", bad.display()));
        w.try_attach("b", &two, &w.folder.join("none.toml")).refused("none.toml");
        // One that only the daemon cannot read: a secret that is not there.
        let secret = format!(
            "{text}[credentials.c]\nsecret = \"file:{}\"\nhosts = [\"x.test\"]\nbearer = true\n\
             [[rule]]\nname = \"x\"\naction = \"allow\"\nhosts = [\"x.test\"]\ncredentials = [\"c\"]\n",
            w.folder.join("no-secret").display()
        );
        fs::write(&bad, secret).unwrap();
        refused(w, &w.try_attach("b", &two, &bad), "no-secret");

        assert_eq!((w.pins(), w.records()), (vec!["a".into()], vec!["a.json".into()]));
        assert_eq!(w.tries(&one), SERVED, "as before");
        assert_eq!(w.tries_on(&one, 81), crate::probe::REFUSED, "and no wider");
        w.nothing_left();
        w.leaves(&two);
        w.attach("b", &two, &policy);
        assert_eq!(w.tries(&two), SERVED, "the control");
        w.nothing_left();
    });
}

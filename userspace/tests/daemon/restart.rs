//! A daemon that starts and finds what another one has left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::probe::{CLOSED, OUTSIDE, SERVED, line, start};
use crate::world::{World, eventually, in_world, with_daemon};

/// Python that tries to leave until its input ends, whatever is refused of it.
const RESTLESS: &str = "
os.set_blocking(0, False); rounds = 0
def leave():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u: u.sendto(b'x', ('203.0.113.5', 9))
def syn():
    with socket.socket() as t: t.setblocking(False); t.connect_ex(('203.0.113.5', 443))
say('runs')
while True:
    rounds += 1
    for way in leave, syn:
        try: way()
        except PermissionError: pass
    try:
        if os.read(0, 1) == b'': break
    except BlockingIOError: pass
    time.sleep(0.001)
say(rounds > 100)
";

fn record(w: &World, name: &str) -> Value {
    let text = fs::read(w.run_dir().join(format!("attached/{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn every_agent_is_found_again_as_it_was() {
    with_daemon(|w| {
        let secret = w.folder.join("secret");
        fs::write(&secret, "a-secret-of-some-length").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let credential = format!(
            "[credentials.c]\nsecret = \"file:{}\"\nhosts = [\"x.test\"]\nbearer = true\n\
             [[rule]]\nname = \"x\"\naction = \"allow\"\nhosts = [\"x.test\"]\n\
             credentials = [\"c\"]\n",
            secret.display()
        );
        w.policy("c", &[80], "");
        w.config(&format!(
            "[[agent]]\nname = \"all\"\ncgroup = \"/{}/all/*\"\npolicy = \"c.toml\"\n",
            w.parent
        ));
        let all = w.group("all");
        let (one, two) = (w.group("all/1"), w.group("all/2"));
        let hand = w.group("hand");
        w.attach("hand", &hand, &w.policy("p", &[80], &credential));
        w.egret(&["reload"]).done();
        let groups = [&hand, &one, &two];
        assert!(groups.iter().all(|g| w.tries(g) == SERVED));
        // What appears beside them is closed until it is known.
        assert_eq!(w.status()["guards"], json!([format!("/{all}")]));

        let facts = |w: &World| {
            ["hand", "all:1", "all:2"].map(|name| {
                let (agent, file) = (w.agent(name), record(w, &name.replace(':', "%3a")));
                (agent["session"].clone(), agent["source"].clone(), file["placeholders"].clone())
            })
        };
        let before = facts(w);
        assert!(before[0].2["c"].is_string(), "{before:?}");
        let mut children = groups.map(|g| start(Some(&w.at(g)), RESTLESS));
        children.iter_mut().for_each(|c| assert_eq!(line(c), "runs"));
        for _ in 0..3 {
            w.kill();
            w.start();
            for group in groups {
                w.tries_become(group, SERVED);
            }
            assert_eq!(facts(w), before);
        }
        // In good order, too.
        w.stop();
        assert_eq!(w.tries(&one), CLOSED);
        w.start();
        assert!(groups.iter().all(|g| w.tries(g) == SERVED));
        assert_eq!(facts(w), before);
        for mut child in children {
            drop(child.stdin.take());
            assert_eq!(line(&mut child), "True");
            child.wait().unwrap();
        }
        w.nothing_left();
        w.stop();
        let verdict = w.egret(&["audit", "verify"]);
        assert!(matches!(verdict.code, 0), "{verdict:?}");
    });
}

#[test]
fn with_a_broken_configuration_it_does_not_start_and_all_stays_closed() {
    with_daemon(|w| {
        let group = w.group("a");
        w.attach("a", &group, &w.policy("p", &[80], ""));
        let good = fs::read_to_string(w.folder.join("egret.toml")).unwrap();
        w.kill();
        w.config("[[agent]]\nname = \"x\"\n");
        w.start_fails(78, "egret.toml:4:");
        w.config("[[agent]\n");
        w.start_fails(78, "egret.toml:4:");
        let agent = "[[agent]]\nname = \"x\"\ncgroup = \"/egret-no/x\"\npolicy = \"none.toml\"\n";
        w.config(agent);
        w.start_fails(78, "none.toml");
        fs::remove_file(w.folder.join("egret.toml")).unwrap();
        w.start_fails(78, "egret.toml");
        w.tries_become(&group, CLOSED);
        w.nothing_left();
        fs::write(w.folder.join("egret.toml"), good).unwrap();
        w.start();
        w.tries_become(&group, SERVED);
        // Two do not share a folder.
        w.start_fails(125, "another egret daemon has");
        assert_eq!(w.tries(&group), SERVED);
        w.nothing_left();
    });
}

#[test]
fn an_agent_that_is_named_no_more_is_closed_and_listed() {
    in_world(|w| {
        w.policy("p", &[80], "");
        let agent = |name: &str| {
            format!(
                "[[agent]]\nname = \"{name}\"\ncgroup = \"/{}/{name}\"\npolicy = \"p.toml\"\n",
                w.parent
            )
        };
        let (one, two) = (w.group("one"), w.group("two"));
        let (both, two_alone, one_alone) =
            (agent("one") + &agent("two"), agent("two"), agent("one"));
        w.config(&both);
        w.start();
        assert_eq!([w.tries(&one), w.tries(&two)], [SERVED, SERVED]);
        w.kill();
        w.config(&two_alone);
        w.start();
        w.tries_become(&two, SERVED);
        assert_eq!(w.tries(&one), CLOSED);
        assert!(w.agent("one")["closed"].as_str().unwrap().contains("no longer in egret.toml"));
        assert_eq!(w.egret(&["status"]).code, 1);
        w.recorded("agent_closed", "no longer in egret.toml");
        // Named again it is served, by a reload or a restart.
        w.config(&both);
        w.egret(&["reload"]).done();
        assert_eq!(w.tries(&one), SERVED);
        w.config(&one_alone);
        w.egret(&["reload"]).done();
        assert_eq!(w.tries(&two), CLOSED);
        w.kill();
        w.config(&both);
        w.start();
        w.tries_become(&two, SERVED);
        w.nothing_left();
        w.kill();
        w.config("");
        w.start();
        assert_eq!(w.tries(&one), CLOSED);
        w.nothing_left();
        w.detach("one");
        w.leaves(&one);
    });
}

#[test]
fn without_its_record_an_agent_is_closed_until_it_is_detached() {
    with_daemon(|w| {
        let policy = w.policy("p", &[80], "");
        let groups = ["lost", "damaged", "half", "kept"].map(|name| {
            let group = w.group(name);
            w.attach(name, &group, &policy);
            group
        });
        w.kill();
        let records = w.run_dir().join("attached");
        fs::remove_file(records.join("lost.json")).unwrap();
        fs::write(records.join("damaged.json"), "{ \"name\":").unwrap();
        // Its links in part, too.
        fs::remove_file(records.join("half.json")).unwrap();
        let pins = w.run_dir().join("bpf/agents/half");
        for hook in ["connect4", "connect6", "sendmsg4"] {
            fs::remove_file(pins.join(hook)).unwrap();
        }
        w.start();
        w.tries_become(&groups[3], SERVED);
        for group in &groups[..3] {
            assert_eq!(w.tries(group), CLOSED);
        }
        w.nothing_left();
        assert_eq!(w.status()["orphans"], json!(["damaged", "half", "lost"]));
        assert_eq!(w.egret(&["status"]).code, 1);
        w.recorded("agent_closed", "damaged.json cannot be read");
        w.recorded("agent_closed", "lost is attached and nobody knows its policy");
        // They can be detached, and only so.
        w.try_attach("lost", &groups[0], &policy).refused("lost");
        w.try_attach("new", &groups[0], &policy).refused("lost");
        assert_eq!(w.tries(&groups[0]), CLOSED);
        for (name, group) in ["lost", "damaged", "half"].iter().zip(&groups) {
            w.detach(name);
            w.leaves(group);
        }
        assert_eq!((w.pins(), w.records()), (vec!["kept".into()], vec!["kept.json".into()]));
        w.attach("lost", &groups[0], &policy);
        w.kill();
        w.start();
        assert_eq!(w.status()["orphans"], json!([]));
        w.tries_become(&groups[0], SERVED);
        assert_eq!(w.tries(&groups[1]), OUTSIDE);
    });
}

#[test]
fn without_its_record_an_agent_below_another_is_not_governed_by_that_one_alone() {
    with_daemon(|w| {
        let outer = w.group("outer");
        let inner = w.group("outer/inner");
        w.attach("outer", &outer, &w.policy("outer", &[80, 81], ""));
        w.attach("inner", &inner, &w.policy("inner", &[80], ""));
        assert_eq!([w.tries(&inner), w.tries_on(&outer, 81)], [SERVED, SERVED]);
        w.kill();
        fs::write(w.run_dir().join("attached/inner.json"), "").unwrap();
        w.start();
        w.tries_become(&outer, SERVED);
        assert_eq!([w.tries(&inner), w.tries_on(&inner, 81)], [CLOSED, CLOSED]);
        assert_eq!(w.status()["orphans"], json!([format!("/{inner}")]));
        w.kill();
        w.start();
        w.tries_become(&outer, SERVED);
        assert_eq!(w.tries(&inner), CLOSED);
        w.egret(&["detach", &format!("/{inner}")]).done();
        assert_eq!([w.tries(&inner), w.tries_on(&inner, 81)], [SERVED, SERVED]);
        assert_eq!(
            (w.status()["orphans"].clone(), w.records()),
            (json!([]), vec!["outer.json".to_owned()])
        );
        w.nothing_left();
    });
}

#[test]
fn without_its_policy_an_agent_is_closed_until_a_reload_finds_it() {
    with_daemon(|w| {
        let (group, other) = (w.group("a"), w.group("b"));
        let policy = w.policy("p", &[80], "");
        w.attach("a", &group, &policy);
        w.attach("b", &other, &w.policy("q", &[80], ""));
        let session = w.agent("a")["session"].clone();
        w.kill();
        let text = fs::read_to_string(&policy).unwrap();
        fs::remove_file(&policy).unwrap();
        w.start();
        w.tries_become(&other, SERVED);
        assert_eq!(w.tries(&group), CLOSED);
        assert!(w.agent("a")["closed"].as_str().unwrap().contains("p.toml"));
        w.recorded("agent_closed", "p.toml");
        w.egret(&["reload"]).refused("p.toml");
        assert_eq!([w.tries(&group), w.tries(&other)], [CLOSED, SERVED]);
        // The same over another restart.
        w.kill();
        w.start();
        w.tries_become(&other, SERVED);
        assert_eq!(w.tries(&group), CLOSED);
        fs::write(&policy, text).unwrap();
        w.egret(&["reload"]).done();
        assert_eq!(w.tries(&group), SERVED);
        assert_eq!(w.agent("a")["session"], session);
        w.nothing_left();
        // Gone while nobody looked, with its group.
        w.kill();
        fs::remove_dir(w.at(&group)).unwrap();
        w.start();
        eventually("it is forgotten", || w.pins() == ["b"] && w.records() == ["b.json"]);
        assert!(w.agent("a").is_null());
    });
}

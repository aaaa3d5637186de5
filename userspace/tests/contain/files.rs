//! What the command sees of the file system.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use egret::contain::trust;

use crate::harness::{Box, outside, skipped};

#[test]
fn covered_paths_cannot_be_read() {
    if skipped("covered_paths_cannot_be_read") {
        return;
    }
    let b = Box::new();
    let (dir, file, link) = (b.path("state"), b.path("token"), b.path("link"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("journal"), "hunter2").unwrap();
    fs::write(&file, "hunter2").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let script = format!(
        "ls {0}; cat {0}/journal {1} {2}; chmod 777 {0} {1}; echo x >{1}; rm -f {1}; mv {1} {1}.2; \
         cat {1} {1}.2; echo end",
        dir.display(),
        file.display(),
        link.display()
    );
    assert!(outside(&format!("cat {}", link.display())).contains("hunter2"), "control");
    for uid in ["0", "65534"] {
        let mut plan = b.as_user(b.script(&script), uid);
        plan.covered = vec![dir.clone(), link.clone(), "/no/such/path".into()];
        let out = b.output(plan);
        assert!(out.ends_with("end\n") && !out.contains("hunter2"), "{out}");
        assert!(!out.lines().any(|l| l == "journal"), "{out}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "hunter2", "the original is unharmed");
}

const CONNECT: &str = r#"perl -MSocket -e 'for (@ARGV) { socket(S, AF_UNIX, SOCK_STREAM, 0);
    print connect(S, sockaddr_un($_)) ? "yes $_\n" : "no $_\n" }' "#;

#[test]
fn unix_sockets_of_the_host_are_out_of_reach_unless_allowed() {
    if skipped("unix_sockets_of_the_host_are_out_of_reach_unless_allowed") {
        return;
    }
    let b = Box::new();
    let run = format!("/run/egret-test-{}", std::process::id());
    let tmux = format!("/tmp/tmux-egret-{}", std::process::id());
    for dir in [&run, &tmux] {
        fs::create_dir(dir).unwrap();
    }
    let (in_run, in_tmux) = (format!("{run}/s"), format!("{tmux}/s"));
    let elsewhere = b.path("sock").display().to_string();
    let sockets = [in_run.as_str(), &in_tmux, &elsewhere];
    let listeners: Vec<_> = sockets.iter().map(|s| UnixListener::bind(s).unwrap()).collect();
    let connect = format!("{CONNECT}{}", sockets.join(" "));

    assert_eq!(outside(&connect).matches("yes ").count(), 3, "control");
    let out = b.output(b.script(&connect));
    assert_eq!(out.matches("no ").count(), 3, "{out}");
    for allowed in [vec![in_run.clone()], vec![format!("{run}/**"), elsewhere.clone()]] {
        let mut plan = b.script(&connect);
        plan.unix_sockets = allowed.clone();
        let out = b.output(plan);
        assert_eq!(out.matches("yes ").count(), allowed.len(), "{allowed:?}: {out}");
        assert!(out.contains(&format!("yes {in_run}")), "{out}");
    }
    // One that is bound inside is the agent's own.
    let own = b.path("own");
    let script = format!(
        "perl -MSocket -e 'socket(L, AF_UNIX, SOCK_STREAM, 0); bind(L, sockaddr_un($ARGV[0])) \
         && listen(L, 1) or die; exec @ARGV[1..$#ARGV]' {0} sh -c 'sleep 0'; {CONNECT} {0}",
        own.display()
    );
    assert!(b.output(b.script(&script)).contains("no "), "nobody listens any more");
    drop(listeners);
    for dir in [&run, &tmux] {
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn the_kernels_levers_are_read_only_and_raw_devices_are_gone() {
    if skipped("the_kernels_levers_are_read_only_and_raw_devices_are_gone") {
        return;
    }
    let b = Box::new();
    let script = "echo 1 >/proc/sys/kernel/panic && echo BAD sysctl
        echo x >/proc/sysrq-trigger && echo BAD sysrq
        mkdir /sys/fs/cgroup/x && echo BAD cgroup
        for d in /dev/*; do test -b $d && echo BAD $d; done
        test -e /dev/kmsg && echo BAD kmsg
        test -e /dev/vsock && echo BAD vsock
        ls -A /sys/fs/bpf /sys/kernel/debug /sys/kernel/tracing /sys/firmware 2>/dev/null | grep -v : | grep . && echo BAD kernel files
        rm /dev/null && echo BAD removed
        echo ok >/dev/null && head -c 4 /dev/urandom | wc -c
        ls -ld /run/user/0 /run/lock /dev/shm; touch /dev/shm/x /run/lock/y && echo WRITABLE
        ls /sys/class/net";
    let out = b.output(b.script(script));
    assert!(!out.contains("BAD"), "{out}");
    assert!(out.contains("WRITABLE") && out.contains("\n4\n"), "{out}");
    assert!(out.ends_with("\nlo\n"), "only loopback: {out}");
    assert!(!Path::new("/dev/shm/x").exists() && !Path::new("/run/lock/y").exists());
    assert!(outside("for d in /dev/*; do test -b $d && echo BLOCK; done; true").contains("BLOCK"));
}

#[test]
fn uid_0_cannot_change_what_the_machine_runs_outside() {
    if skipped("uid_0_cannot_change_what_the_machine_runs_outside") {
        return;
    }
    let b = Box::new();
    let egret = env!("CARGO_BIN_EXE_egret");
    let name = format!("egret-test-{}", std::process::id());
    let script = format!(
        "for d in /etc /usr/bin /etc/cron.d /etc/systemd/system /var/spool; do
           test -d $d && touch $d/{name} && echo WROTE $d && rm $d/{name}; done
         echo >>{egret} && echo WROTE egret
         mv {egret} {egret}.x && echo WROTE egret && mv {egret}.x {egret}
         touch /usr/local/{name} && rm /usr/local/{name} && echo LOCAL"
    );
    let out = b.output(b.script(&script));
    assert!(!out.contains("WROTE") && out.contains("LOCAL"), "{out}");
    assert!(
        outside(&format!("touch /etc/{name} && rm /etc/{name} && echo WROTE")).contains("WROTE")
    );
}

fn session_ca() -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "egret test CA");
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    (ca, trust::system_roots())
}

#[test]
fn the_session_ca_is_trusted_wherever_clients_look() {
    if skipped("the_session_ca_is_trusted_wherever_clients_look") {
        return;
    }
    let b = Box::new();
    let (ca, roots) = session_ca();
    let ca_file = b.path("ca.pem");
    fs::write(&ca_file, &ca).unwrap();
    let mut plan = b.script(&format!(
        "openssl verify -no-CAfile -CApath /etc/ssl/certs {0}; env -i openssl verify {0}
         cat /run/egret/trust/bundle.pem | grep -c BEGIN; tail -3 /etc/ssl/certs/ca-certificates.crt
         echo x >>/run/egret/trust/bundle.pem && echo BAD; rm /etc/ssl/certs/ca-certificates.crt && echo BAD
         unset JAVA_TOOL_OPTIONS
         for j in /usr/lib/jvm/*/bin/keytool; do $j -list -cacerts -storepass changeit | grep contains; done
         echo; cat /etc/resolv.conf; getent hosts extra.test",
        ca_file.display()
    ));
    plan.trust = trust::files(&roots, &ca).unwrap();
    plan.env.extend(trust::variables(None));
    plan.resolv_conf = Some("nameserver 198.18.0.1\n".into());
    plan.extra_hosts = vec!["203.0.113.9 extra.test".into()];
    let out = b.output(plan);
    let certificates = roots.matches("BEGIN CERT").count() + 1;
    assert!(!out.contains("BAD"), "{out}");
    assert!(out.contains(&format!("\n{certificates}\n")), "{out}");
    assert!(out.contains("END CERTIFICATE") && out.contains("nameserver 198.18.0.1"), "{out}");
    assert!(out.contains("203.0.113.9"), "{out}");
    if !outside("command -v openssl").is_empty() {
        assert_eq!(out.matches(": OK").count(), 2, "{out}");
    }
    let stores = outside("ls /usr/lib/jvm/*/bin/keytool 2>/dev/null").lines().count();
    assert_eq!(out.matches(&format!("contains {certificates} ent")).count(), stores, "{out}");
    let control = outside(&format!("env -i openssl verify {}", ca_file.display()));
    assert!(!control.contains(": OK"), "control: not trusted outside: {control}");
}

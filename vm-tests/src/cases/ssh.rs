//! ssh by name: `git clone git@host:…` against a server of the test's, and the words of a refusal.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Case;
use crate::fixtures::agent::{eventually, expect_record, outside, records};
use crate::fixtures::{Bench, Egret, Running, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "git_clones_over_ssh", needs: &[Need::Git, Need::Ssh], run: clone },
    Case { name: "ssh_shows_why_it_is_refused", needs: &[Need::Ssh], run: refused },
];

/// An OpenSSH server on loopback that runs nothing but `git-upload-pack`; killed when dropped.
struct Sshd {
    port: u16,
    log: std::path::PathBuf,
    _running: Running,
}

impl Sshd {
    fn start(world: &World) -> Result<Self> {
        let folder = world.path("sshd");
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
        for key in ["host", "user"] {
            let path = folder.join(key).display().to_string();
            outside("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path])?.expect(0)?;
        }
        // Where the package's unit would have made it.
        std::fs::create_dir_all("/run/sshd")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             LogLevel VERBOSE\nForceCommand git-upload-pack {}\n",
            at("host"),
            at("user.pub"),
            world.path("repo.git").display(),
        );
        std::fs::write(folder.join("config"), config)?;
        let log = folder.join("log");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-f", &at("config"), "-E"]).arg(&log);
        let running = Running::start(command)?;
        eventually("sshd listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { port, log, _running: running })
    }

    fn logins(&self) -> Result<usize> {
        Ok(std::fs::read_to_string(&self.log)?.matches("Accepted publickey").count())
    }
}

/// ssh as a person would have it, with the test's key and no file of the user's own.
fn ssh(world: &World) -> String {
    format!(
        "ssh -F none -i {} -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
         -o UserKnownHostsFile={}",
        world.path("sshd/user").display(),
        world.shared("known_hosts").display()
    )
}

fn policy(world: &World, port: u16) -> Result<std::path::PathBuf> {
    let text = format!(
        "version = 1\nname = \"{}\"\n[[rule]]\nname = \"clone\"\naction = \"allow\"\n\
         hosts = [\"git.test\"]\nprotocol = \"tcp\"\nports = [22]\n\
         [upstream]\nresolve = {{ \"git.test\" = \"127.0.0.1:{port}\", \
         \"other.test\" = \"127.0.0.1:{port}\" }}\n",
        world.name
    );
    world.write("policy.toml", &text)
}

fn repository(bare: &Path, work: &Path) -> Result<()> {
    let (bare, work) = (bare.display(), work.display());
    let script = format!(
        "set -e; export GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent; git init -q {work}; \
         cd {work}; echo hello > file; git add file; \
         git -c user.name=e2e -c user.email=e2e@example.org commit -qm first; \
         git clone -q --bare . {bare}"
    );
    outside("sh", &["-c", &script])?.expect(0).map(drop)
}

fn clone(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    repository(&world.path("repo.git"), &world.path("work"))?;
    let sshd = Sshd::start(&world)?;
    let policy = policy(&world, sshd.port)?;
    let into = |name: &str| world.shared(name).display().to_string();
    let clone = |host: &str, name: &str| {
        let url = format!("root@{host}:repo.git");
        Egret::new(&world, &policy)
            .env("GIT_SSH_COMMAND", &ssh(&world))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .run(&["git", "clone", "-q", &url, &into(name)])
    };
    clone("git.test", "clone")?.expect(0)?;
    let cloned = std::fs::read_to_string(world.shared("clone").join("file"))?;
    ensure!(cloned == "hello\n", "{cloned:?}");
    ensure!(sshd.logins()? == 1, "one login");
    expect_record(&world, &[("event", "connect"), ("decision", "allow"), ("rule", "clone")])?;

    let denied = clone("other.test", "denied")?;
    ensure!(denied.code != 0 && !world.shared("denied").exists(), "{}", denied.text());
    denied.says("egret denied other.test (no_rule)")?;
    ensure!(sshd.logins()? == 1, "the refused clone reached the server");
    let bytes = records(&world)?.into_iter().find_map(|r| r.get("bytes").cloned());
    let down = bytes.as_ref().and_then(|b| b.get("down")).and_then(serde_json::Value::as_u64);
    ensure!(down.context("no count of bytes")? > 1000, "{bytes:?}");
    Ok(())
}

fn refused(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let sshd = Sshd::start(&world)?;
    let policy = policy(&world, sshd.port)?;
    let line = format!("{} root@other.test true", ssh(&world));
    let ended = Egret::new(&world, &policy).sh(&line)?.expect(255)?;
    ended.says("egret denied other.test (no_rule)")?;
    expect_record(&world, &[("event", "connect"), ("reason", "no_rule")])?;
    ensure!(!std::fs::read_to_string(&sshd.log)?.contains("publickey"), "it reached the server");
    Ok(())
}

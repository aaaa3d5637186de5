//! What stands in for the machine around an agent: services on Unix sockets, processes to aim at,
//! and a setting without which a control could not succeed.

use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use super::kinds::Who;
use crate::fixtures::World;
use crate::fixtures::agent::PATH;
use crate::fixtures::link::Link;
use crate::fixtures::netns::Namespace;

/// Ping sockets for every group of this network namespace, so that their control can succeed.
pub(super) fn open_ping_groups() {
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
}

/// A service of the machine on a Unix socket; it answers CANARY to whoever comes.
pub(super) struct Service {
    pub(super) name: String,
    /// What was made for it, innermost first.
    made: Vec<PathBuf>,
}

impl Drop for Service {
    fn drop(&mut self) {
        for path in &self.made {
            let _ =
                if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Stand-ins where services listen that resolve or run things for whoever asks.
pub(super) fn services(world: &World) -> Vec<Service> {
    let tag = std::process::id();
    let paths = [
        format!("/run/egret-attacks-{tag}.sock"),
        format!("@egret-attacks-{tag}"),
        world.shared("service.sock").display().to_string(),
        "/run/nscd/socket".to_owned(),
        "/run/systemd/resolve/io.systemd.Resolve".to_owned(),
        "/run/docker.sock".to_owned(),
        "/run/egret/control.sock".to_owned(),
    ];
    paths.into_iter().map(service).collect()
}

fn service(name: String) -> Service {
    let mut made = Vec::new();
    let listener = if let Some(abstract_name) = name.strip_prefix('@') {
        std::os::unix::net::SocketAddr::from_abstract_name(abstract_name)
            .and_then(|address| UnixListener::bind_addr(&address))
    } else {
        let path = Path::new(&name);
        let missing = path.ancestors().skip(1).take_while(|p| !p.exists());
        let folders: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        folders.iter().rev().for_each(|f| drop(std::fs::create_dir(f)));
        // What a killed test left behind.
        let refused = UnixStream::connect(path).err().map(|e| e.kind());
        if refused == Some(std::io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path);
        if listener.is_ok() {
            let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(0o666));
            made.push(path.to_path_buf());
        }
        made.extend(folders);
        listener
    };
    // Where the true service listens, its socket is there, and the control will tell.
    if let Ok(listener) = listener {
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|mut s: UnixStream| {
                let _ = s.write_all(b"CANARY\n");
            });
        });
    }
    Service { name, made }
}

/// A process of the host, of the same user, that holds a socket to the canary as fd 3.
pub(super) struct Victim(pub(super) Child);

impl Victim {
    pub(super) fn start(network: &Namespace, who: Who, link: &Link) -> Result<Self> {
        let script = "import socket, sys, time; s = socket.socket(2, 2); \
                      s.connect((sys.argv[2], int(sys.argv[3]))); time.sleep(3600)";
        let uid = who.uid().to_string();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", network.name()))
            .args(["--", "setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
            // Ended with the test, also when the test is killed.
            .args(["--pdeathsig", "KILL", "--", "python3", "-c", script, "egret-attack-victim"])
            .arg(link.far4.to_string())
            .arg(link.canary4.udp.port().to_string())
            .stdin(Stdio::null())
            .env("PATH", PATH)
            .current_dir("/")
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

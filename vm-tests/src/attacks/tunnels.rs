//! The servers of two DNS tunnels, iodine and dns2tcp, where this machine has them: with them the
//! clients' controls have a session.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::side::{DNS2TCP, IODINE};
use crate::fixtures::World;
use crate::fixtures::agent::PATH;
use crate::fixtures::link::Link;

/// The domains that they serve.
pub(super) const IODINE_DOMAIN: &str = "t1.example.org";
pub(super) const DNS2TCP_DOMAIN: &str = "t2.example.org";

/// Running servers; ended when dropped. One that is missing skips its client's probe by name.
pub(super) struct Tunnels(Vec<Child>);

impl Tunnels {
    /// At the far end of the link.
    pub(super) fn start(world: &World, link: &Link) -> Self {
        let mut servers = Vec::new();
        let settings = format!(
            "listen = {DNS2TCP}\nport = 53\nuser = root\nchroot = /\ndomain = {DNS2TCP_DOMAIN}\n\
             resources = canary:127.0.0.1:7\n"
        );
        if let Ok(path) = world.write("dns2tcpd.conf", &settings) {
            servers.extend(server(link, "dns2tcpd", &["-F", "-f", &path.display().to_string()]));
        }
        let at = IODINE.to_string();
        let args = ["-f", "-P", "attack", "-l", &at, "10.99.77.1", IODINE_DOMAIN];
        servers.extend(server(link, "iodined", &args));
        Self(servers)
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait(); // closes its input, too
        }
    }
}

/// From this thread, whose end is to be the server's, and without another user for the same reason.
fn server(link: &Link, program: &str, args: &[&str]) -> Option<Child> {
    let path = PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|p| p.is_file());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", link.namespace()));
    command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(path?);
    command.args(args).env("PATH", PATH).current_dir("/");
    // An input that is at its end would keep dns2tcpd busy.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().ok()
}

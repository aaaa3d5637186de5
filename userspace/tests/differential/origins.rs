//! Servers that people run, each on a port of its own, each with a log of what it read: one line for a
//! request, its raw first line and its Host. Ended with the value.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;

use super::peers::Ca;

pub struct Origin {
    pub name: &'static str,
    pub address: SocketAddr,
    log: PathBuf,
    child: Child,
    _folder: TempDir,
}

/// How a server is started: its name, its program, and a script for `sh` in a folder of its own.
type Recipe = (&'static str, &'static str, &'static str);

const RECIPES: &[Recipe] = &[
    ("nginx", "/usr/sbin/nginx", include_str!("origins/nginx.sh")),
    ("haproxy", "/usr/sbin/haproxy", include_str!("origins/haproxy.sh")),
    ("apache2", "/usr/sbin/apache2", include_str!("origins/apache2.sh")),
    ("node", "/usr/bin/node", include_str!("origins/node.sh")),
    ("python", "/usr/bin/python3", include_str!("origins/python.sh")),
];

/// Those that are installed, and the names of the others. With TLS they speak HTTP/2 as well, those
/// that can.
pub fn start(tls: Option<&Ca>) -> (Vec<Origin>, Vec<&'static str>) {
    let (there, missing): (Vec<_>, Vec<_>) =
        RECIPES.iter().partition(|(_, program, _)| Path::new(program).exists());
    let origins = there.into_iter().map(|recipe| Origin::start(recipe, tls)).collect();
    (origins, missing.into_iter().map(|(name, ..)| *name).collect())
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines: Vec<_> = der.chunks(48).map(|line| BASE64_STANDARD.encode(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Origin {
    /// Whether it speaks HTTP/2 where it has TLS.
    pub fn speaks_h2(&self) -> bool {
        self.name != "python"
    }

    fn start((name, _, script): &Recipe, tls: Option<&Ca>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(ca) = tls {
            let identity = ca.identity("api.test");
            let certificate = pem("CERTIFICATE", &identity.chain[0]);
            let key = pem("PRIVATE KEY", identity.key.secret_der());
            let write = |name, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
            write("cert.pem", &certificate);
            write("key.pem", &key);
            write("both.pem", &format!("{certificate}{key}"));
        }
        let log = folder.path().join("seen");
        std::fs::write(&log, "").unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let complaints = std::fs::File::create(folder.path().join("complaints")).unwrap();
        // Ended with this program, also when it is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "sh", "-euc", script])
            .current_dir(folder.path())
            .env("PORT", address.port().to_string())
            .env("FOLDER", folder.path())
            .env("TLS", if tls.is_some() { "yes" } else { "" })
            .stdin(Stdio::null())
            .stdout(complaints.try_clone().unwrap())
            .stderr(complaints)
            .spawn()
            .unwrap();
        let origin = Self { name, address, log, child, _folder: folder };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            let said = || std::fs::read_to_string(origin._folder.path().join("complaints"));
            assert!(started.elapsed() < Duration::from_secs(30), "{name}: {:?}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        origin
    }

    /// What it has read: lines of `METHOD TARGET VERSION|HOST`, malformed ones as it wrote them.
    pub fn seen(&self) -> Vec<String> {
        let text = std::fs::read(&self.log).unwrap();
        let text = String::from_utf8_lossy(&text);
        // haproxy puts the time and the like before it.
        let lines = text.lines().map(|l| l.rsplit_once("SEEN ").map_or(l, |(_, l)| l));
        lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

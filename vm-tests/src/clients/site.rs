//! The servers of the matrix: nginx in front of files, git and a stand-in for LLM APIs; gRPC and
//! WebSocket servers; sshd, PostgreSQL, MariaDB and Redis. All on loopback, each with what it wrote
//! down of those who came, and all ended with the value, also after a panic.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Wanted;
use crate::fixtures::pki::Pki;
use crate::fixtures::{Bench, Egret, Ended, Running, World};

/// What the certificate of the servers names.
const NAMES: &[&str] = &[
    "api.test",
    "pypi.test",
    "npm.test",
    "crates.test",
    "debian.test",
    "git.test",
    "grpc.test",
    "ws.test",
    "api.openai.com",
    "api.anthropic.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
];

const FILES: &[(&str, &str)] = &[
    ("fetch.py", include_str!("files/fetch.py")),
    ("fetch.mjs", include_str!("files/fetch.mjs")),
    ("fetch.go", include_str!("files/fetch.go")),
    ("Fetch.java", include_str!("files/Fetch.java")),
    ("llm.py", include_str!("files/llm.py")),
    ("llm_server.py", include_str!("files/llm_server.py")),
    ("grpc_client.py", include_str!("files/grpc_client.py")),
    ("grpc_server.py", include_str!("files/grpc_server.py")),
    ("ws_client.py", include_str!("files/ws_client.py")),
    ("ws_server.py", include_str!("files/ws_server.py")),
    ("make_files.py", include_str!("files/make_files.py")),
];

const POLICY: &str = include_str!("files/policy.toml");
const NGINX: &str = include_str!("files/nginx.conf");
const SERVERS: &str = include_str!("files/servers.sh");

/// Long enough for a database to be made on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client may compile a program, or start a browser.
const LIMIT: Duration = Duration::from_secs(180);

pub(super) struct Site {
    world: World,
    policy: PathBuf,
    tools: PathBuf,
    cargo: Option<PathBuf>,
    /// The servers that could be started.
    up: Vec<&'static str>,
    _running: Vec<Running>,
}

/// A server: its name, its port in scripts and policy, and what it is made of.
struct Server {
    name: &'static str,
    port: &'static str,
    needs: &'static [&'static str],
}

const ALL: &[Server] = &[
    Server { name: "llm", port: "LLM", needs: &["/usr/bin/python3"] },
    Server { name: "nginx", port: "HTTPS", needs: &["nginx", "/usr/bin/python3"] },
    Server { name: "fcgi", port: "", needs: &["fcgiwrap", "git"] },
    Server { name: "grpc", port: "GRPC", needs: &["venv/bin/python3"] },
    Server { name: "ws", port: "WS", needs: &["venv/bin/python3"] },
    Server { name: "sshd", port: "SSH", needs: &["sshd", "ssh-keygen"] },
    Server { name: "postgres", port: "PG", needs: &["setpriv", "/usr/lib/postgresql"] },
    Server { name: "mariadb", port: "MYSQL", needs: &["mariadbd", "mariadb-install-db"] },
    Server { name: "redis", port: "REDIS", needs: &["redis-server"] },
];

impl Site {
    pub(super) fn start(bench: &Bench, wanted: &Wanted) -> Result<Self> {
        let world = World::new(bench)?;
        let folder = world.folder().to_owned();
        for (name, text) in FILES {
            std::fs::write(folder.join(name), text)?;
        }
        let pki = Pki::new(NAMES)?;
        std::fs::write(folder.join("site-ca.pem"), &pki.ca_pem)?;
        pki.write_leaf(NAMES, &folder.join("server.pem"), &folder.join("server.key"))?;
        let ports = ports()?;
        let fill = |text: &str| filled(text, &world, &ports);
        let policy = world.write("clients.toml", &fill(POLICY))?;
        world.write("nginx.conf", &fill(NGINX))?;
        let script = world.write("servers.sh", SERVERS)?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        let tools = wanted.tools.clone();
        let mut site = Self {
            world,
            policy,
            tools,
            cargo: wanted.cargo.clone(),
            up: Vec::new(),
            _running: Vec::new(),
        };
        for (server, port) in ALL.iter().zip(ports) {
            if server.needs.iter().all(|need| site.is_installed(need)) {
                site.serve(server, port)?;
            }
        }
        Ok(site)
    }

    /// Starts a server and waits until it listens.
    fn serve(&mut self, server: &Server, port: u16) -> Result<()> {
        let mut command = Command::new("sh");
        command.arg(self.world.path("servers.sh")).arg(server.name).arg(port.to_string());
        command.current_dir(self.world.folder());
        command.env("TOOLS", &self.tools).env("CLIENTS_SECRET", &self.world.secret);
        let mut running = Running::start(command)?;
        let started = Instant::now();
        let listens = || match server.port {
            "" => self.world.path("fcgi.sock").exists(),
            _ => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        };
        while !listens() {
            if running.has_ended() || started.elapsed() > PATIENCE {
                let said = running.wait_within(Duration::ZERO).map(|e| e.text());
                bail!("{} does not start: {}", server.name, said.unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.up.push(server.name);
        self._running.push(running);
        Ok(())
    }

    /// Whether a server runs, or something is installed.
    pub(super) fn has(&self, need: &str) -> bool {
        match need {
            server if ALL.iter().any(|s| s.name == server) => self.up.contains(&server),
            other => self.is_installed(other),
        }
    }

    /// Whether there is a file by its path (of the tools, if it is relative), or a program.
    fn is_installed(&self, need: &str) -> bool {
        match need {
            "cargo" => self.cargo.is_some(),
            path if path.starts_with('/') => Path::new(path).exists(),
            path if path.contains('/') => self.tools.join(path).exists(),
            program => crate::fixtures::agent::PATH
                .split(':')
                .any(|folder| Path::new(folder).join(program).exists()),
        }
    }

    pub(super) fn secret(&self) -> &str {
        &self.world.secret
    }

    /// A script as the agent.
    pub(super) fn agent(&self, script: &str) -> Result<Ended> {
        let folder = self.world.folder().display().to_string();
        let mut egret = Egret::new(&self.world, &self.policy)
            .option("--quiet")
            .env("CLIENTS_SECRET", &self.world.secret)
            .env("P", &folder)
            .env("WORK", &format!("{folder}/shared"))
            .env("HOME", &format!("{folder}/shared"))
            .env("TOOLS", &self.tools.display().to_string());
        if let Some(cargo) = &self.cargo {
            egret = egret.env("REAL_CARGO", &cargo.display().to_string());
        }
        Running::start(egret.command(&["sh", "-c", script]))?.wait_within(LIMIT)
    }

    /// Forgets what the servers saw.
    pub(super) fn forget(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.world.folder())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "log") {
                // Emptied, not removed: the servers hold them open.
                std::fs::File::options().write(true).truncate(true).open(path)?;
            }
        }
        Ok(())
    }

    /// What was asked of the web servers: host, method, path, and 1 if with the credential.
    pub(super) fn seen(&self) -> Result<Vec<String>> {
        self.lines(Path::new("seen.log"))
    }

    /// The lines of a server's log.
    pub(super) fn lines(&self, log: &Path) -> Result<Vec<String>> {
        let path = self.world.folder().join(log);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// A free port for each server.
fn ports() -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = ALL
        .iter()
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()?;
    Ok(listeners
        .iter()
        .map(|l| l.local_addr().map(|a| a.port()))
        .collect::<std::io::Result<_>>()?)
}

/// A text with its `@NAMES@` filled in.
fn filled(text: &str, world: &World, ports: &[u16]) -> String {
    let backend = ["/usr/lib/git-core", "/usr/libexec/git-core"]
        .map(|folder| format!("{folder}/git-http-backend"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or_default();
    let mut text = text
        .replace("@FOLDER@", &world.folder().display().to_string())
        .replace("@SECRET@", &world.secret)
        .replace("@NAME@", &world.name)
        .replace("@GIT_BACKEND@", &backend);
    for (server, port) in ALL.iter().zip(ports) {
        text = text.replace(&format!("@{}@", server.port), &port.to_string());
    }
    text
}

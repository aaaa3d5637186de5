//! Getting the clients: from Debian as packages, and from PyPI, npm and crates.io below `target/`, each
//! at the version that the lists in `vm-tests/clients/` name. What cannot be had is missing later, by
//! name; nothing here is an error.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{host, sh};

/// Programs, and the Debian package of each.
pub(super) const DEBIAN: &[(&str, &str)] = &[
    ("nginx", "nginx-light"),
    ("fcgiwrap", "fcgiwrap"),
    ("curl", "curl"),
    ("wget", "wget"),
    ("git", "git"),
    ("openssl", "openssl"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("psql", "postgresql-client"),
    ("pg_ctlcluster", "postgresql"),
    ("mysql", "mariadb-client"),
    ("mariadbd", "mariadb-server"),
    ("redis-cli", "redis-tools"),
    ("redis-server", "redis-server"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("go", "golang-go"),
    // Not a client of the matrix: a resolver of the end-to-end tests.
    ("/usr/lib/python3/dist-packages/dns/resolver.py", "python3-dnspython"),
    ("java", "openjdk-17-jdk-headless"),
    ("chromium", "chromium"),
    ("certutil", "libnss3-tools"),
    ("dpkg-deb", "dpkg"),
    ("/usr/bin/python3", "python3"),
];

/// Everything that is installed below `tools`.
pub(super) fn below(workspace: &Path, tools: &Path) {
    let lists = workspace.join("vm-tests/clients");
    for (what, done) in [
        ("the clients of PyPI", pypi(&lists, tools)),
        ("the clients of npm", npm(&lists, tools)),
        ("the client of crates.io", crates(&lists, tools)),
    ] {
        if let Err(error) = done {
            eprintln!("clients: {what} could not be installed: {error:#}");
        }
    }
}

/// Whether `list` is what was installed into `folder` before; `done` says so from now on.
fn is_current(list: &str, folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("installed")).is_ok_and(|before| before == list)
}

fn done(list: &str, folder: &Path) -> anyhow::Result<()> {
    Ok(std::fs::write(folder.join("installed"), list)?)
}

fn pypi(lists: &Path, tools: &Path) -> anyhow::Result<()> {
    let requirements = lists.join("requirements.txt");
    let (list, venv) = (std::fs::read_to_string(&requirements)?, tools.join("venv"));
    if is_current(&list, &venv) {
        return Ok(());
    }
    eprintln!("clients: installing from PyPI");
    let _ = std::fs::remove_dir_all(&venv);
    // The system's Python, which agents of every user can read.
    let make = || sh::output(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv));
    if make().is_err() {
        host::install(&[("python3-venv: no program of its own", "python3-venv")]);
        make()?;
    }
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    sh::output(&mut pip)?;
    done(&list, &venv)
}

fn npm(lists: &Path, tools: &Path) -> anyhow::Result<()> {
    let (list, folder) = (std::fs::read_to_string(lists.join("package.json"))?, tools.join("node"));
    if is_current(&list, &folder) {
        return Ok(());
    }
    eprintln!("clients: installing from npm");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), &list)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder);
    sh::output(&mut npm)?;
    done(&list, &folder)
}

fn crates(lists: &Path, tools: &Path) -> anyhow::Result<()> {
    let source = lists.join("rust");
    let text = |name: &str| std::fs::read_to_string(source.join(name));
    let list = format!("{}{}", text("Cargo.lock")?, text("src/main.rs")?);
    let folder = tools.join("rust");
    if is_current(&list, &folder) {
        return Ok(());
    }
    eprintln!("clients: building the client of crates.io");
    let target = tools.join("rust-target");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--manifest-path"]).arg(source.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    sh::output(&mut cargo)?;
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(target.join("debug/fetch"), folder.join("fetch"))?;
    done(&list, &folder)
}

/// cargo itself: behind the name in PATH may stand rustup's proxy, which wants its own home.
pub(super) fn real_cargo() -> Option<PathBuf> {
    let sysroot = sh::output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    let cargo = Path::new(sysroot.trim()).join("bin/cargo");
    cargo.exists().then_some(cargo)
}

//! What this test's program does when it is started by the tests: the agent, or the servers of the
//! machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ORDER;

/// Not a test: what the agent does.
#[test]
#[ignore = "started by the others"]
fn agent() {
    let Ok(order) = std::env::var(ORDER) else { return };
    for line in order.lines() {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        println!("\n=> {line}: {}", attempt(verb, argument));
        std::io::stdout().flush().unwrap();
    }
}

fn attempt(verb: &str, argument: &str) -> String {
    let said = |r: std::io::Result<()>| r.map_or_else(|e| refused(&e), |()| "done".into());
    match verb {
        "unix" => said(UnixStream::connect(argument).and_then(|mut s| {
            s.set_read_timeout(Some(Duration::from_secs(5)))?;
            s.read_exact(&mut [0])
        })),
        "read" => said(fs::File::open(argument).and_then(|mut f| f.read(&mut [0]).map(drop))),
        "list" => said(fs::read_dir(argument).map(drop)),
        "link" => said(fs::read_link(argument).map(drop)),
        "write" => said(fs::OpenOptions::new().write(true).open(argument).map(drop)),
        "userns" => said(unshare(CloneFlags::CLONE_NEWUSER).map_err(Into::into)),
        "kill" => {
            let pid = Pid::from_raw(argument.parse().unwrap());
            said(kill(pid, Signal::SIGKILL).map_err(Into::into))
        }
        "own" => {
            let listener = UnixListener::bind(argument).unwrap();
            let client = UnixStream::connect(argument).unwrap();
            drop((listener.accept().unwrap(), client));
            "done".into()
        }
        "tcp" => said(dial(argument.parse().unwrap()).map(drop)),
        "ports" => ports(),
        "every" => {
            // Once a tenth of a second, for as long as the test wants.
            let (seconds, to) = argument.split_once(' ').unwrap();
            let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
            while Instant::now() < end {
                println!("\n=> {}", said(dial(to.parse().unwrap()).map(drop)));
                std::thread::sleep(Duration::from_millis(100));
            }
            "done".into()
        }
        other => panic!("unknown verb {other}"),
    }
}

fn refused(error: &std::io::Error) -> String {
    let name = error.raw_os_error().map(nix::errno::Errno::from_raw);
    name.map_or_else(|| error.to_string(), |n| format!("{n:?}"))
}

fn dial(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_millis(500))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Dials every TCP port of loopback that somebody listens on, the agent's own among them.
fn ports() -> String {
    let own = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let own = own.local_addr().unwrap().port();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let mut results = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap();
        if fields[3] != "0A" {
            continue;
        }
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 9, 9), Ipv4Addr::UNSPECIFIED] {
            let result = match dial((address, port).into()) {
                Ok(_) => "done".into(),
                Err(e) => refused(&e),
            };
            let whose = if port == own { "own" } else { "other" };
            results.push(format!("{whose} {address} {result}"));
        }
    }
    results.join("; ")
}

/// Not a test: servers outside egret.
#[test]
#[ignore = "started by the others"]
fn machine() {
    let Ok(dir) = std::env::var(ORDER).map(PathBuf::from) else { return };
    serve(&dir.join("abs/s"));
    serve(Path::new("rel"));
    serve(&dir.join("renamed/before"));
    fs::rename(dir.join("renamed/before"), dir.join("renamed/s")).unwrap();
    serve(&dir.join("linked/s"));
    fs::hard_link(dir.join("linked/s"), dir.join("linked/s2")).unwrap();
    let held = fs::File::open(dir.join("fd")).unwrap();
    serve(Path::new(&format!("/proc/self/fd/{}/s", held.as_raw_fd())));
    serve(&dir.join("mounted/s"));
    let ns = dir.join("ns/s");
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        serve(&ns);
    })
    .join()
    .unwrap();
    println!("\nready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]); // until the test lets go
}

fn serve(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"x");
        }
    });
}

//! Who comes while a batch runs: somebody who knocks from far away, and a program of the machine
//! that hands out sockets.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::scene::{Place, Scene};
use crate::fixtures::netns::within;

/// Where the agent listens when somebody knocks.
pub(super) const KNOCKED: u16 = 47_011;

/// A thread that is told to end when this is dropped.
struct Visitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Visitor {
    fn start(
        namespace: &str,
        work: impl FnOnce(&AtomicBool) -> Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, namespace) = (stop.clone(), namespace.to_owned());
        let thread = std::thread::spawn(move || {
            let _ = within(&namespace, move || work(&stopped));
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Knocks at the agent's ports from the far end of the link, until it is dropped.
pub(super) struct Knocking(#[expect(dead_code, reason = "ends when dropped")] Visitor);

impl Knocking {
    pub(super) fn start(scene: &Scene, place: &Place) -> Self {
        let link = &scene.side(place.at).link;
        let (near, file) = (link.near4, port_file(scene, place));
        Self(Visitor::start(link.namespace(), move |stop| {
            while !stop.load(Ordering::SeqCst) {
                // A port that the kernel chose is written down by the agent.
                let told = std::fs::read_to_string(&file).unwrap_or_default();
                for port in told.trim().parse().into_iter().chain([KNOCKED]) {
                    let to = SocketAddr::new(near.into(), port);
                    let _ = TcpStream::connect_timeout(&to, Duration::from_millis(200));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }))
    }
}

fn port_file(scene: &Scene, place: &Place) -> PathBuf {
    scene.world.shared(&format!("port-{}", place.number))
}

/// The words about what is made while the batch runs.
pub(super) fn late(scene: &Scene, place: &Place, kind: &str) -> Result<String> {
    let number = place.number;
    Ok(match kind {
        "port" => port_file(scene, place).display().to_string(),
        "ask" => ask_file(scene, place).display().to_string(),
        "shared" => scene.world.shared(&format!("late-{number}.sock")).display().to_string(),
        "run" => format!("/run/egret-attacks-late-{}-{number}.sock", std::process::id()),
        "abstract" => format!("@egret-attacks-late-{}-{number}", std::process::id()),
        _ => bail!("nothing comes late by the name of {kind}"),
    })
}

fn ask_file(scene: &Scene, place: &Place) -> PathBuf {
    scene.world.shared(&format!("late-{}.ask", place.number))
}

/// Waits until an agent has begun, then makes Unix sockets and hands out a connected UDP socket of
/// the machine to whoever comes, until it is dropped.
pub(super) struct Handing(#[expect(dead_code, reason = "ends when dropped")] Visitor);

impl Handing {
    pub(super) fn start(scene: &Scene, place: &Place) -> Self {
        let link = &scene.side(place.at).link;
        let target = SocketAddr::new(link.far4.into(), link.canary4.udp.port());
        let asked = ask_file(scene, place);
        let names: Vec<String> = ["shared", "run", "abstract"]
            .iter()
            .filter_map(|kind| late(scene, place, kind).ok())
            .collect();
        Self(Visitor::start(scene.machine.network_namespace().name(), move |stop| {
            while !asked.exists() {
                if stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let listeners = names.iter().map(|name| listen(name)).collect::<Result<Vec<_>>>()?;
            while !stop.load(Ordering::SeqCst) {
                for listener in &listeners {
                    if let Ok((peer, _)) = listener.accept() {
                        let _ = hand(&peer, target);
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            for name in names.iter().filter(|name| !name.starts_with('@')) {
                let _ = std::fs::remove_file(name);
            }
            Ok(())
        }))
    }
}

fn listen(name: &str) -> Result<UnixListener> {
    let listener = if let Some(name) = name.strip_prefix('@') {
        UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?
    } else {
        let listener = UnixListener::bind(name)?;
        std::fs::set_permissions(Path::new(name), PermissionsExt::from_mode(0o666))?;
        listener
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket of this process, which no agent's group governs.
fn hand(peer: &UnixStream, target: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(target)?;
    let fds = [socket.as_raw_fd()];
    let about = [ControlMessage::ScmRights(&fds)];
    let data = [std::io::IoSlice::new(b"x")];
    sendmsg::<()>(peer.as_raw_fd(), &data, &about, MsgFlags::empty(), None)?;
    Ok(())
}

//! What a proxy does all day.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{HashMap, Map, RingBuf};
use egret::audit::query::Filter;
use egret::audit::{Audit, AuditOptions, Draft, Durability, Event, Layout, search as look_for};
use egret::forward::resolve::Resolver;
use egret::identify::SessionId;
use egret::policy::HostName;
use egret::sys::{bpf, bpf_object, fdpass, memory as secret_memory, pidfd as sys_pidfd};
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::checks::{Given, Tried, said};
use crate::world::World;

pub(crate) fn read(path: impl AsRef<Path>) -> Tried {
    match fs::read(path).map_err(said)?.len() {
        0 => Err("it is empty".to_owned()),
        _ => Ok(()),
    }
}

pub(crate) fn open(path: &str) -> Tried {
    File::open(path).map(drop).map_err(said)
}

pub(crate) fn mounted(path: impl AsRef<Path>) -> Tried {
    let text = fs::read_to_string("/proc/self/mountinfo").map_err(said)?;
    let path = path.as_ref().to_string_lossy();
    let is_there = text.lines().any(|l| l.split(' ').nth(4) == Some(&*path));
    if is_there { Ok(()) } else { Err("it is not mounted".to_owned()) }
}

pub(crate) fn random() -> Tried {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).map_err(said)
}

pub(crate) fn files(world: &World) -> Tried {
    let go = || -> std::io::Result<()> {
        let folder = world.path("state/audit/files");
        fs::create_dir(&folder)?;
        let (old, new) = (folder.join("old"), folder.join("new"));
        let mut options = OpenOptions::new();
        let file = options.create_new(true).read(true).append(true).open(&old)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
        file.write_all(b"line\n")?;
        fallocate(&*file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 8192)?;
        file.set_len(4)?;
        file.sync_data()?;
        file.sync_all()?;
        fs::rename(&old, &new)?;
        fs::hard_link(&new, &old)?;
        // To another folder, and over what is there.
        fs::rename(&new, world.path("state/audit/moved"))?;
        fs::write(&new, "x")?;
        fs::rename(&new, world.path("state/audit/moved"))?;
        File::open(world.path("state/audit"))?.sync_all()?;
        fs::remove_file(world.path("state/audit/moved"))?;
        fs::write(folder.join("left"), "x")?;
        assert_eq!(fs::read_dir(&folder)?.count(), 2);
        fs::remove_dir_all(folder)
    };
    go().map_err(said)
}

/// Opens the log twice, so that what the first wrote is read back; with both kinds of durability.
pub(crate) fn audit(world: &World) -> Tried {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(said)?;
    for durability in [Durability::Process, Durability::Power] {
        let mut options = AuditOptions::new(world.path("state"), SessionId::random());
        options.durability = durability;
        let audit = Audit::open(&options).map_err(said)?;
        let seq = audit.record(Draft::note(Event::Policy)).map_err(said)?;
        runtime.block_on(audit.durable(seq)).map_err(said)?;
        audit.close().map_err(said)?;
    }
    Ok(())
}

pub(crate) fn search(world: &World) -> Tried {
    let layout = Layout::new(&world.path("state"), None);
    let found = look_for(&layout, &Filter::default()).map_err(said)?;
    // Where the copy cannot be used, the journals answer; it must have been the copy.
    read(world.path("state/audit/store/db"))?;
    if found.lines.len() < 4 { Err(format!("{} records", found.lines.len())) } else { Ok(()) }
}

pub(crate) fn roots() -> Tried {
    let roots = egret::tls::upstream::system_roots();
    if roots.is_empty() { Err("no roots".to_owned()) } else { Ok(()) }
}

pub(crate) fn tls() -> Tried {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate().map_err(said)?;
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).map_err(said)?;
    let certificate = params.self_signed(&key).map_err(said)?.der().clone();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(said)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .map_err(said)?;
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate).map_err(said)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(said)?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(1 << 14);
    let name = ServerName::try_from("a.test").map_err(said)?;
    let go = async {
        let accept = TlsAcceptor::from(Arc::new(server)).accept(far);
        let connect = TlsConnector::from(Arc::new(client)).connect(name, near);
        let (mut served, mut asked) = tokio::try_join!(accept, connect)?;
        asked.write_all(b"ping").await?;
        asked.flush().await?;
        let mut heard = [0; 4];
        served.read_exact(&mut heard).await.map(drop)
    };
    tokio::runtime::Builder::new_current_thread().build().map_err(said)?.block_on(go).map_err(said)
}

pub(crate) fn tcp() -> Tried {
    let go = || -> std::io::Result<()> {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(Duration::from_secs(9)))?;
        let (mut server, _) = listener.accept()?;
        server.write_all(b"hello")?;
        let mut heard = [0; 5];
        client.read_exact(&mut heard)?;
        client.peer_addr()?;
        client.take_error()?;
        server.shutdown(std::net::Shutdown::Both)
    };
    go().map_err(said)
}

pub(crate) fn udp() -> Tried {
    let go = || -> std::io::Result<()> {
        let (a, b) = (
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        );
        a.send_to(b"x", b.local_addr()?)?;
        b.set_read_timeout(Some(Duration::from_secs(9)))?;
        let (_, from) = b.recv_from(&mut [0; 8])?;
        b.connect(from)?;
        b.send(b"y")?;
        a.recv(&mut [0; 8]).map(drop)
    };
    go().map_err(said)
}

pub(crate) fn threads() -> Tried {
    let mut handles = Vec::new();
    for n in 0..8 {
        let builder = std::thread::Builder::new().name(format!("thread-{n}"));
        let work = || {
            std::thread::sleep(Duration::from_millis(2));
            fs::read_to_string("/proc/thread-self/comm")
        };
        handles.push(builder.spawn(work).map_err(said)?);
    }
    for (n, handle) in handles.into_iter().enumerate() {
        let name = handle.join().map_err(|_| "it panicked")?.map_err(said)?;
        assert_eq!(name.trim(), format!("thread-{n}"));
    }
    std::thread::available_parallelism().map(drop).map_err(said)
}

pub(crate) fn panic() -> Tried {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| drop(std::backtrace::Backtrace::force_capture())));
    let caught = std::panic::catch_unwind(|| panic!("on purpose"));
    std::panic::set_hook(hook);
    if caught.is_err() { Ok(()) } else { Err("it did not panic".to_owned()) }
}

pub(crate) fn memory() -> Tried {
    secret_memory::guard(&[7; 64]).map_err(said)?;
    let mut large: Vec<Vec<u8>> = (0..16).map(|_| vec![1; 1 << 20]).collect();
    large.iter_mut().for_each(|v| v.resize(3 << 20, 2));
    large.truncate(2);
    large.iter_mut().for_each(Vec::shrink_to_fit);
    Ok(())
}

pub(crate) fn runtime() -> Tried {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(said)?;
    let go = async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let at = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.write_all(b"x").await
        });
        let mut stream = tokio::net::TcpSocket::new_v4()?.connect(at).await?;
        stream.set_nodelay(true)?;
        stream.read_u8().await?;
        server.await??;
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await?;
        let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let none = tokio::time::timeout(Duration::from_millis(5), ends.recv()).await;
        assert!(none.is_err());
        std::io::Result::Ok(())
    };
    runtime.block_on(go).map_err(said)
}

pub(crate) fn resolver(world: &World) -> Tried {
    Resolver::system().check().map_err(said)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(said)?;
    let ask = |resolver: &Resolver, name: &str| {
        let host = HostName::parse(name).map_err(said)?;
        runtime.block_on(resolver.resolve(&host)).map_err(said)
    };
    let files = || Resolver::from_files(world.path("conf/resolv.conf"), world.path("conf/hosts"));
    ask(&files(), "old.test")?;
    world.replace_configuration();
    ask(&files(), "fresh.test").map(drop)
}

pub(crate) fn map(given: &Given) -> Tried {
    let map = given.hash.fd().as_fd();
    bpf::map_set(map, &1_u32, &42_u64).map_err(said)?;
    assert_eq!(bpf::map_get::<u32, u64>(map, &1).map_err(said)?, Some(42));
    assert_eq!(bpf::map_next_key::<u32>(map, None).map_err(said)?, Some(1));
    assert_eq!(bpf::map_take::<u32, u64>(map, &1).map_err(said)?, Some(42));
    bpf::map_set(map, &2_u32, &7_u64).map_err(said)?;
    assert!(bpf::map_remove(map, &2_u32).map_err(said)?);
    assert_eq!(bpf_object::map_shape(map).map_err(said)?.value_size, 8);
    // As aya reads it, with what it wants to know of the machine.
    aya::util::nr_cpus().map_err(|(what, e)| format!("{what}: {e}"))?;
    let copy = map.try_clone_to_owned().map_err(said)?;
    let data = aya::maps::MapData::from_fd(copy).map_err(said)?;
    let typed: HashMap<_, u32, u64> = Map::HashMap(data).try_into().map_err(said)?;
    assert_eq!(typed.keys().count(), 0);
    Ok(())
}

pub(crate) fn ring(given: &Given) -> Tried {
    let map = given.ring_map.borrow_mut().take().ok_or("used")?;
    let ring: RingBuf<_> = map.try_into().map_err(said)?;
    let empty = given.ring.borrow_mut().insert(ring).next().is_none();
    if empty { Ok(()) } else { Err("something is in it".to_owned()) }
}

/// As the parent passes listeners and maps.
pub(crate) fn descriptor(given: &Given) -> Tried {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(said)?;
    fdpass::send(&given.line.0, b"take", Some(listener.as_fd())).map_err(said)?;
    let (bytes, fd) = fdpass::receive(&given.line.1).map_err(said)?.ok_or("the line is closed")?;
    assert_eq!(bytes, b"take");
    let taken = TcpListener::from(fd.ok_or("no descriptor came")?);
    assert_ne!(taken.as_raw_fd(), listener.as_raw_fd());
    TcpStream::connect(listener.local_addr().map_err(said)?).map_err(said)?;
    taken.accept().map(drop).map_err(said)
}

pub(crate) fn pidfd() -> Tried {
    let held = sys_pidfd::open(std::process::id()).map_err(said)?;
    if sys_pidfd::is_alive(&held) { Ok(()) } else { Err("it reads as dead".to_owned()) }
}

pub(crate) fn open_files() -> Tried {
    egret::contain::hardening::raise_open_files().map_err(said)
}

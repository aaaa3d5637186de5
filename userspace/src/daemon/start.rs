//! From nothing to a warden with an interceptor and every agent of before. What is proven here is
//! proven before anything is served: the programs load, every hook fires, the log can be written.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::error::DaemonError;
use super::governor::Governor;
use super::records::Records;
use super::supervise::{Running, Supervisor, Terms, identity};
use super::{Options, environment, reload};
use crate::audit::Durability;
use crate::contain::{hardening, trust};
use crate::redirect::bpffs::Bpffs;
use crate::redirect::cgroup::Hierarchy;
use crate::redirect::ebpf::{Kernel, KernelOptions};
use crate::redirect::netns::Netns;
use crate::redirect::self_test;
use crate::tls::authority::Authority;

/// How long the daemon before may take to be gone.
const LAST_ONE: Duration = Duration::from_secs(5);

/// Starts everything but the threads. The lock says that this daemon has the folder.
pub(super) fn start(options: &Options) -> Result<(Governor, Running, Flock<File>), DaemonError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    hardening::protect_self()
        .and_then(|()| hardening::raise_open_files())
        .map_err(DaemonError::io("protect egret itself"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let lock = own_folder(&options.run)?;
    let records = Records::open(&options.run).map_err(DaemonError::at(&options.run))?;
    let hierarchy = Hierarchy::find()?;
    // Bad configuration is found before the kernel is touched.
    let written = records.all().map(|(written, _)| written).unwrap_or_default();
    let kept = |config: &str| {
        let mine = |w: &&super::records::Written| w.config.as_deref() == Some(config);
        written.iter().find(mine).map(|w| w.placeholders.clone()).unwrap_or_default()
    };
    let read = reload::read(&options.config, kept)?;

    let bpffs = Bpffs::open_or_mount(&options.run.join("bpf"))?;
    let kernel = Kernel::load_or_adopt(&KernelOptions {
        lease: read.config.lease,
        max_flows: options.max_flows,
        pin_dir: Some(bpffs.path().into()),
    })?;
    // Until an interceptor serves.
    kernel.feed().expire()?;
    // From here on a unit that carries them can start, and is closed until it is attached.
    kernel.pin_closed()?;
    kernel.adopt_guards()?;
    self_test::run(&kernel, &hierarchy)?;
    kernel.feed().expire()?;
    for path in hierarchy.sweep()? {
        tracing::info!(path = %path.display(), "removed what a killed egret left behind");
    }

    let authority = Authority::load_or_create(&options.state.join("ca"))?;
    let files = trust::files(&trust::system_roots(), &authority.pem())
        .map_err(|e| DaemonError::io("make the trust files")(std::io::Error::other(e)))?;
    trust::publish(&options.run.join("trust"), &files)
        .map_err(DaemonError::at(&options.run.join("trust")))?;
    let user = identity(&read.config.user);
    if user.is_none() {
        tracing::warn!(
            "there is no user `{}`: the interceptor is uid 0 without capabilities; \
             `egret systemd install` makes the user",
            read.config.user
        );
    }
    let terms = Terms {
        state: options.state.clone(),
        run: options.run.clone(),
        lease: read.config.lease,
        power: read.config.durability == Durability::Power,
        connections: read.config.connections,
        user,
        authority,
        trust: files,
    };
    let supervisor = Supervisor::new(terms, kernel.feed().clone());
    let running = supervisor.start()?;
    supervisor.install(&running);
    let governor = Governor::new(
        kernel,
        hierarchy,
        supervisor,
        records,
        options.run.clone(),
        options.state.clone(),
        options.config.clone(),
        Netns::own()?,
    );
    {
        let mut now = governor.lock();
        for (name, definition) in &read.definitions {
            environment::publish(&options.run, name, definition)
                .map_err(DaemonError::at(&options.run.join("env")))?;
        }
        now.config = Some(read.config);
        now.definitions = read.definitions;
        governor.take_over(&mut now)?;
    }
    governor.supervisor.admit();
    Ok((governor, running, lock))
}

/// Makes the daemon's folder and takes it for this process.
fn own_folder(run: &Path) -> Result<Flock<File>, DaemonError> {
    DirBuilder::new().recursive(true).mode(0o755).create(run).map_err(DaemonError::at(run))?;
    let path = run.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(DaemonError::at(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .map_err(DaemonError::at(&path))?;
    // One that was killed just now may still be on its way out.
    let deadline = Instant::now() + LAST_ONE;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, _)) if Instant::now() < deadline => file = back,
            Err(_) => return Err(DaemonError::Running(run.to_owned())),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

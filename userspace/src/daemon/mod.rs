//! Beside the flow: the daemon's warden. It holds the privileges, and touches no byte of any
//! agent's connection.
//!
//! ```text
//! start      folder, pins, programs and their proof, authority, interceptor, agents of before
//! governor   the one lock through which what is governed changes
//!   attach · deny · reload · namespaces · restart · orphans      the changes
//! supervise  the interceptor: started, watched, started again (its socket: link)
//! scan       groups that match, groups that are gone, new network namespaces
//! server     the control socket
//! ```
//!
//! Threads: one waits for signals, one ticks, one scans, one watches the interceptor, and each
//! control connection has its own. Each change holds the governor's lock; the tick needs none, so
//! a change that takes long does not end the lease.

mod agents;
mod attach;
mod definition;
mod deny;
mod environment;
mod error;
mod governor;
mod link;
mod namespaces;
mod notify;
mod orphans;
mod records;
mod reload;
mod restart;
mod runs;
mod scan;
mod server;
mod start;
mod status;
mod supervise;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

pub use error::DaemonError;

use governor::Governor;
use notify::Notify;
use supervise::Running;

/// A sixth of the usual lease.
const TICK: Duration = Duration::from_millis(500);

/// What to run with.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    /// The folder of pins and sockets.
    pub run: PathBuf,
    pub state: PathBuf,
    /// How many connections may wait for the interceptor; None: as many as the kernel object says.
    pub max_flows: Option<u32>,
}

/// Runs until it is told to end. Agents stay attached then, and closed.
///
/// # Errors
/// When it cannot start. What an earlier daemon attached stays closed.
pub fn run(options: &Options) -> Result<(), DaemonError> {
    // Before the first thread, so that every thread has them blocked and one can wait for them.
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(|e| DaemonError::io("block signals")(e.into()))?;
    let notify = Arc::new(Notify::from_env());
    notify.status("starting");
    let (governor, running, _lock) = start::start(options)?;
    let governor = Arc::new(governor);
    let ends = Arc::new(AtomicBool::new(false));
    let listener = server::listen(&governor)?;
    spawn("egret-watch", {
        let (governor, ends) = (Arc::clone(&governor), Arc::clone(&ends));
        move || keep_interceptor(&governor, running, &ends)
    })?;
    spawn("egret-tick", {
        let (governor, ends, notify) =
            (Arc::clone(&governor), Arc::clone(&ends), Arc::clone(&notify));
        move || tick(&governor, &notify, &ends)
    })?;
    governor.scan();
    spawn("egret-scan", {
        let (governor, ends) = (Arc::clone(&governor), Arc::clone(&ends));
        move || scan::run(&governor, &ends)
    })?;
    spawn("egret-control", {
        let governor = Arc::clone(&governor);
        move || server::serve(&governor, &listener)
    })?;
    notify.ready(&governor.sentence());
    tracing::info!("{}", governor.sentence());
    wait_for_signals(&governor, &notify, &signals);
    notify.say("STOPPING=1");
    ends.store(true, Ordering::Relaxed);
    governor.end();
    Ok(())
}

/// Returns when the daemon is to end.
fn wait_for_signals(governor: &Governor, notify: &Notify, signals: &SigSet) {
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => {
                notify.say("RELOADING=1");
                let said = match governor.reload() {
                    Ok(done) => done,
                    Err(error) => format!("reload refused, nothing has changed: {error}"),
                };
                governor.scan();
                tracing::info!("{said}");
                notify.ready(said.lines().next().unwrap_or_default());
            }
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "waiting for signals"),
        }
    }
}

/// Says twice a second that the warden lives; the interceptor renews the lease when it hears it.
fn tick(governor: &Governor, notify: &Notify, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        governor.supervisor.tick();
        if governor.supervisor.is_well() {
            notify.say("WATCHDOG=1");
        }
        thread::sleep(TICK);
    }
}

/// Starts the interceptor again whenever it is gone.
fn keep_interceptor(governor: &Governor, first: Running, ends: &AtomicBool) {
    let mut running = first;
    loop {
        let since = Instant::now();
        governor.supervisor.wait(&running);
        if ends.load(Ordering::Relaxed) {
            return;
        }
        tracing::error!("the interceptor is gone; everything is refused until the next one serves");
        // One that does not live long is not started as fast as the machine can.
        thread::sleep(Duration::from_secs(1).saturating_sub(since.elapsed()));
        running = loop {
            match governor.replace_interceptor() {
                Ok(running) => break running,
                Err(error) => tracing::error!(%error, "no interceptor"),
            }
            if ends.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_secs(1));
        };
    }
}

impl Governor {
    fn replace_interceptor(&self) -> Result<Running, DaemonError> {
        let running = self.supervisor.start()?;
        let mut now = self.lock();
        // The lease is renewed only after it knows every agent.
        self.supervisor.install(&running);
        match self.serve_again(&mut now) {
            Ok(()) => self.supervisor.admit(),
            Err(error) => {
                self.supervisor.retire(&running);
                return Err(error);
            }
        }
        Ok(running)
    }

    /// Ends in good order: closed at once, and the log is closed.
    fn end(&self) {
        if let Ok(link) = self.supervisor.link() {
            let stopped = link.tell(crate::intercept::wire::Order::Stop, &[]);
            if let Err(error) = stopped {
                tracing::warn!(%error, "the interceptor did not end in good order");
            }
        }
        if let Err(error) = self.kernel.feed().expire() {
            tracing::error!(%error, "the lease could not be ended; it ends by itself");
        }
        let _ = std::fs::remove_file(server::path(&self.run));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), DaemonError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(DaemonError::io("start a thread"))
}

//! Beside the flow: the assembly of one `egret run`, from checked options to a clean end.
//!
//! ```text
//! prepare   user, credentials, audit log             nothing of the system is touched yet
//! enclose   programs, cgroup, namespace, listeners   each owned by a value that takes it back
//!           keys and certificates                    made meanwhile, on a thread of their own
//! serve     connections, DNS, heartbeat, events      on the runtime
//! spawn     the command, inside all of it
//! finish    drain, last events, last record
//! ```

mod enclosure;
mod error;
mod keys;
pub mod remote;
mod world;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

pub use error::SessionError;

use crate::audit::{Audit, AuditOptions, Draft, Event, Summary};
use crate::config::PolicyBundle;
use crate::connection::Settings;
use crate::contain::{self, ExitStatus, hardening, user};
use crate::dns::Names;
use crate::forward::resolve::Resolver;
use crate::identify::{Agent, AgentCell, AgentLink, CgroupId, SessionId};
use crate::inject::CredentialSet;
use crate::policy::{Policy, UnmatchedNames};
use crate::secrets::Operator;
use crate::serve::{Service, Shared, watch};
use crate::shutdown::{self, Trigger};
use crate::tls::leaf::LeafMinter;
use enclosure::Enclosure;
use keys::Keys;

/// How long open connections may take to end once the command has.
const DRAIN: Duration = Duration::from_secs(2);

/// What to run, and under what.
#[derive(Debug)]
pub struct Options {
    /// The agent's name in records.
    pub name: Option<String>,
    pub policy: Policy,
    /// The same as written, for a daemon.
    pub bundle: PolicyBundle,
    pub command: Vec<OsString>,
    /// `--user`: a name or number, with `:group`.
    pub user: Option<String>,
    pub state: PathBuf,
    pub keep_privileges: bool,
    pub allow_io_uring: bool,
    /// Off only for tests that watch an orphaned agent get nowhere.
    pub die_with_parent: bool,
}

/// How it went.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub session: SessionId,
    pub summary: Summary,
    /// Refusals in the kernel that found no room in the ring of events.
    pub events_dropped: u64,
}

/// Runs a command under enforcement and waits until nothing of it is left. `ended` is told once
/// when the command itself has ended while something it started still runs.
///
/// # Errors
/// Nothing of the command has run, or everything has been ended; nothing is left behind.
pub fn run(options: &Options, ended: impl FnOnce(ExitStatus)) -> Result<Finished, SessionError> {
    let prepared = Prepared::new(options)?;
    let result = enclosed(options, &prepared, ended);
    if let Err(error) = &result {
        prepared.close(&error.to_string()); // the log says why nothing ran
    }
    result
}

/// The part of [`run`] that changes the system; what it changed is back when it returns.
fn enclosed(
    options: &Options,
    prepared: &Prepared,
    ended: impl FnOnce(ExitStatus),
) -> Result<Finished, SessionError> {
    let keys = Keys::begin(&prepared.session);
    let enclosure = Enclosure::raise(&prepared.session)?;
    let keys = keys.finish()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("egret")
        .build()
        .map_err(|source| SessionError::Io { doing: "start the runtime", source })?;
    let served = Served::start(&runtime, prepared, &enclosure, keys.leaves)?;
    let child = contain::spawn(world::spec(options, prepared, &enclosure, keys.trust)?)?;
    keys::warm();
    let waited = child.wait(ended);
    served.stop(&runtime);
    let status = waited.map_err(|source| SessionError::Io { doing: "wait", source })?;
    let finished = Finished {
        status,
        session: prepared.session.clone(),
        summary: prepared.audit.summary(),
        events_dropped: enclosure.kernel.feed().stats().map_or(0, |s| s.events_dropped),
    };
    runtime.shutdown_timeout(Duration::from_millis(200));
    prepared.close(&format!("exit code {}", status.code()));
    enclosure.lower()?;
    Ok(finished)
}

/// Everything that can fail before the system is touched.
struct Prepared {
    session: SessionId,
    user: user::Target,
    agent: Arc<AgentCell>,
    audit: Audit,
}

impl Prepared {
    fn new(options: &Options) -> Result<Self, SessionError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(SessionError::NotRoot);
        }
        hardening::protect_self()
            .and_then(|()| hardening::raise_open_files())
            .map_err(|source| SessionError::Io { doing: "protect egret itself", source })?;
        let variable = |name: &str| std::env::var(name).ok();
        let user = user::resolve(options.user.as_deref(), variable)?;
        let operator = Operator::current();
        let credentials =
            CredentialSet::activate(&options.policy, &operator).map_err(SessionError::Secrets)?;
        lock_in_memory(&credentials);
        let session = SessionId::random();
        let name = options.name.as_deref().unwrap_or(&options.policy.name);
        let link = AgentLink {
            name: name.into(),
            policy: Arc::new(options.policy.clone()),
            credentials: Arc::new(credentials),
        };
        let agent = Agent { chain: vec![link], session: session.clone() };
        let command = options.command.first().map(|c| c.to_string_lossy().into_owned());
        let audit = Audit::open(&AuditOptions {
            opening: Draft::note(Event::SessionStart)
                .agent(&agent)
                .message(&format!("run {}", command.unwrap_or_default())),
            ..AuditOptions::new(&options.state, session.clone())
        })?;
        Ok(Self { session, user, agent: Arc::new(AgentCell::new(agent)), audit })
    }

    fn credentials(&self) -> Vec<Arc<CredentialSet>> {
        self.agent.current().chain.iter().map(|link| Arc::clone(&link.credentials)).collect()
    }

    fn close(&self, how: &str) {
        let last = Draft::note(Event::SessionEnd).agent(&self.agent.current()).message(how);
        if let Err(error) = self.audit.close_with(last) {
            tracing::error!(%error, "the audit log could not be closed");
        }
    }
}

/// Keeps the secrets out of swap and core dumps. A limit on locked memory is no reason not to run:
/// egret is not dumpable, and `egret doctor` warns of swap.
fn lock_in_memory(credentials: &CredentialSet) {
    for credential in credentials.all() {
        if let Err(error) = crate::sys::memory::guard(credential.secret.expose()) {
            tracing::warn!(%error, "a secret could not be locked in memory");
        }
    }
}

/// The tasks of a session.
struct Served {
    service: Arc<Service>,
    trigger: Trigger,
    /// Those that wake on a timer. Ended last: without heartbeats the kernel closes.
    timers: JoinSet<()>,
    recorder: Arc<watch::Recorder>,
}

/// A session has one agent, whose every refusal in the kernel is.
struct Only(Arc<Service>);

impl watch::Services for Only {
    fn find(&self, _agent: Option<CgroupId>) -> Option<Arc<Service>> {
        Some(Arc::clone(&self.0))
    }

    fn all(&self) -> Vec<Arc<Service>> {
        vec![Arc::clone(&self.0)]
    }
}

impl Served {
    fn start(
        runtime: &Runtime,
        prepared: &Prepared,
        enclosure: &Enclosure,
        leaves: LeafMinter,
    ) -> Result<Self, SessionError> {
        let feed = enclosure.kernel.feed();
        let shared = Shared {
            feed: Arc::clone(feed),
            audit: prepared.audit.clone(),
            leaves: Arc::new(leaves),
            resolver: Arc::new(Resolver::system()),
            settings: Settings::default(),
        };
        // Every name is answered, so that a refusal arrives as a readable answer and not as a name
        // that does not exist.
        let service = Arc::new(Service::new(
            Arc::clone(&prepared.agent),
            enclosure.cgroup_path(),
            UnmatchedNames::Synthesize,
            Names::new(),
            shared,
        ));
        let (trigger, watcher) = shutdown::channel();
        let services: Arc<dyn watch::Services> = Arc::new(Only(Arc::clone(&service)));
        let _inside = runtime.enter(); // tokio's sockets register with the runtime
        service
            .open(enclosure.netns.cookie(), enclosure.sockets()?)
            .map_err(|source| SessionError::Io { doing: "serve the listeners", source })?;
        let audit = prepared.audit.clone();
        let recorder =
            Arc::new(watch::Recorder::new(Arc::clone(feed), Arc::clone(&services), audit));
        let mut timers = JoinSet::new();
        timers.spawn(Arc::clone(&recorder).run(watcher));
        timers.spawn(watch::beat(Arc::clone(feed)));
        timers.spawn(watch::sweep(services, Arc::clone(feed)));
        Ok(Self { service, trigger, timers, recorder })
    }

    /// Ends the tasks, gently and then not, and writes down what the kernel still had to say.
    fn stop(mut self, runtime: &Runtime) {
        self.trigger.drain();
        runtime.block_on(async {
            self.service.stop(DRAIN).await;
            self.timers.shutdown().await;
        });
        self.recorder.drain();
    }
}

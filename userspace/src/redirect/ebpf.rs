//! The kernel programs, loaded: their maps, their links, their counters.
//!
//! Who keeps them alive: a link lives as long as its descriptor. When `run` dies its links go with
//! it, and what then stays closed is the agent's network namespace, which has nothing but loopback.
//! The daemon pins instead, so that its death changes nothing until the lease ends.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_ebpf::abi::{AgentEntry, Closed, Hook};
use aya::maps::MapData;

pub use agent_ebpf::abi::{AgentFlags, ListenerPorts};

pub use super::attachment::{Attachment, Overlap};
use super::cgroup::CgroupError;
pub use super::feed::{Feed, KernelStats};
use super::load::{self, Loaded, Source};
pub use super::local::LocalPorts;
use super::pins::{MapPins, PinError, Pins};
use crate::identify::CgroupId;
use crate::sys::bpf;

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// How long one [`Feed::beat`] lets agents connect. Beat several times in this time.
    pub lease: Duration,
    /// How many connections may wait for the interceptor; None: the object's own limit.
    pub max_flows: Option<u32>,
    /// A folder on bpffs (see [`super::bpffs`]) in which maps and links are pinned, to be adopted by
    /// the next egret.
    pub pin_dir: Option<PathBuf>,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(3), max_flows: None, pin_dir: None }
    }
}

/// Why the kernel side does not work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "the kernel does not let this process use BPF: egret must run as root, outside of containers that forbid bpf(2)"
    )]
    NotPermitted(#[source] io::Error),
    #[error("the kernel programs cannot be loaded: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the kernel does not accept the program `{program}` (egret needs Linux 5.15 or RHEL 9.2): {source}\n{log}"
    )]
    Program {
        program: &'static str,
        source: io::Error,
        /// What the verifier said.
        log: String,
    },
    #[error("the kernel object lacks `{0}`: it was not built from this source")]
    Missing(&'static str),
    #[error("the program `{program}` cannot be attached to {cgroup}: {source}")]
    Attach { program: &'static str, cgroup: PathBuf, source: io::Error },
    #[error("the program `{program}` cannot be replaced in place: {source}")]
    Replace { program: &'static str, source: io::Error },
    #[error("{0} holds egret itself, which would be cut off with it")]
    HoldsEgret(PathBuf),
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error(transparent)]
    Cgroup(CgroupError),
    #[error("the clock cannot be read: {0}")]
    Clock(#[source] nix::errno::Errno),
    #[error("the kernel map `{map}` does not answer: {source}")]
    Map { map: &'static str, source: io::Error },
}

/// The loaded programs and maps. Every method takes `&self` and may be called from any thread.
pub struct Kernel {
    programs: Vec<(Hook, OwnedFd)>,
    /// Loaded for a daemon only.
    closed: Vec<(Closed, OwnedFd)>,
    pub(super) maps: Tables,
    feed: Arc<Feed>,
    pins: Option<Pins>,
}

/// The maps that say who is an agent and where its interceptor is.
pub(super) struct Tables {
    pub(super) agents: OwnedFd,
    pub(super) listeners: OwnedFd,
    pub(super) ports: OwnedFd,
    pub(super) local: OwnedFd,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("programs", &self.programs.len()).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads every program and map. Nothing is attached, and no agent is known. With a `pin_dir` the
    /// maps are pinned there.
    ///
    /// # Errors
    /// Names the program or map that the kernel does not accept; [`PinError::AlreadyPinned`] when
    /// there are maps to adopt.
    pub fn load(options: &KernelOptions) -> Result<Self, KernelError> {
        let pins = options.pin_dir.clone().map(Pins::new);
        if let Some(pins) = &pins {
            pins.clear_for_new_maps()?;
            pins.prepare()?;
        }
        let loaded = load::load(options, pins.as_ref().map_or(Source::Own, Source::Pin))?;
        let kernel = Self::new(loaded, options, pins)?;
        kernel.feed.beat()?;
        Ok(kernel)
    }

    /// Loads every program onto the maps that an earlier egret pinned: all of them, or none.
    /// Follow it with [`Kernel::adopt_attachments`]. The lease is not renewed: that is for the part
    /// of egret that serves, once it does.
    ///
    /// # Errors
    /// Names the map that is missing or that has another layout.
    pub fn adopt(options: &KernelOptions) -> Result<Self, KernelError> {
        let pins = Pins::new(options.pin_dir.clone().ok_or(PinError::NotPinned)?);
        pins.require_maps()?;
        pins.prepare()?;
        let loaded = load::load(options, Source::Adopt(&pins))?;
        let kernel = Self::new(loaded, options, Some(pins))?;
        kernel.forget_listeners()?;
        Ok(kernel)
    }

    /// [`Kernel::adopt`] when every map is pinned, [`Kernel::load`] otherwise: how a daemon starts.
    ///
    /// # Errors
    /// As those two.
    pub fn load_or_adopt(options: &KernelOptions) -> Result<Self, KernelError> {
        match options.pin_dir.clone().map(|dir| Pins::new(dir).maps()).transpose()? {
            Some(MapPins::Complete) => Self::adopt(options),
            Some(_) | None => Self::load(options),
        }
    }

    fn new(
        loaded: Loaded,
        options: &KernelOptions,
        pins: Option<Pins>,
    ) -> Result<Self, KernelError> {
        let Loaded { mut maps, programs, closed } = loaded;
        let mut map = |name| map_fd(&mut maps, name);
        let feed = [map("FLOWS")?, map("LEASE")?, map("EVENTS")?, map("STATS")?];
        Ok(Self {
            programs,
            closed,
            maps: Tables {
                agents: map("AGENTS")?,
                listeners: map("LISTENERS")?,
                ports: map("PORTS")?,
                local: map("LOCAL")?,
            },
            feed: Arc::new(Feed::from_fds(feed, options.lease)?),
            pins,
        })
    }

    /// What serving agents needs of the kernel.
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// The program of a hook.
    pub(super) fn program(&self, hook: Hook) -> Result<BorrowedFd<'_>, KernelError> {
        let found = self.programs.iter().find(|(h, _)| *h == hook);
        found.map(|(_, fd)| fd.as_fd()).ok_or(KernelError::Missing(hook.name()))
    }

    /// The program that stands at a hook until there is an agent.
    pub(super) fn closed_program(&self, closed: Closed) -> Result<BorrowedFd<'_>, KernelError> {
        let found = self.closed.iter().find(|(c, _)| *c == closed);
        found.map(|(_, fd)| fd.as_fd()).ok_or(KernelError::Missing(closed.name()))
    }

    /// Every program by name.
    pub(super) fn all_programs(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        let open = self.programs.iter().map(|(hook, fd)| (hook.name(), fd));
        open.chain(self.closed.iter().map(|(closed, fd)| (closed.name(), fd)))
    }

    /// Where the maps and links are pinned.
    ///
    /// # Errors
    /// When they are not.
    pub fn pins(&self) -> Result<&Pins, PinError> {
        self.pins.as_ref().ok_or(PinError::NotPinned)
    }

    /// Lets an agent reach its interceptor. Until this, its cgroup is refused everything.
    ///
    /// # Errors
    /// When the map is full or gone.
    pub fn set_agent(&self, agent: CgroupId, flags: AgentFlags) -> Result<(), KernelError> {
        let entry = AgentEntry { flags, pad: 0 };
        bpf::map_set(self.maps.agents.as_fd(), &agent.0, &entry).map_err(at("AGENTS"))
    }

    /// Forgets an agent, with its listeners and what [`Kernel::set_local`] said: from now on it is
    /// refused everything.
    ///
    /// # Errors
    /// When a map is gone.
    pub fn remove_agent(&self, agent: CgroupId) -> Result<(), KernelError> {
        bpf::map_remove(self.maps.agents.as_fd(), &agent.0).map_err(at("AGENTS"))?;
        self.clear_local(agent)
    }

    /// The map of listeners, for the self-test, whose child writes it from inside its namespace.
    pub(super) fn listeners_fd(&self) -> BorrowedFd<'_> {
        self.maps.listeners.as_fd()
    }
}

/// The kernel's number of each hook (`enum bpf_attach_type` in include/uapi/linux/bpf.h).
pub(crate) const fn attach_type(hook: Hook) -> u32 {
    match hook {
        Hook::Egress => 1,
        Hook::SockCreate => 2,
        Hook::SockOps => 3,
        Hook::Bind4 => 8,
        Hook::Bind6 => 9,
        Hook::Connect4 => 10,
        Hook::Connect6 => 11,
        Hook::Sendmsg4 => 14,
        Hook::Sendmsg6 => 15,
        Hook::Recvmsg4 => 19,
        Hook::Recvmsg6 => 20,
        Hook::Getpeername4 => 29,
        Hook::Getpeername6 => 30,
        Hook::SockRelease => 34,
    }
}

type Maps = HashMap<String, MapData>;

fn map_fd(maps: &mut Maps, name: &'static str) -> Result<OwnedFd, KernelError> {
    let data = maps.remove(name).ok_or(KernelError::Missing(name))?;
    data.fd().as_fd().try_clone_to_owned().map_err(at(name))
}

/// The error of a map.
pub(super) fn at(map: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::Map { map, source }
}

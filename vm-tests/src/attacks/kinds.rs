//! Pure: what the catalogue is made of: modes, users, lines, probes, and what is known of each.

use anyhow::Result;

use super::judge::Outcome;
use super::stage::Stage;

/// How an agent is contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// `egret run`: hooks, and namespaces of its own.
    Run,
    /// `egret attach`: hooks on a cgroup of the machine. The agent shares the machine's network,
    /// files and processes, as far as its unit lets it (see `probes/attack_around.py`).
    Attach,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Run, Self::Attach];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Attach => "attach",
        }
    }

    /// By its name, or both by "both".
    pub fn named(name: &str) -> Option<Vec<Self>> {
        match name {
            "both" => Some(Self::ALL.to_vec()),
            one => Self::ALL.into_iter().find(|mode| mode.name() == one).map(|mode| vec![mode]),
        }
    }
}

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// uid 1000, without capabilities.
    User,
    /// uid 0: without capabilities in a run; with those of a default container when attached.
    Root,
}

impl Who {
    pub const ALL: [Self; 2] = [Self::User, Self::Root];

    pub const fn uid(self) -> u32 {
        match self {
            Self::User => 1000,
            Self::Root => 0,
        }
    }
}

/// One line of the catalogue.
pub(in crate::attacks) struct Attack {
    pub(in crate::attacks) number: u8,
    pub(in crate::attacks) title: &'static str,
    pub(in crate::attacks) probes: &'static [Probe],
    pub(in crate::attacks) specials: &'static [Special],
    /// What is known to get through and has no probe, each as a sentence of SECURITY.md.
    pub(in crate::attacks) stated: &'static [Note],
    /// What of this line has no probe.
    pub(in crate::attacks) not_yet: &'static [Note],
}

/// A sentence about a line, where it holds.
pub(in crate::attacks) struct Note {
    pub(in crate::attacks) modes: &'static [Mode],
    pub(in crate::attacks) text: &'static str,
}

impl Note {
    pub(in crate::attacks) const fn run(text: &'static str) -> Self {
        Self { modes: &[Mode::Run], text }
    }

    pub(in crate::attacks) const fn both(text: &'static str) -> Self {
        Self { modes: &Mode::ALL, text }
    }
}

/// What tells that a probe got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::attacks) enum Sign {
    /// A packet crossed the link, or the canary at its end answered.
    Wire,
    /// A packet that is not a DNS message crossed the link.
    Dial,
    /// The probe could do what it is named after.
    Done,
    /// The upstream saw the probe's mark.
    Upstream,
    /// As `Done`; and the control is part of the probe, because it makes sense only inside.
    Inside,
}

/// In what surroundings a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::attacks) enum Setup {
    Plain,
    /// `egret run` is started with `--allow-io-uring`.
    Uring,
    /// Somebody knocks at the agent's ports from the far end of the link.
    Knocked,
    /// A program of the machine hands out sockets, on Unix sockets that it makes when the agent
    /// runs already.
    Late,
}

impl Setup {
    pub(in crate::attacks) const ALL: [Self; 4] =
        [Self::Plain, Self::Uring, Self::Knocked, Self::Late];
}

/// What is known of a probe in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::attacks) enum Known {
    /// It must not get through.
    Holds,
    /// It gets through for these users, as this sentence of SECURITY.md says.
    Through(&'static [Who], &'static str),
    /// It makes no sense in this mode, and why.
    Absent(&'static str),
}

/// One attempt, by a function of `probes/attack*.py`.
#[derive(Clone, Copy)]
pub(in crate::attacks) struct Probe {
    pub(in crate::attacks) id: &'static str,
    pub(in crate::attacks) call: &'static str,
    /// Separated by spaces; `$name` is replaced by the scene.
    pub(in crate::attacks) args: &'static str,
    pub(in crate::attacks) sign: Sign,
    pub(in crate::attacks) setup: Setup,
    /// The control needs root; the ordinary user could not do it anywhere.
    pub(in crate::attacks) by_root: bool,
    pub(in crate::attacks) needs_ipv6: bool,
    /// It must get through inside: what the other probes of its line do is shown to be possible.
    pub(in crate::attacks) passes: bool,
    pub(in crate::attacks) run: Known,
    pub(in crate::attacks) attach: Known,
}

impl Probe {
    pub(in crate::attacks) const fn known(&self, mode: Mode) -> Known {
        match mode {
            Mode::Run => self.run,
            Mode::Attach => self.attach,
        }
    }

    pub(in crate::attacks) const fn is_absent(&self, mode: Mode) -> bool {
        matches!(self.known(mode), Known::Absent(_))
    }
}

/// An attack that the harness plays itself.
pub(in crate::attacks) struct Special {
    pub(in crate::attacks) id: &'static str,
    pub(in crate::attacks) modes: &'static [Mode],
    pub(in crate::attacks) run: fn(&Stage<'_>, Who) -> Result<Outcome>,
}

impl Special {
    pub(in crate::attacks) const fn both(
        id: &'static str,
        run: fn(&Stage<'_>, Who) -> Result<Outcome>,
    ) -> Self {
        Self { id, modes: &Mode::ALL, run }
    }

    pub(in crate::attacks) const fn run(
        id: &'static str,
        run: fn(&Stage<'_>, Who) -> Result<Outcome>,
    ) -> Self {
        Self { id, modes: &[Mode::Run], run }
    }

    pub(in crate::attacks) const fn attach(
        id: &'static str,
        run: fn(&Stage<'_>, Who) -> Result<Outcome>,
    ) -> Self {
        Self { id, modes: &[Mode::Attach], run }
    }
}

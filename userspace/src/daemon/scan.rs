//! Following what comes and goes: groups that match an `[[agent]]`, groups that are gone, and
//! network namespaces.
//!
//! New folders in the hierarchy wake it (inotify(7)); namespaces make no noise, so they are
//! looked for several times a second.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::attach::{Wanted, is_frozen};
use super::definition::Source;
use super::error::DaemonError;
use super::governor::{Governed, Governor, Now, note};
use super::records::Stage;
use crate::identify::CgroupId;
use crate::intercept::wire::NoteKind;
use crate::outcome::Reason;
use crate::redirect::target::find;

/// There when systemd is pid 1: sd_booted(3).
const BOOTED_BY_SYSTEMD: &str = "/run/systemd/system";

/// How often namespaces are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How often groups are looked for though no folder was made.
const RESCAN: Duration = Duration::from_secs(2);

/// Scans until `ends`.
pub(super) fn run(governor: &Arc<Governor>, ends: &AtomicBool) {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
    if watch.is_none() {
        tracing::warn!("no inotify: new groups are found within two seconds only");
    }
    let mut last = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        if let Some(watch) = &watch {
            watch_all(watch, governor.hierarchy.root());
        }
        let woken = watch.as_ref().is_some_and(wait);
        if watch.is_none() {
            std::thread::sleep(LOOK);
        }
        if woken || last.elapsed() > RESCAN {
            governor.scan();
            last = Instant::now();
        } else {
            governor.follow_namespaces(&mut governor.lock());
        }
    }
}

/// Waits for a new folder; false when there was none for a while.
fn wait(watch: &Inotify) -> bool {
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    let woken = poll(&mut fds, timeout).is_ok_and(|n| n > 0);
    while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
    woken
}

/// Watching a folder twice is watching it once.
fn watch_all(watch: &Inotify, folder: &Path) {
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
    if watch.add_watch(folder, flags).is_err() {
        return; // gone, or too many: the next look finds what matters
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            watch_all(watch, &entry.path());
        }
    }
}

impl Governor {
    /// Forgets agents whose group is gone, attaches groups that match, guards what is to come.
    pub(super) fn scan(&self) {
        self.supervisor.write_kept();
        let mut now = self.lock();
        self.forget_ended_runs(&mut now);
        self.forget_gone(&mut now);
        self.forget_gone_orphans(&mut now);
        self.attach_again(&mut now);
        self.raise_guards(&mut now);
        self.attach_matches(&mut now);
        self.follow_namespaces(&mut now);
    }

    /// A run that outlived its daemon has no other to clear up after it.
    fn forget_ended_runs(&self, now: &mut Now) {
        let ended = |g: &Governed| {
            g.private && g.definition.is_none() && g.cgroup.populated().is_ok_and(|p| !p)
        };
        let names: Vec<String> =
            now.agents.iter().filter(|(_, g)| ended(g)).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.end_run(now, &name);
        }
    }

    fn forget_gone(&self, now: &mut Now) {
        let gone: Vec<(String, PathBuf, CgroupId)> = now
            .agents
            .iter()
            .filter(|(_, g)| self.is_gone(&g.path, g.cgroup.id().0))
            .map(|(name, g)| (name.clone(), g.path.clone(), g.cgroup.id()))
            .collect();
        for (name, path, id) in gone {
            // The links go with the group; what is pinned of them only takes the name.
            if let Err(error) = self.forget_pins(&name, id) {
                tracing::warn!(agent = name, %error, "its pins stay behind until the next look");
                continue;
            }
            let chain = now.places.chain(&name).iter().map(|n| n.to_string()).collect();
            let message = format!("the cgroup of {name} is gone");
            self.supervisor.note_or_keep(note(NoteKind::Admin, chain, message));
            if let Some(governed) = now.agents.get_mut(&name) {
                drop(governed.attachment.take());
            }
            self.strike(now, &name, &path);
            // The next group of this path is another one.
            now.released.remove(&path);
        }
        now.released.retain(|path| self.hierarchy.root().join(relative(path)).exists());
        now.failed.retain(|path, _| self.hierarchy.root().join(relative(path)).exists());
    }

    /// Tries again what could not be attached when the daemon started.
    fn attach_again(&self, now: &mut Now) {
        for name in self.normalise(now) {
            if let Some(governed) = now.agents.get_mut(&name) {
                governed.closed.stuck = None;
                let was_frozen = is_frozen(&governed.cgroup);
                self.finish(now, &name, Stage::Attaching { was_frozen });
            }
            if let Err(error) = self.publish(now, &[&name]) {
                tracing::error!(agent = name, %error, "it stays closed");
            }
        }
    }

    /// Whether a group is not there any more: certainly, and not only out of sight for a moment
    /// (no descriptor is free, for example).
    pub(super) fn is_gone(&self, path: &Path, id: u64) -> bool {
        match std::fs::metadata(self.hierarchy.root().join(relative(path))) {
            Ok(found) => found.ino() != id,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Parents whose every child is an agent: whatever appears there is closed from its first
    /// instruction until it is attached.
    fn raise_guards(&self, now: &mut Now) {
        let Some(config) = &now.config else { return };
        let wanted: BTreeSet<(String, PathBuf)> = config
            .agents
            .iter()
            .filter_map(|a| Some((a.name.clone(), a.target.guardable_parent()?)))
            .collect();
        for (name, path) in &wanted {
            let Ok(cgroup) = self.open_group(path) else { continue };
            if now.guards.contains_key(name) {
                continue;
            }
            match self.kernel.guard(&cgroup, name) {
                Ok(()) => drop(now.guards.insert(name.clone(), path.clone())),
                Err(error) => tracing::error!(agent = name, %error, "its parent is not guarded"),
            }
        }
        // Those of an earlier daemon too.
        let known = match self.kernel.guards() {
            Ok(guards) => guards,
            Err(error) => return tracing::error!(%error, "the guards cannot be listed"),
        };
        for guard in known {
            let path = now.guards.get(&guard.name);
            if wanted.iter().any(|(n, p)| *n == guard.name && path.is_none_or(|path| path == p)) {
                continue;
            }
            let message = format!("the guard of {} is lifted", guard.name);
            if self.announce(Vec::new(), NoteKind::Admin, message).is_err() {
                continue; // it is closed longer than it must be
            }
            match self.kernel.unguard(&guard.name) {
                Ok(()) => drop(now.guards.remove(&guard.name)),
                Err(error) => tracing::error!(agent = guard.name, %error, "a guard stays behind"),
            }
        }
    }

    fn attach_matches(&self, now: &mut Now) {
        let Some(config) = now.config.clone() else { return };
        for agent in &config.agents {
            self.make_slice(now, agent.target.slice_path());
            let found = find(&agent.target, &self.hierarchy);
            let Some(definition) = now.definitions.get(&agent.name).cloned() else { continue };
            for path in found {
                if now.places.at(&path).is_some() || now.released.contains(&path) {
                    continue;
                }
                let wanted = Wanted {
                    name: name_of(&agent.name, !agent.target.to_string().contains('*'), &path),
                    path: path.clone(),
                    source: Source::Config,
                    definition: Arc::clone(&definition),
                    config: Some(agent.name.clone()),
                };
                match self.attach(now, wanted) {
                    Ok(attached) => {
                        now.failed.remove(&path);
                        tracing::info!(agent = attached.name, cgroup = attached.cgroup, "attached");
                    }
                    Err(error) => self.say_once(now, &agent.name, path, &error),
                }
            }
        }
    }

    /// The group of a slice is there, and attached, before systemd starts the slice: it takes over
    /// what it finds. What systemd attaches by itself (`BPFProgram=`) comes off for as long as it
    /// reads its files.
    fn make_slice(&self, now: &Now, path: Option<PathBuf>) {
        let Some(path) = path.filter(|path| !now.released.contains(path)) else { return };
        let group = self.hierarchy.root().join(relative(&path));
        if group.exists() || !Path::new(BOOTED_BY_SYSTEMD).is_dir() {
            return;
        }
        if let Err(error) = std::fs::create_dir_all(&group) {
            tracing::warn!(%error, group = %group.display(), "attached only when systemd makes it");
        }
    }

    fn say_once(&self, now: &mut Now, name: &str, path: PathBuf, error: &DaemonError) {
        let why = format!("{} could not be attached: {error}", path.display());
        if now.failed.get(&path) != Some(&why) {
            self.refused(NoteKind::Admin, name, Reason::AttachRefused, &why);
            now.failed.insert(path, why);
        }
    }
}

/// One agent for an exact target; one for each match of a pattern, named after both.
fn name_of(agent: &str, exact: bool, path: &Path) -> String {
    match path.file_name() {
        Some(leaf) if !exact => format!("{agent}:{}", leaf.to_string_lossy()),
        _ => agent.to_owned(),
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

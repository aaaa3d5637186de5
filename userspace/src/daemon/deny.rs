//! `egret detach --deny` and `--undo`: an agent that is closed by an operator, and stays so.

use super::error::DaemonError;
use super::governor::{Governor, Now};
use super::records::Stage;
use super::restart::DENIED;
use crate::intercept::wire::NoteKind;
use crate::redirect::held::destroy_open;

impl Governor {
    /// Refuses an agent everything, and ends what it has open; it stays attached. Nothing of this
    /// waits for another part to succeed.
    pub(super) fn deny(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get_mut(name) else {
            return Err(DaemonError::NoAgent(name.to_owned()));
        };
        governed.closed.denied = true;
        let listed = governed.config.is_some();
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        // The kernel first: it needs nobody's answer.
        let closed = affected.iter().try_for_each(|n| self.publish_to_kernel(now, n));
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        let said = self.announce(chain, NoteKind::Admin, format!("close {name}: {DENIED}"));
        let told = self.publish(now, &affected);
        let ended = match now.agents.get(name) {
            Some(governed) => destroy_open(&governed.cgroup).map_err(DaemonError::from),
            None => Ok(0),
        };
        let kept = self
            .write_record(now, name, Stage::Attached)
            .and_then(|()| if listed { self.set_denied(now, name, true) } else { Ok(()) });
        closed.and(said).and(told).and(ended.map(drop)).and(kept)
    }

    /// Remembers or forgets that a match of egret.toml is to be closed, also as another group.
    pub(super) fn set_denied(
        &self,
        now: &mut Now,
        name: &str,
        denied: bool,
    ) -> Result<(), DaemonError> {
        let changed = match denied {
            true => now.denied.insert(name.to_owned()),
            false => now.denied.remove(name),
        };
        if !changed {
            return Ok(());
        }
        self.records.write_denied(&now.denied).map_err(DaemonError::at(&self.run.join("attached")))
    }

    /// Takes a [`Self::deny`] back.
    ///
    /// # Errors
    /// It stays closed then.
    pub(super) fn reopen(&self, now: &mut Now, name: &str) -> Result<(), DaemonError> {
        let Some(governed) = now.agents.get(name) else {
            if !now.denied.contains(name) {
                return Err(DaemonError::NoAgent(name.to_owned()));
            }
            let message = format!("open {name} again, where it comes again");
            self.announce(vec![name.to_owned()], NoteKind::Admin, message)?;
            return self.set_denied(now, name, false);
        };
        if !governed.closed.denied {
            let why = now.why_closed(name).unwrap_or_else(|| "it is not closed".to_owned());
            return Err(DaemonError::StaysClosed { name: name.to_owned(), why });
        }
        let chain = now.places.chain(name).iter().map(|n| n.to_string()).collect();
        self.announce(chain, NoteKind::Admin, format!("open {name} again"))?;
        let set = |now: &mut Now, denied: bool| {
            if let Some(governed) = now.agents.get_mut(name) {
                governed.closed.denied = denied;
            }
        };
        set(now, false);
        let affected = now.affected(name);
        let affected: Vec<&str> = affected.iter().map(String::as_str).collect();
        let opened = self
            .write_record(now, name, Stage::Attached)
            .and_then(|()| self.set_denied(now, name, false))
            .and_then(|()| self.publish(now, &affected));
        if opened.is_err() {
            set(now, true);
            if now.agents.get(name).is_some_and(|g| g.config.is_some()) {
                let _ = self.set_denied(now, name, true);
            }
            let _ = affected.iter().try_for_each(|n| self.publish_to_kernel(now, n));
            let _ = self.publish(now, &affected);
            let _ = self.write_record(now, name, Stage::Attached);
        }
        opened
    }
}

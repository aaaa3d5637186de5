//! Beside the flow: drain as a value. One `Trigger` starts it, every task holds a `Watcher`.

use tokio::sync::watch;

/// Starts the drain when [`Trigger::drain`] is called or when dropped.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Held by every task that must end when the drain starts.
#[derive(Clone, Debug)]
pub struct Watcher(watch::Receiver<bool>);

/// A connected pair.
pub fn channel() -> (Trigger, Watcher) {
    let (tx, rx) = watch::channel(false);
    (Trigger(tx), Watcher(rx))
}

impl Trigger {
    pub fn drain(&self) {
        self.0.send_replace(true);
    }
}

impl Watcher {
    /// Completes when the drain has started (or its trigger is gone).
    pub async fn draining(&mut self) {
        // An error means that the trigger was dropped, which is a drain too.
        let _ = self.0.wait_for(|on| *on).await;
    }

    pub fn is_draining(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

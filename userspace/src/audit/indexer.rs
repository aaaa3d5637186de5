//! Keeps the store near the journals while a writer runs: one thread that wakes on a timer, never
//! for a record. Short sessions end before its first turn and leave the work to the next search, and
//! so does a session that writes records faster than the thread may take them: a record costs more
//! to index than a request costs to pass on, and requests come first.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::layout::Layout;
use super::store::Store;

/// Between two rounds, and before the first.
const EVERY: Duration = Duration::from_secs(2);

/// The time of a round; the batch that is at hand then is its last. One core spends a fortieth of
/// its time here at most, and some 1000 records a second are taken.
const ROUND: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Indexer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Without a thread there is no copy to search in, which costs time and nothing else.
    pub(super) fn start(layout: Layout) -> Self {
        let (stop, stopped) = channel();
        let builder = std::thread::Builder::new().name("audit-store".to_owned());
        let thread = builder.spawn(move || run(&layout, &stopped)).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends after the batch at hand; if it panicked there is nothing to save.
            let _ = thread.join();
        }
    }
}

fn run(layout: &Layout, stopped: &Receiver<()>) {
    let mut store = None;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
        if store.is_none() {
            // `None` again when another process has it: it takes our records too.
            store = Store::open(layout).unwrap_or_else(|e| {
                tracing::warn!("the audit store cannot be used: {e}");
                None
            });
        }
        let Some(open) = &store else { continue };
        let began = Instant::now();
        let stop =
            || began.elapsed() > ROUND || stopped.try_recv() == Err(TryRecvError::Disconnected);
        if let Err(e) = open.catch_up(stop) {
            tracing::warn!("the audit store fell behind: {e}");
            store = None;
        }
    }
}

//! The way an exchange has to the agent, cut from the outside: an HTTP/1 connection, or one stream
//! of an HTTP/2 connection. What runs it is dropped at once, whatever either side waits for.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Notify;

/// Attached to each request. Cutting it twice is cutting it once.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Notify>);

impl Line {
    /// Ends the exchange. The agent sees that its answer is not whole.
    pub fn cut(&self) {
        self.0.notify_one(); // remembered, if nobody waits yet
    }

    /// Waits for the cut. For the one who runs the exchange.
    pub async fn is_cut(&self) {
        self.0.notified().await;
    }
}

tokio::task_local! {
    static STREAM: Line;
}

/// Runs each stream of an HTTP/2 connection on a line of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl Streams {
    /// The line of the stream that asks.
    pub(super) fn line() -> Line {
        STREAM.try_with(Line::clone).unwrap_or_default()
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let line = Line::default();
        let until_cut = {
            let line = line.clone();
            async move {
                tokio::select! {
                    biased;
                    () = line.is_cut() => {}
                    () = stream => {}
                }
            }
        };
        tokio::spawn(STREAM.scope(line, until_cut));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Executor as _;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_runs_a_stream_is_dropped_when_its_line_is_cut_and_no_other() {
        let run = || {
            let (tell, told) = oneshot::channel();
            let (held, dropped) = oneshot::channel::<()>();
            Streams.execute(async move {
                let _ = tell.send(Streams::line());
                let _held = held;
                std::future::pending::<()>().await;
            });
            (told, dropped)
        };
        let ((line, dropped), (other, mut not_dropped)) = (run(), run());
        let (line, _other) = (line.await.unwrap(), other.await.unwrap());
        line.cut();
        assert!(dropped.await.is_err());
        assert!(matches!(not_dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
    }

    #[tokio::test]
    async fn a_cut_is_remembered() {
        let line = Line::default();
        line.cut();
        line.is_cut().await;
    }
}

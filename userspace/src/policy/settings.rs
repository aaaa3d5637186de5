//! Pure: the bounds that a policy sets on connections, as `[http]` writes them. What is absent has the interceptor's own default.

use std::time::Duration;

/// `[http]`: how much an agent may ask of one connection, and for how long it may be silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// Bytes of one head.
    pub head: Option<usize>,
    /// Fields of one head.
    pub headers: Option<usize>,
    /// From the first byte of a connection, or the end of the last request, to a whole head.
    pub head_timeout: Option<Duration>,
    /// For silence inside a request's body.
    pub body_timeout: Option<Duration>,
    /// Bytes per second that a request's body has at least, on average over `body_timeout`.
    pub body_rate: Option<u64>,
    /// For the agent to read any of what was written to it.
    pub read_timeout: Option<Duration>,
    /// Requests at one time on one HTTP/2 connection.
    pub streams: Option<u32>,
    /// Streams of one HTTP/2 connection that may be reset before they were looked at.
    pub resets: Option<usize>,
    /// For an HTTP/2 connection without a request.
    pub idle_timeout: Option<Duration>,
}

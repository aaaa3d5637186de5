//! Whole connections through the interceptor: the agent's side in memory, the upstreams on
//! loopback. Every refusal stands beside a control that passes, and what reached the upstream is
//! asserted at the upstream.
#![expect(unreachable_pub, reason = "the modules of a test are its own crate")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "connection/cases.rs"]
mod cases;
#[path = "connection/causes.rs"]
mod causes;
#[path = "connection/credentials.rs"]
mod credentials;
#[path = "connection/dialling.rs"]
mod dialling;
#[path = "connection/frames.rs"]
mod frames;
#[path = "connection/http.rs"]
mod http_requests;
#[path = "connection/once.rs"]
mod once;
#[path = "connection/opaque.rs"]
mod opaque;
#[path = "connection/origin.rs"]
mod origin;
#[path = "connection/peers.rs"]
mod peers;
#[path = "connection/protocols.rs"]
mod protocols;
#[path = "connection/raw.rs"]
mod raw;
#[path = "connection/replaced.rs"]
mod replaced;
#[path = "connection/replaced_edges.rs"]
mod replaced_edges;
#[path = "connection/reuse.rs"]
mod reuse;
#[path = "connection/semantics.rs"]
mod semantics;
#[path = "connection/slow.rs"]
mod slow;
#[path = "connection/streaming.rs"]
mod streaming;
#[path = "connection/strict.rs"]
mod strict;
#[path = "connection/talk.rs"]
mod talk;
#[path = "connection/tls.rs"]
mod tls;
#[path = "connection/upstream.rs"]
mod upstream;
#[path = "connection/websocket.rs"]
mod websocket;
#[path = "connection/world.rs"]
mod world;

//! Stage 6: add what the agent must not hold. Strip what the agent attached, attach the
//! credential, swap placeholders; on the way back, scrub.
//!
//! [`CredentialSet::activate`] obtains every secret of a policy when an agent starts;
//! [`HandedOver`] is how they reach the process that attaches them, if that is another one.
//! [`prepare`] works on the head of one request and returns an [`Injection`], which wraps the
//! request's body and hands out the [`Scrubber`] for the answer.
//!
//! A placeholder is worthless outside egret, so one that is sent to its own bound host by a rule
//! that does not grant the credential goes out as it is. One that is on its way to any other host
//! is a canary: the request is refused.

mod coding;
mod credential;
mod error;
mod forms;
mod hand_over;
mod patterns;
pub mod placeholder;
mod prepare;
mod query;
mod range;
mod scrub;
mod scrub_body;
mod scrub_io;
mod swap;
mod swap_body;

pub use credential::{Credential, CredentialSet};
pub use error::{BoxError, InjectError};
pub use hand_over::HandedOver;
pub use prepare::{Injection, prepare};
pub use scrub::{ScrubStream, Scrubber};
pub use scrub_body::{ScrubBody, ScrubReport};
pub use scrub_io::ScrubIo;
pub use swap_body::RequestBody;

#[cfg(test)]
mod tests;

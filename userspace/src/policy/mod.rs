//! Stage 3: may it. Pure: no tokio, sockets, files, clock, aya or sled anywhere in this folder.
//!
//! [`parse`] turns a file's text into a checked [`Policy`] or every error at once; [`decide`]
//! turns policies and facts into a [`Verdict`]; [`explain`] says why.

mod decide;
mod facts;
mod host;
mod matcher;
mod path;
mod rule;
mod standing;

pub use decide::{Denial, Permit, Verdict, decide};
pub use facts::{Facts, Host, HostName, HostNameError, Layer, Protocol, RequestFacts};
pub use matcher::{HostPattern, MethodSet, PatternError, parse_cidr};
pub use path::{PathPattern, ambiguity};
pub use rule::{
    Action, CredentialKind, CredentialSpec, Limits, Mode, OnCanary, Places, Policy, ResolveTo,
    Rule, UnmatchedNames, UpstreamSettings,
};

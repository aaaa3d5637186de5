//! Stage 3: may it. Pure: no tokio, sockets, files, clock, aya or sled anywhere in this folder.
//!
//! [`parse`] turns a file's text into a checked [`Policy`] or every error at once; [`decide`]
//! turns policies and facts into a [`Verdict`]; [`explain`] says why.

mod cases;
mod decide;
mod explain;
mod facts;
mod host;
mod matcher;
pub mod parse;
mod path;
mod rule;
mod settings;
mod standing;
mod target;

pub use cases::{CaseError, CaseResult, CaseTable};
pub use decide::{Denial, Permit, Verdict, decide};
pub use explain::{Considered, Explanation, explain};
pub use facts::{Facts, Host, HostName, HostNameError, Layer, Protocol, RequestFacts};
pub use matcher::{HostPattern, MethodSet, PatternError, parse_cidr};
pub use path::{PathPattern, ambiguity};
pub use rule::{
    Action, CredentialKind, CredentialSpec, Limits, Local, Mode, OnCanary, Places, Policy,
    ResolveTo, Rule, UnmatchedNames, UpstreamSettings, UpstreamTimes,
};
pub use settings::HttpSettings;
pub use target::{Target, TargetError};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

//! An agent as its operator defined it: a policy, its secrets, and where both come from, so that
//! a reload or a restart can obtain them again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{PolicyArgs, PolicyBundle};
use crate::inject::CredentialSet;
use crate::intercept::wire::LinkOrder;
use crate::policy::Policy;
use crate::secrets::Operator;

/// Where a definition comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Source {
    /// An `[[agent]]` of egret.toml.
    Config,
    /// `egret attach`: read again at each reload.
    Attach(PolicyArgs),
    /// `egret run`: the user's own; nobody can read it again.
    Run,
}

impl Source {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Attach(_) => "attach",
            Self::Run => "run",
        }
    }
}

/// A policy with its secrets.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) bundle: PolicyBundle,
    pub(super) policy: Arc<Policy>,
    pub(super) credentials: Arc<CredentialSet>,
}

impl Definition {
    /// Parses a policy and obtains its secrets, all or an error that names each. Placeholders that
    /// agents already hold are kept.
    pub(super) fn new(
        bundle: PolicyBundle,
        keep: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let policy = bundle.load().map_err(|e| e.to_string())?.policy;
        let operator = Operator::current();
        let credentials = CredentialSet::activate_keeping(&policy, &operator, keep)
            .map_err(|errors| join(errors.iter().map(ToString::to_string)))?;
        Ok(Self { bundle, policy: Arc::new(policy), credentials: Arc::new(credentials) })
    }

    /// What the flags of `egret attach` name, as it is now.
    pub(super) fn of_args(
        args: &PolicyArgs,
        keep: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        Self::new(args.bundle().map_err(|e| e.to_string())?, keep)
    }

    /// The placeholders that agents may hold, by credential.
    pub(super) fn placeholders(&self) -> BTreeMap<String, String> {
        let pair = |c: &Arc<crate::inject::Credential>| {
            (c.spec.name.to_string(), c.placeholder.to_string())
        };
        self.credentials.all().iter().map(pair).collect()
    }

    /// One level of a chain, for the interceptor.
    pub(super) fn link(&self, name: &str) -> LinkOrder {
        LinkOrder {
            name: name.to_owned(),
            policy: self.bundle.clone(),
            credentials: self.credentials.hand_over(),
        }
    }
}

/// One error a line.
pub(super) fn join(errors: impl Iterator<Item = String>) -> String {
    errors.collect::<Vec<_>>().join("\n")
}

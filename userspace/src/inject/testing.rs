//! Helpers of this folder's tests: credentials without a policy file.

use std::sync::Arc;

use super::{Credential, CredentialSet};
use crate::policy::{CredentialKind, CredentialSpec, Host, HostName, OnCanary};
use crate::secrets::{Secret, SecretRef};

pub(super) fn host(name: &str) -> Host {
    Host::Name(HostName::parse(name).unwrap())
}

pub(super) fn spec(name: &str, kind: CredentialKind, hosts: &[&str]) -> CredentialSpec {
    CredentialSpec {
        name: name.into(),
        secret: SecretRef::Env("TOKEN".into()),
        hosts: hosts.iter().map(|h| (*h).into()).collect(),
        kind,
        env: None,
        shape: None,
        on_canary: OnCanary::Deny,
    }
}

/// A set of credentials that are all bound to `api.test`: (name, kind, secret).
pub(super) fn set(credentials: &[(&str, CredentialKind, &str)]) -> CredentialSet {
    let all = credentials.iter().map(|(name, kind, secret)| {
        let secret = Secret::new(secret.as_bytes().to_vec());
        let spec = Arc::new(spec(name, kind.clone(), &["api.test"]));
        Arc::new(Credential::new(spec, secret, &[]).unwrap())
    });
    CredentialSet::of(all.collect())
}

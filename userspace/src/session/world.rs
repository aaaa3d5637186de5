//! What the agent finds: its environment, the certificates it trusts, what is covered.

use std::ffi::OsString;
use std::os::fd::AsFd as _;

use super::enclosure::Enclosure;
use super::{Options, Prepared, SessionError};
use crate::contain::user::Target;
use crate::contain::{Plan, Spec, TrustFiles, env, trust};
use crate::dns::resolv_conf;
use crate::inject::CredentialSet;

/// Everything that starts the command.
pub(super) fn spec<'a>(
    options: &Options,
    prepared: &Prepared,
    enclosure: &'a Enclosure,
    trust: TrustFiles,
) -> Result<Spec<'a>, SessionError> {
    let cwd = std::env::current_dir()
        .map_err(|source| SessionError::Io { doing: "find the working folder", source })?;
    let mut plan = Plan::new(options.command.clone(), prepared.user.clone());
    plan.cwd = cwd.into_os_string();
    let sets = prepared.credentials();
    let sets: Vec<&CredentialSet> = sets.iter().map(|set| &**set).collect();
    plan.env = environment(&prepared.user, &sets);
    plan.trust = trust;
    plan.resolv_conf = Some(resolv_conf());
    plan.covered.push(options.state.clone());
    // Another session may keep its log where the default is.
    plan.covered.push(crate::config::DEFAULT_STATE.into());
    for credentials in prepared.credentials() {
        plan.covered.extend_from_slice(credentials.hidden_files());
    }
    plan.unix_sockets = options.policy.local.unix.clone();
    plan.keep_privileges = options.keep_privileges;
    plan.allow_io_uring = options.allow_io_uring;
    plan.die_with_parent = options.die_with_parent;
    Ok(Spec {
        plan,
        cgroup: enclosure.cgroup.as_fd(),
        netns: enclosure.netns.as_fd(),
        launcher: None,
    })
}

/// The operator's environment without what is secret, with what stands for it.
pub(super) fn environment(user: &Target, sets: &[&CredentialSet]) -> Vec<(OsString, OsString)> {
    let consumed: Vec<String> = sets.iter().flat_map(|c| c.consumed_env()).collect();
    let names: Vec<&str> = consumed.iter().map(String::as_str).collect();
    let values: Vec<&[u8]> = sets.iter().flat_map(|c| c.all()).map(|c| c.secret.expose()).collect();
    let java = std::env::var("JAVA_TOOL_OPTIONS").ok();
    let own = |(name, value): (String, String)| (OsString::from(name), OsString::from(value));
    let set = user
        .variables()
        .into_iter()
        .chain(trust::variables(java.as_deref()))
        .chain(sets.iter().flat_map(|c| c.agent_env()).map(own));
    env::build(std::env::vars_os(), &names, &values, set)
}

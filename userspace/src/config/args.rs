//! The flags with which every command names a policy.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::bundle::PolicyBundle;
use super::gather::gather;
use super::load::{LoadError, Loaded};

/// A policy file, shorthands, or both: shorthands are added to the file's rules.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
pub struct PolicyArgs {
    /// The policy file.
    #[arg(long, help_heading = "Policy", value_name = "FILE", env = "EGRET_POLICY")]
    pub policy: Option<PathBuf>,
    /// Allow this as well: '[METHODS ][SCHEME://]HOST[:PORT][/PATH]'.
    #[arg(long, help_heading = "Policy", value_name = "WHAT")]
    pub allow: Vec<String>,
    /// Attach a bearer token to https requests to HOST: HOST=SECRET-REF, where SECRET-REF is
    /// env:NAME, file:PATH or exec:COMMAND.
    #[arg(long, help_heading = "Policy", value_name = "HOST=SECRET-REF")]
    pub bearer: Vec<String>,
    /// Dial NAME at this address: NAME=ADDR[:PORT].
    #[arg(long, help_heading = "Policy", value_name = "NAME=ADDR[:PORT]")]
    pub resolve: Vec<String>,
    /// Trust the certificates in this PEM file for upstreams, besides the system's.
    #[arg(long, help_heading = "Policy", value_name = "FILE")]
    pub upstream_ca: Vec<PathBuf>,
    /// Let pass what no deny rule forbids, and record what would have been refused.
    #[arg(long, help_heading = "Policy")]
    pub audit_mode: bool,
}

impl PolicyArgs {
    /// The policy that these flags name, as written: for a process that may not read the files.
    /// What this answers loads without an error.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn bundle(&self) -> Result<PolicyBundle, LoadError> {
        let bundle = gather(self);
        bundle.load().map(|_| bundle)
    }

    /// The same, for a process with another working folder: every path is absolute.
    ///
    /// # Errors
    /// When the working folder is not known.
    pub fn absolute(&self) -> io::Result<Self> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        let bearer = self.bearer.iter().map(|text| absolute_reference(text));
        Ok(Self {
            policy: self.policy.as_ref().map(absolute).transpose()?,
            bearer: bearer.collect::<io::Result<_>>()?,
            upstream_ca: self.upstream_ca.iter().map(absolute).collect::<io::Result<_>>()?,
            ..self.clone()
        })
    }

    /// The policy that these flags name.
    ///
    /// # Errors
    /// When neither a file nor an `--allow` is given, and for everything that is wrong with them.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        gather(self).load()
    }
}

/// `HOST=file:PATH` with an absolute path; any other reference as it is.
fn absolute_reference(text: &str) -> io::Result<String> {
    match text.split_once("=file:") {
        Some((host, path)) => {
            let path = std::path::absolute(Path::new(path))?;
            Ok(format!("{host}=file:{}", path.display()))
        }
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::explain;

    fn args(allow: &[&str], bearer: &[&str]) -> PolicyArgs {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        PolicyArgs { allow: own(allow), bearer: own(bearer), ..PolicyArgs::default() }
    }

    #[test]
    fn shorthands_make_a_policy() {
        let loaded = args(&["GET x.test/a"], &["x.test=env:TOKEN"]).load().unwrap();
        let ask = |m, u| explain(&[&loaded.policy], Some(m), u).unwrap();
        let allowed = ask("GET", "https://x.test/a");
        assert_eq!(allowed.credentials.len(), 1);
        assert_eq!(allowed.decision, crate::outcome::Decision::Allow);
        assert_eq!(ask("POST", "https://x.test/a").decision, crate::outcome::Decision::Deny);
    }

    #[test]
    fn nothing_is_an_error_that_shows_how() {
        for none in [PolicyArgs::default(), args(&[], &["x.test=env:A"])] {
            let e = none.load().unwrap_err();
            assert!(e.to_string().contains("--policy") && e.to_string().contains("--allow"), "{e}");
        }
        assert_eq!(
            PolicyArgs { audit_mode: true, ..PolicyArgs::default() }.load().unwrap_err(),
            LoadError::NoPolicy
        );
    }

    #[test]
    fn all_flags_are_checked_at_once() {
        let mut bad = args(&["x.test:22", "*"], &["x.test=ghp_canary"]);
        bad.resolve = vec!["nope".into()];
        bad.upstream_ca = vec!["/nonexistent.pem".into()];
        bad.policy = Some("/nonexistent.toml".into());
        let e = bad.load().unwrap_err();
        assert_eq!(e.diagnostics().len(), 6, "{e}");
        assert!(!e.to_string().contains("canary"), "{e}");
    }
}

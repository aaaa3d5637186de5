//! Pure: a policy as written, with everything it needs to be read elsewhere: the texts of all its
//! files, as the file system gave them, and the shorthands. What one process may read, another can
//! so check and enforce without opening a file.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::load::{LoadError, Loaded};
use super::shorthand::{add_allow, add_bearer, parse_allow, parse_bearer, parse_resolve};
use crate::audit::chain::Hash;
use crate::policy::parse::{Diagnostic, Loader, UsedFile, parse};
use crate::policy::{Mode, Policy};

/// Larger than any policy; keeps a mistake such as `--policy /dev/zero` from filling memory.
pub(super) const LARGEST_FILE: usize = 1 << 20;
pub(super) const TOO_LARGE: &str = "is larger than 1 MiB, which no policy is";

/// A policy as written. One that [`super::PolicyArgs::bundle`] made loads without an error; one
/// that came from elsewhere is checked by [`Self::load`] like any file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyBundle {
    pub(super) policy: Option<MainFile>,
    /// What the policy uses, in the order in which the parser asked.
    pub(super) used: Vec<Used>,
    /// The CA files of the policy, by the path that it names.
    pub(super) ca: BTreeMap<String, Answer<String>>,
    pub(super) allow: Vec<String>,
    pub(super) bearer: Vec<String>,
    pub(super) resolve: Vec<String>,
    pub(super) upstream_ca: Vec<ExtraCa>,
    pub(super) audit_mode: bool,
}

/// What the file system answered: a reason, as one clause, counts like a text, so that whoever
/// loads the bundle says the same as whoever read the files.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer<T> {
    Is(T),
    Failed(String),
}

/// The policy file itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MainFile {
    /// How errors name it.
    pub(super) file: String,
    pub(super) text: Answer<String>,
    pub(super) anyone_may_write: bool,
}

/// A file that another one uses: the question and the answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    pub(super) from: String,
    pub(super) name: String,
    pub(super) answer: Answer<UsedFile>,
}

/// A file of `--upstream-ca`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtraCa {
    pub(super) file: String,
    pub(super) text: Answer<String>,
}

impl PolicyBundle {
    /// The policy file, as errors name it; `None` if the policy is shorthands alone.
    pub fn file(&self) -> Option<&str> {
        self.policy.as_ref().map(|main| main.file.as_str())
    }

    /// Why the policy file itself could not be read.
    pub(super) fn unreadable(&self) -> Option<&str> {
        match &self.policy.as_ref()?.text {
            Answer::Failed(why) => Some(why),
            Answer::Is(_) => None,
        }
    }

    /// Parses, checks and completes the policy.
    ///
    /// # Errors
    /// When neither a file nor an `--allow` is there, and for everything that is wrong with them.
    pub fn load(&self) -> Result<Loaded, LoadError> {
        if self.policy.is_none() && self.allow.is_empty() {
            return Err(LoadError::NoPolicy);
        }
        let mut errors = Vec::new();
        let deny_all = |name| Loaded { policy: Policy::deny_all(name), lints: Vec::new() };
        let mut loaded = match self.policy.as_ref().map(|main| self.load_file(main)) {
            None => deny_all("command line"),
            Some(Ok(loaded)) => loaded,
            Some(Err(found)) => {
                errors = found;
                deny_all("invalid")
            }
        };
        self.add_shorthands(&mut loaded.policy, &mut errors);
        if errors.is_empty() { Ok(loaded) } else { Err(LoadError::Invalid(errors)) }
    }

    fn load_file(&self, main: &MainFile) -> Result<Loaded, Vec<Diagnostic>> {
        let text = main.text.text().map_err(|why| vec![Diagnostic::about(&main.file, why)])?;
        let answers = self.used.iter().map(|u| ((&*u.from, &*u.name), &u.answer)).collect();
        let mut parsed = parse(&main.file, text, &Answers(answers))?;
        let mut errors = Vec::new();
        for ca in &parsed.ca {
            let pem = self.ca.get(&ca.path).map_or_else(|| Err(ABSENT.into()), certificates);
            match pem {
                Ok(pem) => parsed.policy.upstream.ca.push(pem),
                Err(why) => errors.push(ca.at.say(format!("`{}`: {why}", ca.path))),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        if main.anyone_may_write {
            parsed.lints.push(Diagnostic::about(&main.file, ANYONE_MAY_WRITE));
        }
        Ok(Loaded { policy: parsed.policy, lints: parsed.lints })
    }

    fn add_shorthands(&self, policy: &mut Policy, errors: &mut Vec<Diagnostic>) {
        let file_is_good = errors.is_empty();
        let mut check = |flag: &str, result: Result<(), String>| {
            if let Err(why) = result {
                errors.push(Diagnostic::about(flag, why));
            }
        };
        let mut allows_are_good = true;
        for text in &self.allow {
            let added = parse_allow(text).map(|rule| add_allow(policy, rule));
            allows_are_good &= added.is_ok();
            check(&format!("--allow '{}'", text.escape_debug()), added);
        }
        for text in &self.bearer {
            let added = parse_bearer(text).and_then(|c| match add_bearer(policy, c) {
                // Without all rules at hand, a missing one says nothing.
                Err(_) if !(file_is_good && allows_are_good) => Ok(()),
                other => other,
            });
            check("--bearer", added);
        }
        for text in &self.resolve {
            let added = parse_resolve(text).map(|(name, to)| {
                policy.upstream.resolve.insert(name, to);
            });
            check(&format!("--resolve '{}'", text.escape_debug()), added);
        }
        for ca in &self.upstream_ca {
            let added = certificates(&ca.text).map(|pem| policy.upstream.ca.push(pem));
            check(&format!("--upstream-ca {}", ca.file), added);
        }
        if self.audit_mode {
            policy.mode = Mode::Audit;
        }
    }

    /// SHA-256 of all that the policy is made of, the names of its files included: two bundles
    /// with the same digest are the same policy. Does not depend on how bundles are serialized.
    pub fn digest(&self) -> Hash {
        let mut canon = Canon(Sha256::new_with_prefix(b"egret policy bundle 1\0"));
        canon.count(usize::from(self.policy.is_some()));
        if let Some(main) = &self.policy {
            canon.text(&main.file);
            canon.answer(&main.text, |canon, text| canon.text(text));
        }
        canon.count(self.used.len());
        for used in &self.used {
            canon.text(&used.from);
            canon.text(&used.name);
            canon.answer(&used.answer, |canon, used| {
                let UsedFile { id, file, prefix, text } = used;
                [id, file, prefix, text].into_iter().for_each(|part| canon.text(part));
            });
        }
        canon.count(self.ca.len());
        for (path, pem) in &self.ca {
            canon.text(path);
            canon.answer(pem, |canon, text| canon.text(text));
        }
        for flags in [&self.allow, &self.bearer, &self.resolve] {
            canon.count(flags.len());
            flags.iter().for_each(|text| canon.text(text));
        }
        canon.count(self.upstream_ca.len());
        for ca in &self.upstream_ca {
            canon.text(&ca.file);
            canon.answer(&ca.text, |canon, text| canon.text(text));
        }
        canon.count(usize::from(self.audit_mode));
        Hash(canon.0.finalize().into())
    }
}

/// What is said of a file that agents could change under the daemon.
pub(super) const ANYONE_MAY_WRITE: &str = "anyone may write this file, agents included";

const ABSENT: &str = "is not part of the bundle";

impl Answer<String> {
    fn text(&self) -> Result<&str, String> {
        match self {
            // A bundle from elsewhere keeps to the bounds of files.
            Self::Is(text) if text.len() > LARGEST_FILE => Err(TOO_LARGE.into()),
            Self::Is(text) => Ok(text),
            Self::Failed(why) => Err(why.clone()),
        }
    }
}

/// PEM text that holds certificates.
fn certificates(answer: &Answer<String>) -> Result<Arc<str>, String> {
    let text = answer.text()?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        certificate.map_err(|e| format!("is not valid PEM: {e}"))?;
        count += 1;
    }
    if count == 0 { Err("holds no certificate in PEM".into()) } else { Ok(text.into()) }
}

/// Answers the parser as the file system did. An index, so that a bundle of many files from
/// elsewhere does not take the square of the time.
struct Answers<'b>(HashMap<(&'b str, &'b str), &'b Answer<UsedFile>>);

impl Loader for Answers<'_> {
    fn load(&self, from: &str, name: &str) -> Result<UsedFile, String> {
        match self.0.get(&(from, name)) {
            Some(Answer::Is(used)) if used.text.len() > LARGEST_FILE => {
                Err(format!("`{name}` {TOO_LARGE}"))
            }
            Some(Answer::Is(used)) => Ok(used.clone()),
            Some(Answer::Failed(why)) => Err(why.clone()),
            None => Err(format!("`{name}` {ABSENT}")),
        }
    }
}

/// Every part with its length before it, so that no two bundles give the same bytes.
struct Canon(Sha256);

impl Canon {
    fn count(&mut self, n: usize) {
        self.0.update((n as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.update(text);
    }

    fn answer<T>(&mut self, answer: &Answer<T>, is: impl FnOnce(&mut Self, &T)) {
        match answer {
            Answer::Is(value) => {
                self.count(0);
                is(self, value);
            }
            Answer::Failed(why) => {
                self.count(1);
                self.text(why);
            }
        }
    }
}

/// Not the texts: a bundle that was not checked yet may hold a secret that somebody pasted.
impl fmt::Debug for PolicyBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyBundle")
            .field("file", &self.file())
            .field("used", &self.used.len())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

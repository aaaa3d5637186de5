//! The credentials of one policy, obtained and ready for use.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ::http::header::{self, HeaderName, HeaderValue};
use base64::Engine as _;
use bytes::Bytes;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::patterns::PatternSet;
use super::placeholder::{self, MakeError, Shape};
use super::query;
use super::scrub::Scrubber;
use crate::policy::{CredentialKind, CredentialSpec, Host, Places, Policy};
use crate::secrets::{self, Operator, Secret, SecretError, SecretProblem, SecretRef};

/// A credential ready for use: its specification, its secret, and what the agent sees instead.
#[derive(Clone, Debug)]
pub struct Credential {
    pub spec: Arc<CredentialSpec>,
    pub secret: Secret,
    /// Random, in the spec's shape; contains no part of the secret.
    pub placeholder: Arc<str>,
    pub(super) attach: Attach,
}

/// What attaching it to a request means, prepared once. Shares one copy of the secret among all
/// requests, wiped with the last of them.
#[derive(Clone)]
pub(super) enum Attach {
    Header { name: HeaderName, value: HeaderValue },
    Query { name: String, pair: Arc<Zeroizing<String>> },
    Swap(Places),
}

/// The activated credentials of one policy.
#[derive(Clone, Debug, Default)]
pub struct CredentialSet {
    all: Vec<Arc<Credential>>,
    /// The id of each pattern is its credential's index in `all`.
    pub(super) placeholders: Arc<PatternSet>,
    scrubber: Option<Arc<Scrubber>>,
    hidden: Vec<PathBuf>,
}

impl CredentialSet {
    /// Obtains every secret of `policy` and makes the placeholders: all of them, or every error.
    ///
    /// Blocking (files and commands); commands run side by side.
    pub fn activate(policy: &Policy, operator: &Operator) -> Result<Self, Vec<SecretError>> {
        let secrets = resolve_all(&policy.credentials, operator);
        let mut all: Vec<Arc<Credential>> = Vec::new();
        let mut errors = Vec::new();
        for (spec, secret) in policy.credentials.iter().zip(secrets) {
            let taken: Vec<&str> = all.iter().map(|c| &*c.placeholder).collect();
            match secret.and_then(|s| Credential::new(Arc::new(spec.clone()), s, &taken)) {
                Ok(credential) => all.push(Arc::new(credential)),
                Err(e) => errors.push(e),
            }
        }
        if errors.is_empty() { Ok(Self::of(all)) } else { Err(errors) }
    }

    /// The set of these credentials.
    pub(super) fn of(all: Vec<Arc<Credential>>) -> Self {
        let placeholders = all
            .iter()
            .enumerate()
            .map(|(i, c)| (i, Zeroizing::new(c.placeholder.as_bytes().to_vec())));
        let placeholders = PatternSet::new(placeholders)
            .expect("a few hundred bytes per credential are far below the automaton's limits");
        let scrubber = (!all.is_empty()).then(|| Arc::new(Scrubber::new(&all)));
        let hidden = hidden_files(&all);
        Self { all, placeholders: Arc::new(placeholders), scrubber, hidden }
    }

    /// Every credential, in the order of the policy.
    pub fn all(&self) -> &[Arc<Credential>] {
        &self.all
    }

    /// The credential called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Credential>> {
        self.all.iter().find(|c| &*c.spec.name == name)
    }

    /// The variables that the agent gets: (name, placeholder) of every credential with `env`.
    pub fn agent_env(&self) -> Vec<(String, String)> {
        let pair = |c: &Arc<Credential>| Some((c.spec.env.clone()?, c.placeholder.to_string()));
        self.all.iter().filter_map(pair).collect()
    }

    /// The variables that held secrets and must be removed from the agent's environment, before
    /// [`Self::agent_env`] is added.
    pub fn consumed_env(&self) -> Vec<String> {
        let name = |c: &Arc<Credential>| match &c.spec.secret {
            SecretRef::Env(name) => Some(name.clone()),
            SecretRef::File(_) | SecretRef::Exec(_) => None,
        };
        let mut names: Vec<String> = self.all.iter().filter_map(name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The files that hold secrets and must be covered where the agent could see them: as the
    /// policy names them, and where symbolic links lead.
    pub fn hidden_files(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// The scrubber for answers of `host`, if any credential is bound to it. It looks for every
    /// secret of the set, since an answer can repeat what an earlier request brought.
    pub fn scrubber_for(&self, host: &Host) -> Option<Arc<Scrubber>> {
        let bound = self.all.iter().any(|c| c.bound_to(host));
        self.scrubber.as_ref().filter(|_| bound).cloned()
    }
}

impl Credential {
    /// Checks the kind, makes the placeholder and prepares what is attached.
    pub(super) fn new(
        spec: Arc<CredentialSpec>,
        secret: Secret,
        taken: &[&str],
    ) -> Result<Self, SecretError> {
        let err = |problem| SecretError { credential: spec.name.clone(), problem };
        let attach = Attach::new(&spec.kind, &secret).map_err(|e| err(SecretProblem::Kind(e)))?;
        let placeholder = make_placeholder(&spec, &secret, taken).map_err(err)?;
        Ok(Self { spec, secret, placeholder: placeholder.into(), attach })
    }

    /// Whether `host` may ever receive this credential.
    pub fn bound_to(&self, host: &Host) -> bool {
        match host {
            Host::Name(name) => self.spec.bound_to(name),
            Host::Ip(_) => false,
        }
    }
}

impl Attach {
    fn new(kind: &CredentialKind, secret: &Secret) -> Result<Self, String> {
        match kind {
            CredentialKind::Bearer => {
                Self::header(header::AUTHORIZATION, &[b"Bearer ", secret.expose()])
            }
            CredentialKind::Basic { username } => {
                if username.contains(':') || username.chars().any(char::is_control) {
                    return Err("a username cannot contain `:` or control characters".into());
                }
                let pair = Zeroizing::new([username.as_bytes(), b":", secret.expose()].concat());
                let encoded = Zeroizing::new(base64::prelude::BASE64_STANDARD.encode(&*pair));
                Self::header(header::AUTHORIZATION, &[b"Basic ", encoded.as_bytes()])
            }
            CredentialKind::Header { name, value } => {
                let name = attachable_header(name)?;
                let parts: Vec<&[u8]> = value.split("{secret}").map(str::as_bytes).collect();
                if parts.len() < 2 {
                    return Err("the header's value has no {secret}".into());
                }
                let full = Zeroizing::new(parts.join(secret.expose()));
                Self::header(name, &[&full])
            }
            CredentialKind::Query { name } => {
                if name.is_empty() {
                    return Err("the query parameter has no name".into());
                }
                let value = Zeroizing::new(query::escape(secret.expose()));
                let pair = format!("{}={}", query::escape_text(name), *value);
                Ok(Self::Query { name: name.clone(), pair: Arc::new(Zeroizing::new(pair)) })
            }
            CredentialKind::Placeholder(places) => Ok(Self::Swap(*places)),
        }
    }

    fn header(name: HeaderName, parts: &[&[u8]]) -> Result<Self, String> {
        let bytes = Bytes::from_owner(Zeroizing::new(parts.concat()));
        let mut value = HeaderValue::from_maybe_shared(bytes)
            .map_err(|_| format!("the value cannot stand in the header {name}"))?;
        // Kept out of Debug output and of HPACK's tables.
        value.set_sensitive(true);
        Ok(Self::Header { name, value })
    }
}

/// Headers that frame a message or name its host are never a credential's place.
fn attachable_header(name: &str) -> Result<HeaderName, String> {
    const TAKEN: [HeaderName; 13] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::ACCEPT_ENCODING,
        header::RANGE,
        header::PROXY_AUTHORIZATION,
    ];
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is not a header name"))?;
    let hop_by_hop = ["keep-alive", "proxy-connection", "http2-settings"];
    if TAKEN.contains(&parsed) || hop_by_hop.contains(&parsed.as_str()) {
        return Err(format!("the header {parsed} carries the message itself, not a credential"));
    }
    Ok(parsed)
}

fn make_placeholder(
    spec: &CredentialSpec,
    secret: &Secret,
    taken: &[&str],
) -> Result<String, SecretProblem> {
    let shape = match &spec.shape {
        Some(text) => Shape::parse(text),
        None => Ok(Shape::default_for(&spec.name)),
    };
    let shape = shape.map_err(|e| SecretProblem::Placeholder(e.to_string()))?;
    let made = placeholder::make(&shape, secret.expose(), taken, |buf| OsRng.try_fill_bytes(buf));
    made.map_err(|e| {
        SecretProblem::Placeholder(match e {
            MakeError::Overlap => {
                "every one would share text with its secret or with another placeholder; \
                 choose another shape"
                    .into()
            }
            MakeError::Random(e) => format!("the system gave no random bytes ({e})"),
        })
    })
}

/// One result per specification, in order. Only commands are worth a thread.
fn resolve_all(specs: &[CredentialSpec], operator: &Operator) -> Vec<Result<Secret, SecretError>> {
    std::thread::scope(|scope| {
        let started: Vec<_> = specs
            .iter()
            .map(|spec| match &spec.secret {
                SecretRef::Exec(_) => Err(scope.spawn(|| secrets::resolve(spec, operator))),
                SecretRef::Env(_) | SecretRef::File(_) => Ok(secrets::resolve(spec, operator)),
            })
            .collect();
        let done = started.into_iter().map(|s| match s {
            Ok(result) => result,
            Err(thread) => thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)),
        });
        done.collect()
    })
}

fn hidden_files(all: &[Arc<Credential>]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for credential in all {
        if let SecretRef::File(path) = &credential.spec.secret {
            files.push(path.clone());
            // A file that vanished since it was read needs no cover.
            files.extend(path.canonicalize());
        }
    }
    files.sort_unstable();
    files.dedup();
    files
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { name, .. } => write!(f, "Header({name})"),
            Self::Query { name, .. } => write!(f, "Query({name:?})"),
            Self::Swap(places) => write!(f, "Swap({places:?})"),
        }
    }
}

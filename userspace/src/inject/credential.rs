//! The credentials of one policy, obtained and ready for use.

use std::collections::BTreeMap;
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
        Self::activate_keeping(policy, operator, &BTreeMap::new())
    }

    /// As [`Self::activate`], but an agent that runs goes on with what it holds: a credential's
    /// placeholder in `keep` (by the credential's name) is used again if it has the shape that the
    /// policy asks for now, and shares nothing with the secret as it is now or with another
    /// placeholder. Otherwise a new one is made.
    pub fn activate_keeping(
        policy: &Policy,
        operator: &Operator,
        keep: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<SecretError>> {
        let secrets = resolve_all(&policy.credentials, operator);
        let kept = still_good(&policy.credentials, &secrets, keep);
        let mut all: Vec<Arc<Credential>> = Vec::new();
        let mut errors = Vec::new();
        for (spec, secret) in policy.credentials.iter().zip(secrets) {
            let own = kept.get(&*spec.name).copied();
            let others =
                kept.iter().filter(|(name, _)| ***name != *spec.name).map(|(_, text)| *text);
            let taken: Vec<&str> = all.iter().map(|c| &*c.placeholder).chain(others).collect();
            match secret.and_then(|s| Credential::new(Arc::new(spec.clone()), s, own, &taken)) {
                Ok(credential) => all.push(Arc::new(credential)),
                Err(e) => errors.push(e),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut set = Self::of(all);
        set.follow_links();
        Ok(set)
    }

    /// What [`Self::activate_keeping`] takes, so that agents go on with these placeholders.
    pub fn to_keep(&self) -> BTreeMap<String, String> {
        let pair = |c: &Arc<Credential>| (c.spec.name.to_string(), c.placeholder.to_string());
        self.all.iter().map(pair).collect()
    }

    /// The set of these credentials. Touches nothing outside.
    pub(super) fn of(all: Vec<Arc<Credential>>) -> Self {
        let placeholders = all
            .iter()
            .enumerate()
            .map(|(i, c)| (i, Zeroizing::new(c.placeholder.as_bytes().to_vec())));
        let placeholders = PatternSet::new(placeholders)
            .expect("a few hundred bytes per credential are far below the automaton's limits");
        let scrubber = (!all.is_empty()).then(|| Arc::new(Scrubber::new(&all)));
        let hidden = named_files(&all);
        Self { all, placeholders: Arc::new(placeholders), scrubber, hidden }
    }

    /// Adds to the files to hide where the symbolic links on their paths lead.
    fn follow_links(&mut self) {
        // A file that vanished since it was read needs no cover.
        let targets: Vec<PathBuf> =
            self.hidden.iter().filter_map(|path| path.canonicalize().ok()).collect();
        self.hidden.extend(targets);
        self.hidden.sort_unstable();
        self.hidden.dedup();
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
    /// policy names them, and in the process that read them also where symbolic links lead.
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
    /// Checks the kind, chooses the placeholder (`kept` if that is still good, else a new one) and
    /// prepares what is attached.
    pub(super) fn new(
        spec: Arc<CredentialSpec>,
        secret: Secret,
        kept: Option<&str>,
        taken: &[&str],
    ) -> Result<Self, SecretError> {
        let err = |problem| SecretError { credential: spec.name.clone(), problem };
        let attach = Attach::new(&spec.kind, &secret).map_err(|e| err(SecretProblem::Kind(e)))?;
        let placeholder = choose_placeholder(&spec, &secret, kept, taken).map_err(err)?;
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

/// The kept placeholders that can stay, by the names of their credentials.
fn still_good<'a>(
    specs: &'a [CredentialSpec],
    secrets: &[Result<Secret, SecretError>],
    keep: &'a BTreeMap<String, String>,
) -> BTreeMap<&'a str, &'a str> {
    let mut good: BTreeMap<&str, &str> = BTreeMap::new();
    for (spec, secret) in specs.iter().zip(secrets) {
        let (Some(text), Ok(secret)) = (keep.get(&*spec.name), secret) else { continue };
        let taken: Vec<&str> = good.values().copied().collect();
        if shape_of(spec).is_ok_and(|s| placeholder::is_good(&s, text, secret.expose(), &taken)) {
            good.insert(&spec.name, text);
        }
    }
    good
}

fn shape_of(spec: &CredentialSpec) -> Result<Shape, SecretProblem> {
    match &spec.shape {
        Some(text) => Shape::parse(text).map_err(|e| SecretProblem::Placeholder(e.to_string())),
        None => Ok(Shape::default_for(&spec.name)),
    }
}

fn choose_placeholder(
    spec: &CredentialSpec,
    secret: &Secret,
    kept: Option<&str>,
    taken: &[&str],
) -> Result<String, SecretProblem> {
    let shape = shape_of(spec)?;
    let is_good = |text: &&str| placeholder::is_good(&shape, text, secret.expose(), taken);
    if let Some(kept) = kept.filter(is_good) {
        return Ok(kept.to_owned());
    }
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

/// The files of `file:` references, as the policy names them.
fn named_files(all: &[Arc<Credential>]) -> Vec<PathBuf> {
    let path = |c: &Arc<Credential>| match &c.spec.secret {
        SecretRef::File(path) => Some(path.clone()),
        SecretRef::Env(_) | SecretRef::Exec(_) => None,
    };
    let mut files: Vec<PathBuf> = all.iter().filter_map(path).collect();
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

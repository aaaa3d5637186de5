//! Credentials on their way from the process that may read secrets to the one that attaches them,
//! which reads no source itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Credential, CredentialSet};
use crate::policy::Policy;
use crate::secrets::{self, MAX_SECRET, Secret, SecretError, SecretProblem};

/// One credential of a set. Its secret is wiped with the last copy.
///
/// Serialized, the secret is base64, so that no serializer needs to escape it into a buffer of its
/// own. The bytes that come out of a serializer and go into a deserializer are the caller's to
/// wipe. Deserialize from a slice and not from within a tagged or flattened type: serde would keep
/// a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOver {
    credential: Arc<str>,
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    secret: Secret,
    placeholder: Arc<str>,
}

impl HandedOver {
    /// The NAME of `[credentials.NAME]`.
    pub fn credential(&self) -> &str {
        &self.credential
    }
}

impl CredentialSet {
    /// Everything that another process needs to have the same set.
    pub fn hand_over(&self) -> Vec<HandedOver> {
        let one = |c: &Arc<Credential>| HandedOver {
            credential: Arc::clone(&c.spec.name),
            secret: c.secret.clone(),
            placeholder: Arc::clone(&c.placeholder),
        };
        self.all().iter().map(one).collect()
    }

    /// The set of `policy` from what [`Self::hand_over`] gave: the same secrets and placeholders,
    /// checked again, without reading any source.
    ///
    /// # Errors
    /// A credential of the policy that is not there, one that is there and not of the policy, and
    /// one that could not be what a set of this policy holds.
    pub fn take_over(policy: &Policy, handed: Vec<HandedOver>) -> Result<Self, Vec<SecretError>> {
        let mut errors = Vec::new();
        let mut waiting = BTreeMap::new();
        for one in handed {
            if let Some(twice) = waiting.insert(Arc::clone(&one.credential), one) {
                errors.push(twice.is(SecretProblem::NotAsked));
            }
        }
        let mut all: Vec<Arc<Credential>> = Vec::new();
        for spec in &policy.credentials {
            let Some(one) = waiting.remove(&spec.name) else {
                let problem = SecretProblem::NotHandedOver;
                errors.push(SecretError { credential: Arc::clone(&spec.name), problem });
                continue;
            };
            let taken: Vec<&str> = all.iter().map(|c| &*c.placeholder).collect();
            let taken_over = secrets::check(one.secret.expose())
                .map_err(|problem| one.is(problem))
                .and_then(|()| {
                    let (spec, secret) = (Arc::new(spec.clone()), one.secret.clone());
                    Credential::new(spec, secret, Some(&one.placeholder), &taken)
                });
            match taken_over {
                Ok(credential) if credential.placeholder == one.placeholder => {
                    all.push(Arc::new(credential));
                }
                Ok(_) => errors.push(one.is(SecretProblem::ForeignPlaceholder)),
                Err(e) => errors.push(e),
            }
        }
        errors.extend(waiting.values().map(|extra| extra.is(SecretProblem::NotAsked)));
        if errors.is_empty() { Ok(Self::of(all)) } else { Err(errors) }
    }
}

impl HandedOver {
    fn is(&self, problem: SecretProblem) -> SecretError {
        SecretError { credential: Arc::clone(&self.credential), problem }
    }
}

fn encode<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(secret.expose())))
}

fn decode<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    from.deserialize_str(Base64)
}

struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret in base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
        // The decoder's own error would quote a byte of it.
        let bad = || E::custom("not a secret in base64");
        let room = base64::decoded_len_estimate(text.len());
        if room > MAX_SECRET + 3 {
            return Err(bad());
        }
        // With room for all of it, so that growing leaves no copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        BASE64_STANDARD.decode_vec(text, &mut bytes).map_err(|_| bad())?;
        Ok(Secret::new(std::mem::take(&mut *bytes)))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
        self.visit_str(&Zeroizing::new(text))
    }
}

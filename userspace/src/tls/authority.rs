//! A certificate authority of egret's own: made in memory for one `run`, or kept on disk by the
//! daemon ([`store`]).

mod pem;
pub mod store;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use pem::PemPair;

/// How long the authority of a session is valid. Its key dies with the process.
const SESSION: Duration = Duration::days(365);

/// The organisation in the subject of every authority of egret.
const ORGANIZATION: &str = "egret";

/// The same as the attribute of a subject in DER: 2.5.4.10, as rcgen writes it.
const ORGANIZATION_DER: &[u8] = b"\x06\x03\x55\x04\x0a\x0c\x05egret";

/// A failure to make keys or certificates, or to take over a pair that was made before.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the certificate could not be made")]
    Make(#[from] rcgen::Error),
    #[error("the authority's key is damaged: it is not an ECDSA P-256 key in PEM")]
    Key,
    #[error("the authority's certificate is damaged: {0}")]
    Certificate(&'static str),
    #[error("the authority's certificate belongs to another key")]
    Mismatch,
    #[error("the authority's certificate expired on {0}")]
    Expired(OffsetDateTime),
}

/// A certificate authority with its key (ECDSA P-256).
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// What the certificate of an authority says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub subject: String,
    /// SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Authority {
    /// A new authority; `name` stands in its subject, for people who look at certificates.
    ///
    /// # Errors
    /// When there are no random bytes to make a key of.
    pub fn generate(name: &str) -> Result<Self, AuthorityError> {
        Self::generate_for(name, SESSION)
    }

    fn generate_for(name: &str, lifetime: Duration) -> Result<Self, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("egret {name}"));
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - Duration::DAY;
        params.not_after = now + lifetime;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The certificate and the key as PEM, so that both can be kept or handed to another process.
    pub fn to_pem_pair(&self) -> PemPair {
        PemPair {
            certificate: self.pem(),
            key: pem::encode("PRIVATE KEY", self.issuer.key().serialized_der()),
        }
    }

    /// The authority that [`Self::to_pem_pair`] wrote.
    ///
    /// # Errors
    /// When either part is damaged, they do not belong together, the certificate is no authority
    /// that signs leaves only, or it has expired.
    pub fn from_pem_pair(pair: &PemPair) -> Result<Self, AuthorityError> {
        let key = pem::key(&pair.key).ok_or(AuthorityError::Key)?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| AuthorityError::Key)?;
        let certificate = pem::certificate(&pair.certificate)?;
        let facts = check(&certificate, Some(&key))?;
        if facts.not_after <= OffsetDateTime::now_utc() {
            return Err(AuthorityError::Expired(facts.not_after));
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate })
    }

    /// The certificate for trust bundles. The key leaves only by [`Self::to_pem_pair`].
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate).to_string()
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Facts {
    /// What a certificate in PEM says, expired or not.
    ///
    /// # Errors
    /// When it is not the undamaged certificate of an authority.
    pub fn of(certificate: &str) -> Result<Self, AuthorityError> {
        check(&pem::certificate(certificate)?, None)
    }
}

/// Whether a subject in DER is that of an authority of egret, of whatever session or machine.
pub(super) fn is_of_egret(subject: &[u8]) -> bool {
    memchr::memmem::find(subject, ORGANIZATION_DER).is_some()
}

/// The certificate must be whole, signed with its own key, and allowed to sign leaves and nothing
/// else; with `key`, its own key must be this one.
fn check(der: &CertificateDer<'_>, key: Option<&KeyPair>) -> Result<Facts, AuthorityError> {
    let damaged = AuthorityError::Certificate;
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|_| damaged("it cannot be read"))?;
    if !rest.is_empty() {
        return Err(damaged("something follows it"));
    }
    // A second reader, which is strict where the first is not.
    let strict = rustls::RootCertStore::empty().add(der.clone().into_owned());
    strict.map_err(|_| damaged("it cannot be read"))?;
    if key.is_some_and(|k| certificate.public_key().raw != k.subject_public_key_info()) {
        return Err(AuthorityError::Mismatch);
    }
    // What the signature does not cover must be right as well: its own name and length.
    let outside = certificate.signature_algorithm == certificate.tbs_certificate.signature
        && certificate.signature_value.unused_bits == 0;
    if !outside || certificate.verify_signature(None).is_err() {
        return Err(damaged("it does not carry its own key's signature"));
    }
    let constraints = certificate.basic_constraints().ok().flatten().map(|c| c.value);
    if !constraints.is_some_and(|c| c.ca && c.path_len_constraint == Some(0)) {
        return Err(damaged("it is no authority for leaves alone (CA, path length 0)"));
    }
    let time = |seconds| {
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| damaged("its dates make no sense"))
    };
    let validity = certificate.validity();
    Ok(Facts {
        subject: certificate.subject().to_string(),
        fingerprint: fingerprint(der),
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
    })
}

fn fingerprint(der: &[u8]) -> String {
    let digits: Vec<String> = Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect();
    digits.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_comes_back_as_the_same_authority() {
        let made = Authority::generate("test").unwrap();
        let pair = made.to_pem_pair();
        let back = Authority::from_pem_pair(&pair).unwrap();
        assert_eq!(made.der(), back.der());
        assert_eq!(back.to_pem_pair().key, pair.key);
        let bytes = pair.to_bytes();
        let crossed = PemPair::from_bytes(&bytes).unwrap();
        assert_eq!((&crossed.key, &crossed.certificate), (&pair.key, &pair.certificate));
        assert_eq!(format!("{made:?} {pair:?}"), "Authority(…) PemPair(…)");
    }

    #[test]
    fn the_restored_authority_signs_what_the_old_certificate_verifies() {
        use rustls::client::danger::ServerCertVerifier as _;
        let made = Authority::generate("test").unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.der().clone()).unwrap();
        let back = Authority::from_pem_pair(&made.to_pem_pair()).unwrap();
        let minter = crate::tls::leaf::LeafMinter::new(back).unwrap();
        let host = crate::policy::Host::Name(crate::policy::HostName::parse("a.test").unwrap());
        let leaf = minter.leaf(&host).unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            crate::tls::provider(),
        )
        .build()
        .unwrap();
        let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
        let now = rustls_pki_types::UnixTime::now();
        verifier.verify_server_cert(&leaf.cert[0], &leaf.cert[1..], &name, &[], now).unwrap();
    }

    #[test]
    fn what_is_damaged_foreign_or_too_old_is_named() {
        let (one, two) = (Authority::generate("1").unwrap(), Authority::generate("2").unwrap());
        let (one, two) = (one.to_pem_pair(), two.to_pem_pair());
        let fails = |certificate: &str, key: &str| {
            let pair = PemPair { certificate: certificate.into(), key: key.to_owned().into() };
            Authority::from_pem_pair(&pair).unwrap_err().to_string()
        };
        assert!(fails(&one.certificate, &two.key).contains("another key"));
        assert!(fails(&one.certificate, "").contains("key is damaged"));
        assert!(fails(&one.certificate, &one.key[..60]).contains("key is damaged"));
        assert!(fails("", &one.key).contains("not one PEM"));
        assert!(fails(&one.certificate.repeat(2), &one.key).contains("not one PEM"));
        let leaf = {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let leaf = CertificateParams::new(vec!["x.test".into()]).unwrap();
            (leaf.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        assert!(fails(&leaf.0, &leaf.1).contains("path length 0"));
        let old = Authority::generate_for("old", Duration::hours(-1)).unwrap().to_pem_pair();
        assert!(fails(&old.certificate, &old.key).contains("expired on"));
        assert!(Facts::of(&old.certificate).is_ok(), "an expired one can still be looked at");
    }

    /// No byte of the certificate can change unseen.
    #[test]
    fn every_changed_byte_is_found() {
        let made = Authority::generate("test").unwrap();
        let key = made.to_pem_pair().key;
        for at in 0..made.der().len() {
            let mut der = made.der().to_vec();
            der[at] ^= 0x04;
            let certificate = pem::encode("CERTIFICATE", &der).to_string();
            let pair = PemPair { certificate, key: key.clone() };
            assert!(Authority::from_pem_pair(&pair).is_err(), "byte {at}");
        }
    }

    #[test]
    fn subjects_of_egret_are_known() {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(Authority::generate("x").unwrap().der().clone()).unwrap();
        assert!(is_of_egret(&roots.roots[0].subject));
        assert!(!is_of_egret(b""));
    }

    #[test]
    fn facts_are_those_that_openssl_prints() {
        let made = Authority::generate("test").unwrap();
        let facts = Facts::of(&made.pem()).unwrap();
        assert_eq!(facts.subject, "CN=egret test, O=egret");
        assert_eq!(facts.fingerprint.len(), 95);
        assert!(facts.not_before < facts.not_after);
    }
}

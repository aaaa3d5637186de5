//! The certificate authority of one egret: made in memory, its key never on disk.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// How long the authority's certificate is valid. The key dies with the process.
const LIFETIME: Duration = Duration::days(365);

/// A failure to make keys or certificates.
#[derive(Debug, thiserror::Error)]
#[error("the certificate could not be made")]
pub struct AuthorityError(#[from] rcgen::Error);

/// A certificate authority with its key (ECDSA P-256).
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new authority; `name` stands in its subject, for people who look at certificates.
    pub fn generate(name: &str) -> Result<Self, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("egret {name}"));
        params.distinguished_name.push(DnType::OrganizationName, "egret");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - Duration::DAY;
        params.not_after = now + LIFETIME;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// The certificate for trust bundles. The key has no such accessor.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub(super) fn issuer(&self) -> &rcgen::Issuer<'static, KeyPair> {
        &self.0
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

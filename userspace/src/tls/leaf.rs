//! A certificate per name, minted on demand with one shared key (20 µs each) and kept in a
//! bounded cache.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::authority::{Authority, AuthorityError};
use crate::policy::Host;

/// How long a leaf is valid.
const LIFETIME: Duration = Duration::hours(24);

/// A cached leaf is replaced when it has less than this left, so that no client meets an
/// expired one.
const FRESH: std::time::Duration = std::time::Duration::from_secs(12 * 3600);

/// Most leaves kept; a flood of names evicts, it does not grow.
pub const CACHE: NonZeroUsize = NonZeroUsize::new(1024).expect("1024 is not 0");

/// Mints leaves of one authority.
pub struct LeafMinter {
    authority: Authority,
    key: KeyPair,
    signer: Arc<dyn rustls::sign::SigningKey>,
    cache: Mutex<LruCache<Host, (Arc<CertifiedKey>, Instant)>>,
}

/// Why there is no leaf.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    #[error("the leaf's key was not accepted")]
    Key(#[from] rustls::Error),
}

impl LeafMinter {
    /// A minter with a new key for all its leaves.
    pub fn new(authority: Authority) -> Result<Self, LeafError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::from)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = super::provider().key_provider.load_private_key(der)?;
        Ok(Self { authority, key, signer, cache: Mutex::new(LruCache::new(CACHE)) })
    }

    /// The authority whose certificate agents must trust.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A certificate and key for exactly `host`, from the cache or minted now.
    pub fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, LeafError> {
        if let Some((leaf, minted)) = self.cache().get(host)
            && minted.elapsed() < FRESH
        {
            return Ok(Arc::clone(leaf));
        }
        let chain = vec![self.mint(host)?, self.authority.der().clone()];
        let leaf = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.signer)));
        self.cache().put(host.clone(), (Arc::clone(&leaf), Instant::now()));
        Ok(leaf)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, LruCache<Host, (Arc<CertifiedKey>, Instant)>> {
        // The cache holds no invariant that a panic could break.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mint(&self, host: &Host) -> Result<CertificateDer<'static>, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // X.520 limits a common name to 64 characters; verifiers read the alternative name.
        let common = host.to_string();
        if common.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, common);
        } else {
            params.distinguished_name.push(DnType::CommonName, "egret");
        }
        params.subject_alt_names = vec![alternative_name(host)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - Duration::HOUR;
        params.not_after = now + LIFETIME;
        Ok(params.signed_by(&self.key, self.authority.issuer())?.der().clone())
    }
}

impl std::fmt::Debug for LeafMinter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeafMinter(…)")
    }
}

fn alternative_name(host: &Host) -> Result<SanType, AuthorityError> {
    Ok(match host {
        Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
        Host::Ip(IpAddr::V4(ip)) => SanType::IpAddress(IpAddr::V4(*ip)),
        Host::Ip(IpAddr::V6(ip)) => SanType::IpAddress(IpAddr::V6(*ip)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::HostName;

    fn minter() -> LeafMinter {
        LeafMinter::new(Authority::generate("test").unwrap()).unwrap()
    }

    fn verifies(minter: &LeafMinter, leaf: &CertifiedKey, name: &'static str) -> bool {
        use rustls::client::danger::ServerCertVerifier;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(minter.authority().der().clone()).unwrap();
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            roots.into(),
            crate::tls::provider(),
        )
        .build()
        .unwrap();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let now = rustls_pki_types::UnixTime::now();
        verifier.verify_server_cert(&leaf.cert[0], &leaf.cert[1..], &name, &[], now).is_ok()
    }

    #[test]
    fn a_leaf_is_valid_for_its_name_only() {
        let minter = minter();
        let name = Host::Name(HostName::parse("api.example.com").unwrap());
        let leaf = minter.leaf(&name).unwrap();
        assert!(verifies(&minter, &leaf, "api.example.com"));
        assert!(!verifies(&minter, &leaf, "www.example.com"));
        let ip = minter.leaf(&Host::Ip("192.0.2.7".parse().unwrap())).unwrap();
        assert!(verifies(&minter, &ip, "192.0.2.7"));
        assert!(!verifies(&minter, &ip, "192.0.2.8"));
        assert!(!verifies(&minter_other(), &leaf, "api.example.com"), "another authority");
    }

    fn minter_other() -> LeafMinter {
        minter()
    }

    #[test]
    fn a_flood_of_names_does_not_grow_the_cache() {
        let minter = minter();
        for i in 0..CACHE.get() + 50 {
            let name = Host::Name(HostName::parse(&format!("n{i}.example.com")).unwrap());
            minter.leaf(&name).unwrap();
        }
        assert_eq!(minter.cache().len(), CACHE.get());
    }

    #[test]
    fn the_same_name_is_minted_once() {
        let minter = minter();
        let name = Host::Name(HostName::parse("a.example.com").unwrap());
        let first = minter.leaf(&name).unwrap();
        assert!(Arc::ptr_eq(&first, &minter.leaf(&name).unwrap()));
    }

    #[test]
    fn long_names_have_leaves_too() {
        let minter = minter();
        let label = "a".repeat(60);
        let name = format!("{label}.{label}.example.com");
        assert!(minter.leaf(&Host::Name(HostName::parse(&name).unwrap())).is_ok());
    }
}

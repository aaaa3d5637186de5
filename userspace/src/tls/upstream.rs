//! TLS towards the upstream: system roots plus the policy's own, never egret's authority.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::cause::{self, Broken, Untrusted};
use super::verify::Explaining;
use crate::outcome::Reason;
use crate::policy::{Host, UpstreamSettings};

/// Why there is no verified TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    #[error("the upstream's certificate was not accepted: {0}")]
    Certificate(Untrusted),
    #[error("the TLS handshake with the upstream failed: {0}")]
    Handshake(Broken),
    #[error("an [upstream] ca is not a certificate: {0}")]
    Authority(String),
}

impl UpstreamTlsError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Certificate(_) => Reason::UpstreamCertificate,
            Self::Handshake(_) | Self::Authority(_) => Reason::UpstreamTls,
        }
    }
}

/// The system's roots, read once. Reading them takes milliseconds: [`super::warm`] does it early.
/// Files that cannot be read leave fewer roots, so fewer upstreams verify.
pub fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!("some of the system's root certificates could not be read: {error}");
        }
        roots.add_parsable_certificates(loaded.certs);
        // `egret ca trust` puts the daemon's authority there. It vouches for no upstream, whichever
        // egret asks.
        roots.roots.retain(|root| !super::authority::is_of_egret(&root.subject));
        roots
    })
}

/// Which protocols the upstream is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offer {
    /// HTTP/1.1 only, because the agent speaks it (and may upgrade).
    H1,
    /// HTTP/2, or HTTP/1.1 where the upstream has nothing better.
    H2,
}

/// The extra authorities and the offer: what makes one configuration unlike another.
type ConfigKey = (Vec<Arc<str>>, Offer);

/// TLS sessions that may be resumed. Whoever holds them keeps them apart: an upstream that sees a
/// session resumed knows that it speaks with the same client.
#[derive(Clone, Debug)]
pub struct Sessions(Resumption);

impl Default for Sessions {
    fn default() -> Self {
        Self(Resumption::in_memory_sessions(64)) // upstreams
    }
}

/// Client configurations, one per set of `[upstream] ca`; they hold no sessions.
#[derive(Debug)]
pub struct UpstreamTls {
    /// Subject public key info of egret's own authority, which is never accepted upstream even
    /// where an operator has installed it in the system's trust store.
    own_key: Vec<u8>,
    configs: Mutex<HashMap<ConfigKey, Arc<ClientConfig>>>,
}

impl UpstreamTls {
    /// `own` is egret's own authority.
    pub fn new(own: &CertificateDer<'_>) -> Self {
        let mut store = RootCertStore::empty();
        // An unparsable own certificate cannot be accepted upstream either.
        let _ = store.add(own.clone().into_owned());
        let own_key =
            store.roots.first().map(|r| r.subject_public_key_info.to_vec()).unwrap_or_default();
        Self { own_key, configs: Mutex::new(HashMap::new()) }
    }

    /// The handshake as `host`, verified. Nothing is sent before the certificate is accepted.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        host: &Host,
        offer: Offer,
        settings: &UpstreamSettings,
        sessions: &Sessions,
    ) -> Result<TlsStream<IO>, UpstreamTlsError> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
                .map_err(|_| UpstreamTlsError::Certificate(Untrusted::WrongName))?,
            Host::Ip(ip) => ServerName::from(*ip),
        };
        let mut config = ClientConfig::clone(&*self.config(&settings.ca, offer)?);
        config.resumption = sessions.0.clone();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, io).await.map_err(|e| cause::of_io(&e))
    }

    fn config(&self, ca: &[Arc<str>], offer: Offer) -> Result<Arc<ClientConfig>, UpstreamTlsError> {
        let key = (ca.to_vec(), offer);
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(&key) {
            return Ok(Arc::clone(config));
        }
        let roots = Arc::new(self.roots(ca)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, super::provider())
            .build()
            .map_err(|_| UpstreamTlsError::Certificate(Untrusted::NoRoots))?;
        let mut config = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .dangerous() // what accepts and refuses is rustls's own verifier
            .with_custom_certificate_verifier(Arc::new(Explaining(verifier)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match offer {
            Offer::H1 => vec![b"http/1.1".to_vec()],
            Offer::H2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let config = Arc::new(config);
        configs.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn roots(&self, ca: &[Arc<str>]) -> Result<RootCertStore, UpstreamTlsError> {
        let mut roots = system_roots().clone();
        for text in ca {
            for cert in CertificateDer::pem_slice_iter(text.as_bytes()) {
                let cert = cert.map_err(|e| UpstreamTlsError::Authority(e.to_string()))?;
                roots.add(cert).map_err(|e| UpstreamTlsError::Authority(e.to_string()))?;
            }
        }
        roots.roots.retain(|r| r.subject_public_key_info.as_ref() != self.own_key);
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::Authority;

    #[test]
    fn our_own_authority_is_never_a_root() {
        let own = Authority::generate("own").unwrap();
        let other = Authority::generate("other").unwrap();
        let tls = UpstreamTls::new(own.der());
        let with = |ca: &Authority| tls.roots(&[ca.pem().into()]).unwrap().len();
        let system = system_roots().len();
        assert_eq!(with(&other), system + 1, "control: another authority is added");
        assert_eq!(with(&own), system);
    }

    #[test]
    fn configurations_are_kept() {
        let own = Authority::generate("own").unwrap();
        let tls = UpstreamTls::new(own.der());
        let first = tls.config(&[], Offer::H1).unwrap();
        assert!(Arc::ptr_eq(&first, &tls.config(&[], Offer::H1).unwrap()));
        assert!(!Arc::ptr_eq(&first, &tls.config(&[], Offer::H2).unwrap()));
        assert!(tls.config(&["-----BEGIN CERTIFICATE-----\n!".into()], Offer::H1).is_err());
    }
}

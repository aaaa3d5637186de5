//! Certificates and configurations that all peers share.

use std::path::Path;
use std::sync::Arc;

use egret::policy::{Host, HostName};
use egret::tls::authority::Authority;
use egret::tls::leaf::LeafMinter;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// The one name of the bench.
pub(crate) const NAME: &str = "api.test";

/// Mints for the name that is asked for, or takes it from the cache.
#[derive(Debug)]
struct Minting(LeafMinter);

impl ResolvesServerCert for Minting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = HostName::parse(hello.server_name()?).ok()?;
        self.0.leaf(&Host::Name(name)).ok()
    }
}

/// A server with an authority of its own, whose certificate is left in `folder` as `role`.pem.
pub(crate) fn server(folder: &Path, role: &str) -> Arc<ServerConfig> {
    let minter = LeafMinter::new(Authority::generate(role).expect("an authority")).expect("a key");
    let pem = minter.authority().pem();
    std::fs::write(folder.join(format!("{role}.pem")), pem).expect("a file");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Minting(minter)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A client that accepts only the authority in `pem`.
pub(crate) fn client(pem: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(pem).expect("the peer's certificate");
    roots.add(certificate).expect("an authority");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

//! Ends an agent's TLS with a leaf for the name that was decided on.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::policy::Host;

/// Sessions remembered per agent for resumption.
const SESSIONS: usize = 256;

/// What is spoken inside, as ALPN agreed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    H1,
    H2,
}

/// TLS termination for one agent. Sessions are remembered here and nowhere else, so another
/// agent's ticket is a full handshake. Early data is never accepted.
#[derive(Clone, Debug)]
pub struct Terminator {
    config: Arc<ServerConfig>,
}

impl Default for Terminator {
    fn default() -> Self {
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoLeaf));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        config.max_early_data_size = 0;
        // One ticket is enough for one later connection and costs one write less.
        config.send_tls13_tickets = 1;
        Self { config: Arc::new(config) }
    }
}

impl Terminator {
    /// The handshake with the agent, as `host`, with `leaf`. A hello that asks rustls for
    /// another name than the one egret read in it is refused.
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: IO,
        host: &Host,
        leaf: Arc<CertifiedKey>,
    ) -> std::io::Result<(TlsStream<IO>, Spoken)> {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(OneLeaf { host: host.clone(), leaf });
        let stream = TlsAcceptor::from(Arc::new(config)).accept(io).await?;
        let spoken = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Spoken::H2,
            Some(_) | None => Spoken::H1,
        };
        Ok((stream, spoken))
    }
}

/// Answers with the one leaf of this connection, provided that both parsers of the hello agree.
#[derive(Debug)]
struct OneLeaf {
    host: Host,
    leaf: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OneLeaf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let agrees = match (hello.server_name(), &self.host) {
            (None, _) => true,
            (Some(asked), Host::Name(name)) => {
                asked.trim_end_matches('.').eq_ignore_ascii_case(name.as_str())
            }
            (Some(_), Host::Ip(_)) => false,
        };
        agrees.then(|| Arc::clone(&self.leaf))
    }
}

/// The template's resolver; every connection replaces it.
#[derive(Debug)]
struct NoLeaf;

impl ResolvesServerCert for NoLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

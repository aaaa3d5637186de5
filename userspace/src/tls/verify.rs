//! rustls's own verification of an upstream's certificate, which says more of one that fails.
//! What it accepts and refuses is rustls's decision alone: only the error is made clearer.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::authority;
use super::cause::Untrusted;

/// [`WebPkiServerVerifier`] with clearer errors.
#[derive(Debug)]
pub(super) struct Explaining(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| explained(error, end_entity))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

/// An unknown issuer may be the certificate itself or egret; an authority's certificate in the
/// place of a server's is usually self-signed.
fn explained(error: Error, certificate: &CertificateDer<'_>) -> Error {
    let Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)) =
        error
    else {
        return error;
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return error };
    let why = if parsed.issuer().as_raw() == parsed.subject().as_raw() {
        Untrusted::SelfSigned
    } else if authority::is_of_egret(parsed.issuer().as_raw()) {
        Untrusted::OwnAuthority
    } else {
        return error;
    };
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

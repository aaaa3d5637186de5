//! Pure: a PKCS #12 trust store (RFC 7292) without encryption and without a MAC, as the JDK's own
//! `cacerts` is since Java 18. Nothing in it is secret, and key derivation would cost more than
//! the rest of a start. Java 8u301, 11.0.12 and later read it with or without a password.
//!
//! Java takes a certificate for trusted only if its bag carries the attribute
//! 2.16.840.1.113894.746875.1.1 (Oracle's "trusted key usage").

use super::der::{BMP_STRING, CONTEXT_0, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, element, wrap};

/// 1.2.840.113549.1.7.1, pkcs7-data.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.12.10.1.3, pkcs-12-certBag.
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
/// 1.2.840.113549.1.9.22.1, x509Certificate.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// 1.2.840.113549.1.9.20, friendlyName.
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
/// 2.16.840.1.113894.746875.1.1, Oracle's trusted key usage.
const TRUSTED: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];
/// 2.5.29.37.0, any extended key usage.
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// The store with these certificates (DER).
pub(super) fn trust_store<C: AsRef<[u8]>>(certificates: &[C]) -> Vec<u8> {
    let bags: Vec<u8> =
        certificates.iter().enumerate().flat_map(|(n, c)| bag(n, c.as_ref())).collect();
    let safe = data(&element(SEQUENCE, &bags));
    let authenticated = data(&element(SEQUENCE, &safe));
    wrap(SEQUENCE, &[&element(INTEGER, &[3]), &authenticated])
}

/// A ContentInfo of type data.
fn data(content: &[u8]) -> Vec<u8> {
    let content = element(CONTEXT_0, &element(OCTET_STRING, content));
    wrap(SEQUENCE, &[&element(OID, DATA), &content])
}

fn bag(number: usize, certificate: &[u8]) -> Vec<u8> {
    let octets = element(CONTEXT_0, &element(OCTET_STRING, certificate));
    let cert = wrap(SEQUENCE, &[&element(OID, X509), &octets]);
    let name: Vec<u8> =
        format!("root-{number}").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attributes = wrap(
        SET,
        &[
            &attribute(FRIENDLY_NAME, &element(BMP_STRING, &name)),
            &attribute(TRUSTED, &element(OID, ANY_USAGE)),
        ],
    );
    wrap(SEQUENCE, &[&element(OID, CERT_BAG), &element(CONTEXT_0, &cert), &attributes])
}

fn attribute(oid: &[u8], value: &[u8]) -> Vec<u8> {
    wrap(SEQUENCE, &[&element(OID, oid), &element(SET, value)])
}

//! Pure: an authority as text. The key's text is wiped when it is dropped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use super::AuthorityError;

/// Characters in a line of PEM (RFC 7468).
const LINE: usize = 64;

/// Where the certificate of [`PemPair::to_bytes`] ends.
const END: &str = "-----END CERTIFICATE-----\n";

/// A certificate and its key, each as PEM.
pub struct PemPair {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

impl PemPair {
    /// Both in one, for a pipe to another process: the certificate, then the key.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.certificate.len() + self.key.len()));
        out.extend(self.certificate.as_bytes());
        out.extend(self.key.as_bytes());
        out
    }

    /// What [`Self::to_bytes`] wrote. [`super::Authority::from_pem_pair`] judges the parts.
    ///
    /// # Errors
    /// When there is no text, or no certificate in it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_ONE)?;
        let end = text.find(END).ok_or(NOT_ONE)? + END.len();
        let (certificate, key) = text.split_at(end);
        Ok(Self { certificate: certificate.to_owned(), key: Zeroizing::new(key.to_owned()) })
    }
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PemPair(…)")
    }
}

const NOT_ONE: AuthorityError = AuthorityError::Certificate("it is not one PEM certificate");

/// `der` as PEM. Nothing of it is left elsewhere in memory.
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Reserved at once: growing would leave copies behind.
    let size = der.len().div_ceil(3) * 4;
    let mut digits = String::with_capacity(size);
    STANDARD.encode_string(der, &mut digits);
    let mut out = String::with_capacity(size + size / LINE + 2 * label.len() + 40);
    out += &format!("-----BEGIN {label}-----\n");
    for line in digits.as_bytes().chunks(LINE) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out += &format!("-----END {label}-----\n");
    digits.zeroize();
    Zeroizing::new(out)
}

/// The certificate of a text that holds exactly one.
pub(super) fn certificate(text: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    let mut all = CertificateDer::pem_slice_iter(text.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(one)), None) => Ok(one),
        _ => Err(NOT_ONE),
    }
}

/// The key of a text that holds one.
pub(super) fn key(text: &str) -> Option<PrivatePkcs8KeyDer<'static>> {
    PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        for len in [0, 1, 2, 3, 47, 48, 49, 700] {
            let der: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(text.lines().all(|l| l.len() <= LINE), "{len}");
            assert_eq!(certificate(&text).unwrap().as_ref(), der, "{len}");
            assert_eq!(&key(&encode("PRIVATE KEY", &der)).unwrap().secret_pkcs8_der(), &der);
            assert!(key(&text).is_none(), "a certificate is no key");
        }
    }

    #[test]
    fn bytes_without_a_certificate_are_no_pair() {
        for bad in [&b""[..], b"\xff", b"-----BEGIN CERTIFICATE-----\n"] {
            assert!(PemPair::from_bytes(bad).is_err());
        }
    }
}

//! Pure: the name that OpenSSL gives a certificate in a hashed folder: the first four bytes,
//! little-endian, of the SHA-1 of its subject in canonical form (`X509_NAME_hash` and
//! `x509_name_canon` of OpenSSL: strings as UTF-8, lower case in ASCII, spaces trimmed and
//! collapsed, without the outer SEQUENCE).

use aws_lc_rs::digest;

use super::der::{
    CONTEXT_0, IA5_STRING, PRINTABLE_STRING, SEQUENCE, SET, T61_STRING, UTF8_STRING,
    VISIBLE_STRING, element, expect, read,
};

/// The eight hex digits for a certificate; `None` when it is not one.
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let subject = subject(certificate)?;
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &canonical(subject)?);
    let first = sha1.as_ref().first_chunk::<4>()?;
    Some(format!("{:08x}", u32::from_le_bytes(*first)))
}

/// The content of the subject's SEQUENCE (RFC 5280, section 4.1).
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    if let Some((_, after)) = expect(CONTEXT_0, rest) {
        rest = after; // version
    }
    for _ in ["serial number", "signature", "issuer", "validity"] {
        (_, _, rest) = read(rest)?;
    }
    expect(SEQUENCE, rest).map(|(subject, _)| subject)
}

fn canonical(subject: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), subject);
    while !rest.is_empty() {
        let (mut names, after) = expect(SET, rest)?;
        rest = after;
        let mut attributes = Vec::new();
        while !names.is_empty() {
            let (attribute, after) = expect(SEQUENCE, names)?;
            names = after;
            let (_, _, value) = read(attribute)?;
            let oid = &attribute[..attribute.len() - value.len()];
            attributes.push(element(SEQUENCE, &[oid, &canonical_value(value)?].concat()));
        }
        attributes.sort();
        out.extend(element(SET, &attributes.concat()));
    }
    Some(out)
}

fn canonical_value(value: &[u8]) -> Option<Vec<u8>> {
    let (tag, content, _) = read(value)?;
    if ![UTF8_STRING, PRINTABLE_STRING, T61_STRING, IA5_STRING, VISIBLE_STRING].contains(&tag) {
        return Some(value.to_vec());
    }
    let words: Vec<Vec<u8>> = content
        .split(|b| b.is_ascii_whitespace() || *b == 0x0b)
        .filter(|w| !w.is_empty())
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    Some(element(UTF8_STRING, &words.join(&b' ')))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    /// Every hashed name of this system was made by OpenSSL itself: the best table there is.
    #[test]
    fn agrees_with_openssl_on_every_root_of_this_system() {
        let Ok(folder) = std::fs::read_dir("/etc/ssl/certs") else { return };
        let mut checked = 0;
        for entry in folder.flatten() {
            let name = entry.file_name().into_string().unwrap();
            let Some(expected) = name.strip_suffix(".0").filter(|h| h.len() == 8) else { continue };
            let Ok(pem) = std::fs::read(entry.path()) else { continue };
            let der = CertificateDer::from_pem_slice(&pem).unwrap();
            assert_eq!(of(&der).unwrap(), expected);
            checked += 1;
        }
        println!("checked {checked} roots");
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        for bad in [&b""[..], b"\x30\x00", b"\x30\x02\x30\x00", b"garbage"] {
            assert_eq!(of(bad), None);
        }
    }
}

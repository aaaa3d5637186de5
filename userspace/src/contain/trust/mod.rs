//! What the agent's clients are given to trust: the system's roots and egret's CA, in every form
//! that clients read, and the variables that point to them.

mod der;
mod pkcs12;
mod publish;
mod subject_hash;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

pub use publish::publish;

use super::TRUST_DIR;
use super::plan::TrustFiles;

/// Names inside [`TRUST_DIR`].
pub const BUNDLE: &str = "bundle.pem";
pub const CA: &str = "ca.pem";
pub const STORE: &str = "bundle.p12";
pub(super) const HASHED_DIR: &str = "certs";

/// Where distributions keep the bundle: Debian, Fedora, OpenBSD and Alpine's name, openSUSE, Arch.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Folders with one file per root, named by the hash of its subject.
pub(super) const HASHED_FOLDERS: &[&str] = &[
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "/var/lib/ca-certificates/openssl",
];

/// Java's stores: where distributions keep them, and where runtimes are installed.
const JAVA_STORES: &[&str] = &[
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
    "/etc/ca-certificates/extracted/java-cacerts",
];
const JVM_FOLDERS: &[&str] = &["/usr/lib/jvm", "/usr/java", "/opt/java"];

/// Why the trust store could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrustError {
    #[error("the CA is not one PEM certificate")]
    SessionCa,
    #[error("the CA has a subject that cannot be read")]
    Subject,
}

/// Makes every form at once, in well under a millisecond: nothing is encrypted, because nothing
/// is secret. `system_roots` is the text of the system's bundle, or empty; a block in it that is
/// no certificate is left out of the Java store.
///
/// # Errors
/// When `session_ca` is not one certificate with a subject.
pub fn files(system_roots: &str, session_ca: &str) -> Result<TrustFiles, TrustError> {
    let ca =
        CertificateDer::from_pem_slice(session_ca.as_bytes()).map_err(|_| TrustError::SessionCa)?;
    let subject_hash = subject_hash::of(&ca).ok_or(TrustError::Subject)?;
    let mut bundle_pem = system_roots.to_owned();
    if !bundle_pem.is_empty() && !bundle_pem.ends_with('\n') {
        bundle_pem.push('\n');
    }
    bundle_pem.push_str(session_ca);
    let roots: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bundle_pem.as_bytes()).filter_map(Result::ok).collect();
    let pkcs12 = pkcs12::trust_store(&roots);
    Ok(TrustFiles { bundle_pem, session_pem: session_ca.to_owned(), subject_hash, pkcs12 })
}

/// The system's bundles that exist below `root`, symlinks followed, each once.
pub fn bundles(root: &Path) -> BTreeSet<PathBuf> {
    existing(root, SYSTEM_BUNDLES.iter().map(PathBuf::from))
}

/// The Java stores that exist below `root`, symlinks followed, each once.
pub fn java_stores(root: &Path) -> BTreeSet<PathBuf> {
    let mut places: Vec<PathBuf> = JAVA_STORES.iter().map(PathBuf::from).collect();
    for folder in JVM_FOLDERS {
        for jvm in std::fs::read_dir(below(root, Path::new(folder))).into_iter().flatten().flatten()
        {
            let jvm = Path::new(folder).join(jvm.file_name());
            places.push(jvm.join("lib/security/cacerts"));
            places.push(jvm.join("jre/lib/security/cacerts"));
        }
    }
    existing(root, places.into_iter())
}

/// What the paths lead to below `root`, each once; not what leads out of it.
pub(super) fn existing(root: &Path, paths: impl Iterator<Item = PathBuf>) -> BTreeSet<PathBuf> {
    let Ok(root) = std::fs::canonicalize(root) else { return BTreeSet::new() };
    let real = |path: PathBuf| {
        let real = std::fs::canonicalize(below(&root, &path)).ok()?;
        Some(Path::new("/").join(real.strip_prefix(&root).ok()?))
    };
    paths.filter_map(real).collect()
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The text of the first of the system's bundles that can be read; empty when there is none.
pub fn system_roots() -> String {
    SYSTEM_BUNDLES.iter().find_map(|p| std::fs::read_to_string(p).ok()).unwrap_or_default()
}

/// The variables for runtimes that carry roots of their own. `java_options` is what
/// JAVA_TOOL_OPTIONS held before.
pub fn variables(java_options: Option<&str>) -> Vec<(OsString, OsString)> {
    let path = |name: &str| Path::new(TRUST_DIR).join(name).into_os_string();
    let mut all: Vec<(OsString, OsString)> = [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "AWS_CA_BUNDLE",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "NIX_SSL_CERT_FILE",
    ]
    .into_iter()
    .map(|name| (name.into(), path(BUNDLE)))
    .collect();
    // These two are added to the runtime's own roots.
    all.push(("NODE_EXTRA_CA_CERTS".into(), path(CA)));
    all.push(("DENO_CERT".into(), path(CA)));
    all.push(("SSL_CERT_DIR".into(), path(HASHED_DIR)));
    let store = Path::new(TRUST_DIR).join(STORE);
    let mut java = format!(
        "-Djavax.net.ssl.trustStore={} -Djavax.net.ssl.trustStoreType=PKCS12",
        store.display()
    );
    if let Some(before) = java_options.filter(|o| !o.trim().is_empty()) {
        java = format!("{before} {java}");
    }
    all.push(("JAVA_TOOL_OPTIONS".into(), java.into()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca(name: &str) -> String {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn every_form_holds_the_roots_and_the_session_ca() {
        let (roots, session) = (ca("root"), ca("egret session"));
        let made = files(roots.trim_end(), &session).unwrap();
        assert_eq!(CertificateDer::pem_slice_iter(made.bundle_pem.as_bytes()).count(), 2);
        assert_eq!(made.session_pem, session);
        for pem in [&roots, &session] {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            assert!(memchr::memmem::find(&made.pkcs12, &der).is_some());
        }
        assert_eq!(made.subject_hash.len(), 8);
        assert_eq!(files(&roots, "").unwrap_err(), TrustError::SessionCa);
    }

    #[test]
    fn stores_are_found_below_a_root_each_once() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        file("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
        file("usr/lib/jvm/java-17/lib/security/cacerts");
        std::fs::create_dir_all(root.path().join("etc/pki/tls/certs")).unwrap();
        let linked = root.path().join("etc/pki/tls/certs/ca-bundle.crt");
        symlink("../../ca-trust/extracted/pem/tls-ca-bundle.pem", linked).unwrap();
        symlink("/etc/passwd", root.path().join("etc/pki/tls/cert.pem")).unwrap();
        let found = bundles(root.path());
        let wanted = PathBuf::from("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
        assert_eq!(found, [wanted].into());
        let wanted = PathBuf::from("/usr/lib/jvm/java-17/lib/security/cacerts");
        assert_eq!(java_stores(root.path()), [wanted].into());
    }

    #[test]
    fn java_options_of_the_operator_are_kept() {
        let java = |before| {
            let all = variables(before);
            let (_, value) = all.into_iter().find(|(n, _)| n == "JAVA_TOOL_OPTIONS").unwrap();
            value.into_string().unwrap()
        };
        assert!(java(Some("-Xmx1g")).starts_with("-Xmx1g -Djavax.net.ssl.trustStore=/run/egret/"));
        assert!(java(Some(" ")).starts_with("-Djavax"));
        assert!(java(None).starts_with("-Djavax"));
    }
}

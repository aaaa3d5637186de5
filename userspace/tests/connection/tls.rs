//! Names and certificates on both legs.

use std::sync::Arc;

use egret::audit::Audit;
use egret::inject::CredentialSet;
use egret::policy::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::upstream;
use super::world::{API, World, allow, policy, tls_client};

#[tokio::test]
async fn sni_must_be_the_dialled_name() {
    let up = upstream::https("api.test").await;
    let rules =
        vec![allow("api.test", 443, Protocol::Https), allow("other.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up), ("other.test", &up)]));
    let mut client = world.h1(API, 443, "other.test").await;
    let answer = client.get("other.test", "/x").await;
    assert_eq!(answer.refusal(), (421, "name_mismatch"));
    assert_eq!(up.notes.connections(), 0);
    let control = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
    assert_eq!(control.status, 200);
    assert_eq!(world.records(3).await[0], "connect deny name_mismatch");
}

#[tokio::test]
async fn without_sni_the_dialled_name_counts() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    // A client that is asked for an address sends no name; the leaf is for the dialled name, so
    // this client, which expects the address, refuses it.
    assert!(world.connect_tls(API, 443, "198.18.0.1", b"http/1.1").await.is_err());
    let records = world.records(1).await;
    assert_eq!(records, ["connect deny tls_handshake"]);
}

#[tokio::test]
async fn a_literal_address_is_dialled_by_the_name_that_sni_gives() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut client = world.h1("192.0.2.1", 443, "api.test").await;
    assert_eq!(client.get("api.test", "/x").await.status, 200);
    let mut denied = world.h1("192.0.2.1", 443, "other.test").await;
    assert_eq!(denied.get("other.test", "/x").await.refusal(), (403, "no_rule"));
    assert_eq!(up.notes.lines(), ["GET /x"]);
}

#[tokio::test]
async fn a_bad_upstream_certificate_is_refused_before_anything_is_sent() {
    let good = upstream::https("api.test").await;
    let wrong_name = upstream::https("wrong.test").await;
    for (what, up, ca) in [
        ("wrong name", &wrong_name, &wrong_name.ca),
        ("unknown authority", &good, &wrong_name.ca),
        ("control", &good, &good.ca),
    ] {
        let rules = vec![allow("api.test", 443, Protocol::Https)];
        let mut policy = policy(rules, &[("api.test", up)]);
        policy.upstream.ca = vec![ca.as_str().into()];
        let world = World::new(policy);
        let before = up.notes.lines().len();
        let answer = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
        if what == "control" {
            assert_eq!(answer.status, 200);
            assert_eq!(up.notes.lines().len(), before + 1);
        } else {
            assert_eq!(answer.refusal(), (502, "upstream_certificate"), "{what}");
            assert_eq!(up.notes.lines().len(), before, "{what}");
            let records = world.records(2).await;
            assert_eq!(records, ["request allow", "response note upstream_certificate"]);
        }
    }
}

#[tokio::test]
async fn our_own_authority_is_not_accepted_upstream() {
    let own = Arc::new(upstream::minter("own"));
    let other = Arc::new(upstream::minter("other"));
    for (signer, accepted) in [(&own, false), (&other, true)] {
        let up = upstream::https_by(signer, "api.test").await;
        let rules = vec![allow("api.test", 443, Protocol::Https)];
        // The policy trusts the upstream's authority, whichever it is.
        let policy = policy(rules, &[("api.test", &up)]);
        let world = World::by(&own, policy, CredentialSet::default(), Audit::in_memory());
        let answer = world.h1(API, 443, "api.test").await.get("api.test", "/x").await;
        if accepted {
            assert_eq!(answer.status, 200, "control");
        } else {
            assert_eq!(answer.refusal(), (502, "upstream_certificate"));
            assert!(up.notes.lines().is_empty());
        }
    }
}

#[tokio::test]
async fn pass_through_is_not_opened() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Tls)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    // The client verifies the upstream's own certificate, so nobody stands between.
    let io = world.connect(API, 443);
    let mut io = tls_client(io, &up.ca, "api.test", b"http/1.1").await.unwrap();
    io.write_all(b"GET /x HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = io.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(up.notes.lines(), ["GET /x"]);
    drop(io);
    assert_eq!(world.records(2).await, ["connect allow", "response note"]);
}

#[tokio::test]
async fn a_malformed_hello_closes_that_connection_only() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    let mut other = world.h1(API, 443, "api.test").await;
    let mut bad = world.connect(API, 443);
    bad.write_all(&[0x16, 3, 1, 0, 0, 0xff]).await.unwrap();
    assert_eq!(bad.read(&mut [0; 8]).await.unwrap(), 0, "closed without an answer");
    assert_eq!(world.records(1).await, ["connect deny malformed_tls"]);
    assert_eq!(other.get("api.test", "/x").await.status, 200);
}

#[tokio::test]
async fn an_unknown_protocol_is_not_agreed_on() {
    let up = upstream::https("api.test").await;
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::new(policy(rules, &[("api.test", &up)]));
    assert!(world.connect_tls(API, 443, "api.test", b"h3").await.is_err());
    assert!(world.connect_tls(API, 443, "api.test", b"h2").await.is_ok(), "control");
}

/// A TLS client that sends a GREASE Encrypted ClientHello, which looks like a real one.
async fn greasing(world: &World, ca: &str) -> std::io::Result<impl Sized> {
    use rustls::client::{EchGreaseConfig, EchMode};
    use rustls::crypto::aws_lc_rs::{self, hpke};
    use rustls_pki_types::pem::PemObject;

    let suite = hpke::ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_ech(EchMode::Grease(EchGreaseConfig::new(suite, key)))
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("api.test").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, world.connect(API, 443)).await
}

#[tokio::test]
async fn an_encrypted_hello_is_opened_or_refused_but_never_passed_on() {
    let up = upstream::https("api.test").await;
    let world =
        |protocol| World::new(policy(vec![allow("api.test", 443, protocol)], &[("api.test", &up)]));
    let passing = world(Protocol::Tls);
    assert!(greasing(&passing, &up.ca).await.is_err());
    assert_eq!(passing.records(1).await, ["connect deny encrypted_hello"]);
    assert_eq!(up.notes.connections(), 0);

    let opening = world(Protocol::Https);
    assert!(greasing(&opening, &opening.interceptor.authority_pem()).await.is_ok());
    let control = tls_client(passing.connect(API, 443), &up.ca, "api.test", b"http/1.1").await;
    assert!(control.is_ok());
}

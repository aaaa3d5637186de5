//! What comes back beside bodies: the names of headers, and connections that left HTTP.

use std::sync::Arc;

use super::{host, set};
use crate::inject::Scrubber;
use crate::policy::CredentialKind::Bearer;

fn scrubber() -> Arc<Scrubber> {
    set(&[("b", Bearer, "pa55word-of-b")]).scrubber_for(&host("api.test")).unwrap()
}

#[test]
fn a_header_named_after_a_secret_is_removed() {
    let set = set(&[("a", Bearer, "sk-lower-case-secret")]);
    let scrubber = set.scrubber_for(&host("api.test")).unwrap();
    let mut headers = ::http::HeaderMap::new();
    headers.insert("x-sk-lower-case-secret-y", "1".parse().unwrap());
    headers.insert("x-plain", "sk-lower-case".parse().unwrap());
    assert_eq!(scrubber.headers(&mut headers), 1);
    assert_eq!(headers.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["x-plain"]);
}

/// A connection after a 101: the upstream writes these pieces, with a silence after each.
async fn upgraded(pieces: &[&str]) -> (String, u64) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut upstream, egret) = tokio::io::duplex(1024);
    let hits = Arc::default();
    let mut io = crate::inject::ScrubIo::new(egret, scrubber(), Arc::clone(&hits));
    let mut got = String::new();
    for piece in pieces {
        upstream.write_all(piece.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(n) =
            tokio::time::timeout(std::time::Duration::from_millis(100), io.read(&mut buffer)).await
        {
            got.push_str(std::str::from_utf8(&buffer[..n.unwrap()]).unwrap());
        }
    }
    drop(upstream);
    io.read_to_string(&mut got).await.unwrap();
    (got, hits.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn an_upgraded_connection_is_cleaned_and_does_not_stall() {
    for (pieces, want, hits) in [
        (&["plain text"][..], "plain text", 0),
        // A turn that ends as the secret begins is let go after a moment.
        (&["a pa", "another turn"], "a paanother turn", 0),
        (&["{pa55word-of-b}"], "{*************}", 1),
        // Of what was let go, the rest is still known.
        (&["{pa55", "word-of-b} x"], "{pa55*********} x", 1),
        (&["{p", "a55", "word-", "of-b} x"], "{pa55*********} x", 1),
        (&["p", "p", "a", "pa55word-of-b"], "ppa*************", 1),
        // Beyond a few bytes it waits, however long the silence.
        (&["{pa55word", "-of-b} x"], "{*************} x", 1),
        (&["{pa55word", "-of-c}"], "{pa55word-of-c}", 0),
    ] {
        let (got, found) = upgraded(pieces).await;
        assert_eq!((got.replace(['#', '!', '_'], "*").as_str(), found), (want, hits), "{pieces:?}");
    }
}

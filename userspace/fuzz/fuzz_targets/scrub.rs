//! An answer that repeats secrets: cleaning it in arbitrary pieces gives what cleaning it at once
//! gives, nothing but masks is added, its length stays, and no form of a secret is left in it.
#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use egret::inject::{CredentialSet, HandedOver, ScrubStream, Scrubber, prepare};
use egret::policy::parse::{PresetsOnly, parse};
use egret::policy::{Host, Policy};
use libfuzzer_sys::fuzz_target;

/// An ordinary one, two that begin again inside themselves, and one that is escaped wherever it is
/// written. Each with its base64, as it is in a text of its own.
const SECRETS: [(&str, &str); 4] = [
    ("ghp_0123456789abcdefghijABCDEFGHIJ", "Z2hwXzAxMjM0NTY3ODlhYmNkZWZnaGlqQUJDREVGR0hJSg=="),
    ("aaaaaaaaaaab", "YWFhYWFhYWFhYWFi"),
    ("abcabcabcabd", "YWJjYWJjYWJjYWJk"),
    ("p\"ss/w<rd&1 x", "cCJzcy93PHJkJjEgeA=="),
];
/// What JSON and URLs make of the last.
const ESCAPED: [&str; 2] = ["p\\\"ss/w<rd&1 x", "p%22ss%2Fw%3Crd%261%20x"];

static SCRUBBER: LazyLock<Arc<Scrubber>> = LazyLock::new(scrubber);

fn scrubber() -> Arc<Scrubber> {
    let mut text = String::from("version = 1\n");
    let mut handed = Vec::new();
    for (n, (_, base64)) in SECRETS.iter().enumerate() {
        text += &format!(
            "[credentials.c{n}]\nsecret = \"env:C{n}\"\nhosts = [\"api.test\"]\nheader = {{ name = \"x-{n}\", value = \"{{secret}}\" }}\n"
        );
        handed.push(serde_json::json!({
            "credential": format!("c{n}"),
            "secret": base64,
            "placeholder": format!("egret_c{n}_{:032}", n),
        }));
    }
    let policy: Policy = parse("p", &text, &PresetsOnly).expect("a policy").policy;
    let handed: Vec<HandedOver> =
        serde_json::from_str(&serde_json::Value::from(handed).to_string()).expect("credentials");
    let set = CredentialSet::take_over(&policy, handed).expect("a set");
    let host = Host::parse("api.test").expect("a host");
    let mut parts = http::Request::get("/").body(()).expect("a request").into_parts().0;
    let injection = prepare(&set, &[], &host, &mut parts).expect("an injection");
    Arc::clone(injection.scrubber().expect("secrets are bound to this host"))
}

/// Bytes from 0xf0 on stand for the beginning of a secret, or all of it.
fn answer(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = data;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let forms = SECRETS.iter().flat_map(|(plain, base64)| [*plain, *base64]).chain(ESCAPED);
        let chosen = byte.checked_sub(0xf0).and_then(|n| forms.map(str::as_bytes).nth(n.into()));
        let Some(form) = chosen else {
            out.push(byte);
            continue;
        };
        let length = rest.first().map_or(form.len(), |n| usize::from(*n));
        rest = rest.get(1..).unwrap_or_default();
        out.extend_from_slice(&form[..length.min(form.len())]);
    }
    out
}

fn clean(mut stream: ScrubStream, bytes: &[u8], cuts: &[u8]) -> (Vec<u8>, u64) {
    let (mut out, mut rest) = (Vec::new(), Bytes::copy_from_slice(bytes));
    for cut in cuts {
        let piece = rest.split_to(usize::from(*cut).min(rest.len()));
        out.extend_from_slice(&stream.push(piece));
    }
    out.extend_from_slice(&stream.push(rest));
    out.extend_from_slice(&stream.finish());
    (out, stream.hits())
}

fuzz_target!(|data: &[u8]| {
    let (cuts, data) = egret_fuzz::cut_at_line(data);
    let bytes = answer(data);
    for stream in [ScrubStream::new, ScrubStream::of_part] {
        let whole = clean(stream(Arc::clone(&SCRUBBER)), &bytes, &[]);
        let pieces = clean(stream(Arc::clone(&SCRUBBER)), &bytes, cuts);
        assert_eq!(pieces, whole, "{:?} in pieces of {cuts:?}", bytes.escape_ascii().to_string());
        let (out, hits) = whole;
        assert_eq!(out.len(), bytes.len());
        let changed = out.iter().zip(&bytes).filter(|(o, b)| o != b);
        let masks: std::collections::BTreeSet<u8> = changed.map(|(o, _)| *o).collect();
        assert!(masks.len() <= 1 && (hits > 0) == !masks.is_empty(), "{masks:?} {hits}");
        let forms = SECRETS.iter().map(|(plain, _)| *plain).chain(ESCAPED);
        for form in forms.map(str::as_bytes) {
            assert!(!out.windows(form.len()).any(|w| w == form), "a secret is left");
        }
        for (plain, base64) in SECRETS {
            // The last character may share bits with what follows, and is not part of the secret.
            let sure = &base64.as_bytes()[..plain.len() * 8 / 6];
            assert!(!out.windows(sure.len()).any(|w| w == sure), "the base64 of one is left");
        }
    }
});

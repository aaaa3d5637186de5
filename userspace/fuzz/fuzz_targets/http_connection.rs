//! The bytes of a whole HTTP/1 connection, bodies and pipelined requests included, in arbitrary
//! pieces: what hyper sees behind the strict reader is exactly what the strict reader decided on,
//! request by request, and no request that it did not find begins anywhere in those bytes.
#![no_main]

use std::sync::{Arc, LazyLock};

use egret::http::strict::{Gate, Strict};
use egret_fuzz::http1::{LIMITS, Script, Seen, egret_sees, hyper_sees};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// For the timers that the strict reader has.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// What stands for a malformed head, by its method.
const STAND_IN: &str = "-";

fuzz_target!(|data: &[u8]| {
    let (cuts, bytes) = egret_fuzz::cut_at_line(data);
    // What is in one piece decides whether a malformed body takes its head along.
    let cuts = &cuts[..cuts.len().min(64)];
    let (wanted, malformed) = egret_sees(bytes);
    let gate = Arc::new(Gate::default());
    let wrap = |io| Strict::new(io, LIMITS, Arc::clone(&gate));
    let _inside = RUNTIME.enter();
    let seen = hyper_sees(Script::new(bytes, cuts), wrap, || gate.answered(false));

    for (n, got) in seen.iter().enumerate() {
        if got.method == STAND_IN {
            assert_eq!(n + 1, seen.len(), "something was read behind a malformed head");
            continue;
        }
        match wanted.get(n) {
            Some(want) => assert!(agree(got, want), "hyper sees {got:?}, egret {want:?}"),
            // A head whose chunks turn out malformed later had passed by then; its body fails.
            None => {
                let broken = malformed && n == wanted.len() && got.body.is_none();
                assert!(broken, "hyper sees one more: {got:?} after {wanted:?}");
            }
        }
    }
    // All of them arrive, unless hyper ended the connection as it was asked to.
    let ends = |s: &Seen| {
        let named = |f: &str| s.fields.iter().any(|(n, _)| n == f);
        let old = s.version == http::Version::HTTP_10;
        old || s.method == "CONNECT" || named("connection") || named("upgrade")
    };
    let complete = wanted.iter().take_while(|w| w.body.is_some()).count();
    let expected = wanted.iter().position(ends).map_or(complete, |at| complete.min(at + 1));
    let refused = |s: &Seen| s.target.parse::<http::Uri>().is_err() || s.method.len() > 20;
    let expected = wanted.iter().position(refused).map_or(expected, |at| expected.min(at));
    assert!(seen.len() >= expected.min(8), "hyper sees {seen:?}, egret {wanted:?}");
});

/// As hyper prints a target.
fn uri(text: &str) -> Option<String> {
    text.parse::<http::Uri>().ok().map(|u| u.to_string())
}

fn agree(got: &Seen, want: &Seen) -> bool {
    let sorted = |s: &Seen| {
        let mut fields = s.fields.clone();
        fields.sort();
        fields
    };
    got.method == want.method
        && uri(&got.target) == uri(&want.target)
        && got.version == want.version
        && sorted(got) == sorted(want)
        && (got.body == want.body || want.body.is_none() || got.body.is_none())
        && (got.body.is_none() || got.body == want.body)
}

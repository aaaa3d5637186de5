//! Pure: the forms in which an answer may repeat a secret: plain, base64 at every alignment
//! (standard and URL-safe), URL-escaped and JSON-escaped, and base64 inside the last two.
//!
//! Base64 of a longer text shares its first and last character with the neighbours of the secret;
//! those two are not part of a form, so at most 4 bits at either end of a secret are left.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, percent_encode};
use zeroize::Zeroizing;

use super::credential::Credential;
use super::query::ESCAPED;
use crate::policy::CredentialKind;

/// What JavaScript's `encodeURIComponent` escapes.
const COMPONENT: &AsciiSet =
    &ESCAPED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// Every form of the secret of `credential`.
pub(super) fn of(credential: &Credential) -> Vec<Zeroizing<Vec<u8>>> {
    let secret = credential.secret.expose();
    let mut forms = Forms::default();
    forms.text(secret);
    forms.base64(secret);
    if let CredentialKind::Basic { username } = &credential.spec.kind {
        let pair = Zeroizing::new([username.as_bytes(), b":", secret].concat());
        forms.base64(&pair);
    }
    forms.0
}

#[derive(Default)]
struct Forms(Vec<Zeroizing<Vec<u8>>>);

impl Forms {
    fn add(&mut self, form: impl Into<Vec<u8>>) {
        let form = Zeroizing::new(form.into());
        if !self.0.contains(&form) {
            self.0.push(form);
        }
    }

    /// As it is, and as URLs and JSON write it.
    fn text(&mut self, text: &[u8]) {
        self.add(text);
        for set in [ESCAPED, COMPONENT] {
            let upper = Zeroizing::new(percent_encode(text, set).to_string());
            let lower = Zeroizing::new(lower_hex(&upper));
            for escaped in [upper, lower] {
                // Forms write a space as `+`.
                self.add(escaped.replace("%20", "+"));
                self.add(escaped.as_bytes());
            }
        }
        if let Ok(text) = std::str::from_utf8(text) {
            self.json(text);
        }
    }

    /// Shortest escapes; `/` escaped (PHP); `<`, `>` and `&` escaped (Go); all but ASCII escaped
    /// (Python), and those together.
    fn json(&mut self, text: &str) {
        for slash in [false, true] {
            for html in [false, true] {
                for ascii in [false, true] {
                    for upper in [false, true] {
                        self.add(json(text, slash, html, ascii, upper));
                    }
                }
            }
        }
    }

    /// The characters of its base64 that depend on it alone, wherever it begins in what was
    /// encoded.
    fn base64(&mut self, bytes: &[u8]) {
        for offset in 0..3 {
            let shifted = Zeroizing::new([&[0; 2][..offset], bytes].concat());
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = Zeroizing::new(engine.encode(&*shifted));
                let first = (offset * 8).div_ceil(6);
                let end = shifted.len() * 8 / 6;
                self.text(&encoded.as_bytes()[first..end]);
            }
        }
    }
}

fn lower_hex(escaped: &str) -> String {
    let mut out = String::with_capacity(escaped.len());
    let mut hex = 0;
    for c in escaped.chars() {
        out.push(if hex > 0 { c.to_ascii_lowercase() } else { c });
        hex = if c == '%' { 2 } else { hex.max(1) - 1 };
    }
    out
}

fn json(text: &str, slash: bool, html: bool, ascii: bool, upper: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' if slash => out.push_str("\\/"),
            '<' | '>' | '&' if html => push_unicode(&mut out, c, upper),
            c if ascii && !c.is_ascii() => push_unicode(&mut out, c, upper),
            c => out.push(c),
        }
    }
    out
}

fn push_unicode(out: &mut String, c: char, upper: bool) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        if upper {
            out.push_str(&format!("\\u{unit:04X}"));
        } else {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_forms_are_found_in_whatever_surrounds_the_secret() {
        let secret = b"s3cr3t/+~?value\xc3\xa9";
        let mut forms = Forms::default();
        forms.base64(secret);
        for before in 0..7 {
            for after in 0..7 {
                let text = [&vec![b'<'; before], &secret[..], &vec![b'>'; after]].concat();
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(&text);
                    let hit = forms.0.iter().any(|f| {
                        // All but the two characters that are shared with the neighbours.
                        f.len() + 2 >= secret.len() * 8 / 6
                            && memchr::memmem::find(encoded.as_bytes(), f).is_some()
                    });
                    assert!(hit, "{before} before, {after} after: {encoded}");
                }
            }
        }
    }

    #[test]
    fn escapes() {
        let mut forms = Forms::default();
        forms.text("a b/\"<é🦀".as_bytes());
        for want in [
            "a b/\"<é🦀",
            "a%20b%2F%22%3C%C3%A9%F0%9F%A6%80",
            "a%20b%2f%22%3c%c3%a9%f0%9f%a6%80",
            "a+b%2F%22%3C%C3%A9%F0%9F%A6%80",
            "a b/\\\"<é🦀",
            "a b\\/\\\"<é🦀",
            "a b/\\\"\\u003cé🦀",
            "a b/\\\"<\\u00e9\\ud83e\\udd80",
            "a b/\\\"\\u003C\\u00E9\\uD83E\\uDD80",
        ] {
            assert!(forms.0.iter().any(|f| **f == want.as_bytes()), "{want}");
        }
    }

    #[test]
    fn a_plain_token_has_few_forms() {
        let mut forms = Forms::default();
        forms.text(b"ghp_0123456789abcdef");
        forms.base64(b"ghp_0123456789abcdef");
        assert_eq!(forms.0.len(), 4, "itself and three alignments");
    }
}

//! Pure: how a record becomes one line of text. Every byte of a line is printable ASCII: control
//! characters, escape sequences, line separators, direction overrides and everything else outside
//! 0x20..0x7e become a `\u` escape, so a line cannot be split, and a terminal shows nothing active.
//! The escapes are JSON's own, so a reader gets the original text back.

use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// The longest text a record carries, in bytes; longer ones are cut and say by how much.
pub const TEXT_MAX: usize = 8 * 1024;

/// Compact JSON in printable ASCII.
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(|b| !(0x20..0x7f).contains(&b)) {
            w.write_all(&rest.as_bytes()[..at])?;
            // The byte at `at` starts a character: everything before it was ASCII.
            let Some(c) = rest[at..].chars().next() else { break };
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(w, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        w.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.0.write_char_escape(w, escape)
    }
}

/// Appends `value` to `out` as one line of printable ASCII JSON, without a newline.
pub fn to_ascii_json<T: Serialize>(value: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Ascii(CompactFormatter)))
}

/// `text` for a person's terminal: letters of any script stay, everything that could act on the
/// terminal or reorder the line is shown as `\u{…}`.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

/// Separators, zero-width characters, direction marks and overrides, tags, the byte order mark.
const fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text`, cut to [`TEXT_MAX`] bytes at a character boundary; a cut text says what is missing.
pub fn bounded(text: &str) -> String {
    if text.len() <= TEXT_MAX {
        return text.to_owned();
    }
    let mut end = TEXT_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...(+{} bytes)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ascii(s: &str) -> String {
        let mut out = Vec::new();
        to_ascii_json(&s, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn active_characters_are_escaped() {
        let cases = [
            ("plain", r#""plain""#),
            ("a\r\nb", r#""a\r\nb""#),
            ("\u{1b}[31m", r#""\u001b[31m""#),
            ("\u{7f}", r#""\u007f""#),
            ("\u{9b}31m", r#""\u009b31m""#),
            ("x\u{2028}y\u{2029}", r#""x\u2028y\u2029""#),
            ("\u{202e}txt", r#""\u202etxt""#),
            ("\u{1f600}", r#""\ud83d\ude00""#),
            ("q\"\\", r#""q\"\\""#),
        ];
        for (text, want) in cases {
            assert_eq!(ascii(text), want);
        }
    }

    #[test]
    fn a_terminal_sees_letters_and_nothing_active() {
        assert_eq!(printable("caf\u{e9} \u{1b}[2J\u{202e}"), "caf\u{e9} \\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let text = "\u{e9}".repeat(TEXT_MAX);
        let cut = bounded(&text);
        assert!(cut.len() < TEXT_MAX + 32);
        assert!(cut.ends_with(&format!("(+{TEXT_MAX} bytes)")), "{}", &cut[TEXT_MAX..]);
    }

    proptest! {
        #[test]
        fn any_text_is_one_printable_line_and_comes_back(text in any::<String>()) {
            let line = ascii(&text);
            prop_assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text.clone());
            prop_assert!(!printable(&text).chars().any(|c| c.is_control() || is_format(c)));
        }
    }
}

//! Pure: the words of an `exec:` command, in a small part of the shell's quoting.
//!
//! - Words are separated by spaces and tabs.
//! - `'…'` is literal.
//! - `"…"` is literal except that `\"` and `\\` stand for `"` and `\`.
//! - Outside quotes, `\` makes the next character literal.
//! - Quoted and unquoted parts that touch are one word; `''` is an empty word.
//!
//! Nothing else is special, because no shell runs: `$HOME`, `*`, `~`, `|`, `;` and `>` reach the
//! command as they are written.

/// Why a command could not be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    #[error("a quote is never closed")]
    OpenQuote,
    #[error("it ends in a backslash")]
    LastBackslash,
    #[error("it contains a control character")]
    Control,
}

/// Splits `text` into words.
pub(super) fn split(text: &str) -> Result<Vec<String>, WordsError> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(WordsError::Control);
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => quoted_single(&mut chars, word.get_or_insert_default())?,
            '"' => quoted_double(&mut chars, word.get_or_insert_default())?,
            '\\' => {
                let next = chars.next().ok_or(WordsError::LastBackslash)?;
                word.get_or_insert_default().push(next);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted_single(
    chars: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), WordsError> {
    for c in chars {
        if c == '\'' {
            return Ok(());
        }
        word.push(c);
    }
    Err(WordsError::OpenQuote)
}

fn quoted_double(
    chars: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), WordsError> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => match chars.next() {
                Some(e @ ('"' | '\\')) => word.push(e),
                Some(e) => word.extend(['\\', e]),
                None => return Err(WordsError::OpenQuote),
            },
            other => word.push(other),
        }
    }
    Err(WordsError::OpenQuote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let ok: &[(&str, &[&str])] = &[
            ("", &[]),
            (" a\t b ", &["a", "b"]),
            ("a 'b c' d", &["a", "b c", "d"]),
            (r#"a "b c" d"#, &["a", "b c", "d"]),
            (r#""a\"b\\c\d""#, &[r#"a"b\c\d"#]),
            (r"'a\b'", &[r"a\b"]),
            (r"a\ b \\", &["a b", r"\"]),
            (r#"a'b'"c"d"#, &["abcd"]),
            ("''", &[""]),
            ("echo $HOME * | cat > x; ~", &["echo", "$HOME", "*", "|", "cat", ">", "x;", "~"]),
        ];
        for (text, want) in ok {
            assert_eq!(split(text).unwrap(), *want, "{text}");
        }
        for (text, want) in [
            ("'a", WordsError::OpenQuote),
            ("\"a", WordsError::OpenQuote),
            ("\"a\\", WordsError::OpenQuote),
            ("a\\", WordsError::LastBackslash),
            ("a\nb", WordsError::Control),
        ] {
            assert_eq!(split(text), Err(want), "{text:?}");
        }
    }
}

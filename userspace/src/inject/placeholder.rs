//! Pure: what the agent sees instead of a secret.
//!
//! A shape is literal text and `{N}` for N random characters of `[A-Za-z0-9]`, for example
//! `ghp_{36}`, so that a client that checks the look of a token accepts it. Literals are limited
//! to `[A-Za-z0-9._~-]`: such text reads the same in headers, URLs, JSON and forms, so a
//! placeholder can be found wherever it stands.

/// At least this many random characters (about 95 bits) in all.
pub const MIN_RANDOM: usize = 16;
/// A placeholder's longest length, in bytes.
pub const MAX_LENGTH: usize = 512;

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A checked shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Random(usize),
}

/// Why a text is not a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("in the shape `{0}` a `{{` or `}}` stands alone; write {{N}} for N random characters")]
    Braces(String),
    #[error("in the shape `{0}`, `{{{1}}}` is not a number of characters from 1 to {MAX_LENGTH}")]
    Count(String, String),
    #[error("in the shape `{0}`, `{1}` cannot be used; letters, digits and `. _ ~ -` can")]
    Literal(String, char),
    #[error("the shape `{0}` has {1} random characters and needs at least {MIN_RANDOM}")]
    TooFew(String, usize),
    #[error("the shape `{0}` is longer than {MAX_LENGTH} characters when filled")]
    TooLong(String),
}

impl Shape {
    /// Parses and checks a shape.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('{') {
                let (count, after) =
                    inner.split_once('}').ok_or_else(|| ShapeError::Braces(text.into()))?;
                parts.push(Part::Random(parse_count(text, count)?));
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let (literal, after) = rest.split_at(end);
                check_literal(text, literal)?;
                parts.push(Part::Literal(literal.into()));
                rest = after;
            }
        }
        let shape = Self(parts);
        let random = shape.random_chars();
        if random < MIN_RANDOM {
            return Err(ShapeError::TooFew(text.into(), random));
        }
        if shape.len() > MAX_LENGTH {
            return Err(ShapeError::TooLong(text.into()));
        }
        Ok(shape)
    }

    /// The shape of a credential without `shape`: `egret_<name>_{32}`, with characters that a
    /// shape cannot hold replaced by `-`.
    pub fn default_for(credential: &str) -> Self {
        let name: String =
            credential.chars().take(64).map(|c| if is_literal(c) { c } else { '-' }).collect();
        Self(vec![Part::Literal(format!("egret_{name}_")), Part::Random(32)])
    }

    fn random_chars(&self) -> usize {
        self.0.iter().map(|p| if let Part::Random(n) = p { *n } else { 0 }).sum()
    }

    fn len(&self) -> usize {
        self.0
            .iter()
            .map(|p| match p {
                Part::Literal(l) => l.len(),
                Part::Random(n) => *n,
            })
            .sum()
    }

    /// Fills the shape. `random` fills a buffer with random bytes, or fails.
    pub fn fill<E>(
        &self,
        random: &mut impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<String, E> {
        let mut text = String::with_capacity(self.len());
        for part in &self.0 {
            match part {
                Part::Literal(l) => text.push_str(l),
                Part::Random(n) => {
                    for _ in 0..*n {
                        text.push(random_char(random)?);
                    }
                }
            }
        }
        Ok(text)
    }
}

impl Shape {
    /// Whether the shape could have been filled to this text.
    pub fn fits(&self, text: &str) -> bool {
        let mut rest = text;
        for part in &self.0 {
            let after = match part {
                Part::Literal(l) => rest.strip_prefix(l.as_str()),
                Part::Random(n) => rest
                    .split_at_checked(*n)
                    .filter(|(random, _)| random.bytes().all(|b| ALPHABET.contains(&b)))
                    .map(|(_, after)| after),
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

/// Why no placeholder could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MakeError<E> {
    Overlap,
    Random(E),
}

/// A placeholder of this shape that shares nothing with `secret` (neither contains the other) and
/// none of `taken` (none contains another).
pub fn make<E>(
    shape: &Shape,
    secret: &[u8],
    taken: &[&str],
    mut random: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, MakeError<E>> {
    for _ in 0..8 {
        let text = shape.fill(&mut random).map_err(MakeError::Random)?;
        if is_apart(&text, secret, taken) {
            return Ok(text);
        }
    }
    Err(MakeError::Overlap)
}

/// Whether `text` could have been made by [`make`] with these arguments.
pub fn is_good(shape: &Shape, text: &str, secret: &[u8], taken: &[&str]) -> bool {
    shape.fits(text) && is_apart(text, secret, taken)
}

/// Whether `text` shares nothing with the secret and with other placeholders.
fn is_apart(text: &str, secret: &[u8], taken: &[&str]) -> bool {
    let clash = |other: &[u8]| contains(text.as_bytes(), other) || contains(other, text.as_bytes());
    !clash(secret) && !taken.iter().any(|t| clash(t.as_bytes()))
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(hay, needle).is_some()
}

fn parse_count(shape: &str, text: &str) -> Result<usize, ShapeError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|n| digits && (1..=MAX_LENGTH).contains(n))
        .ok_or_else(|| ShapeError::Count(shape.into(), text.into()))
}

fn check_literal(shape: &str, literal: &str) -> Result<(), ShapeError> {
    match literal.chars().find(|c| !is_literal(*c)) {
        None => Ok(()),
        Some('}') => Err(ShapeError::Braces(shape.into())),
        Some(bad) => Err(ShapeError::Literal(shape.into(), bad)),
    }
}

fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-')
}

/// One character, each equally likely: bytes beyond the largest multiple of 62 are thrown away.
fn random_char<E>(random: &mut impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<char, E> {
    loop {
        let mut byte = [0];
        random(&mut byte)?;
        if byte[0] < 248 {
            return Ok(char::from(ALPHABET[usize::from(byte[0] % 62)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Counts up: 0, 1, 2, …
    fn counter() -> impl FnMut(&mut [u8]) -> Result<(), Infallible> {
        let mut next = 0u8;
        move |buf| {
            for b in buf {
                *b = next;
                next = next.wrapping_add(1);
            }
            Ok(())
        }
    }

    #[test]
    fn shapes_are_filled_as_written() {
        for (shape, want) in [
            ("ghp_{16}", "ghp_ABCDEFGHIJKLMNOP"),
            ("{16}", "ABCDEFGHIJKLMNOP"),
            ("SG.{8}.{8}", "SG.ABCDEFGH.IJKLMNOP"),
            ("{8}{8}-x", "ABCDEFGHIJKLMNOP-x"),
        ] {
            let text = Shape::parse(shape).unwrap().fill(&mut counter()).unwrap();
            assert_eq!(text, want, "{shape}");
        }
        let default = Shape::default_for("my api/κ").fill(&mut counter()).unwrap();
        assert_eq!(default, "egret_my-api--_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef");
    }

    #[test]
    fn bad_shapes_are_told_apart() {
        for (shape, want) in [
            ("", "needs at least 16"),
            ("ghp_", "needs at least 16"),
            ("ghp_{15}", "has 15 random characters"),
            ("ghp_{36", "stands alone"),
            ("ghp_36}", "stands alone"),
            ("ghp_{}", "not a number"),
            ("ghp_{0}", "not a number"),
            ("ghp_{+16}", "not a number"),
            ("ghp_{99999999999999999999}", "not a number"),
            ("{512}x", "longer than 512"),
            ("a b{16}", "` ` cannot be used"),
            ("a\r\n{16}", "cannot be used"),
            ("a/{16}", "`/` cannot be used"),
        ] {
            let e = Shape::parse(shape).expect_err(shape);
            assert!(e.to_string().contains(want), "{shape}: {e}");
        }
    }

    #[test]
    fn never_overlaps_the_secret_or_another() {
        let shape = Shape::parse("ghp_{16}").unwrap();
        let first = "ghp_ABCDEFGHIJKLMNOP";
        for (secret, taken) in [
            (first, &[][..]),
            ("xghp_ABCDEFGHIJKLMNOPx", &[]),
            ("ABCDEFGH", &[]),
            ("unrelated", &[first]),
        ] {
            let made = make(&shape, secret.as_bytes(), taken, counter()).unwrap();
            assert_ne!(made, first, "{secret} {taken:?}");
        }
        assert_eq!(make(&shape, b"unrelated", &[], counter()).unwrap(), first);
        // A secret that is part of the literal can never be avoided.
        let shape = Shape::parse("password{16}").unwrap();
        assert_eq!(make(&shape, b"password", &[], counter()), Err(MakeError::Overlap));
    }

    #[test]
    fn a_text_fits_the_shape_that_made_it_and_no_other() {
        let random = "ABCDEFGHIJKLMNOP";
        for (shape, text, fits) in [
            ("ghp_{16}", format!("ghp_{random}"), true),
            ("{8}.{8}", "ABCDEFGH.IJKLMNOP".into(), true),
            ("{16}", random.into(), true),
            ("{16}-x", format!("{random}-x"), true),
            ("ghp_{16}", format!("gho_{random}"), false),
            ("ghp_{16}", format!("ghp_{random}Q"), false),
            ("ghp_{16}", "ghp_ABC".into(), false),
            ("{8}.{8}", "ABCDEFG.HIJKLMNOP".into(), false),
            ("{16}", "ABCDEFGHIJKLMNO-".into(), false),
            ("{16}", "ABCDEFGHIJKLMNOé".into(), false),
            ("{16}-x", random.into(), false),
            ("{16}", String::new(), false),
        ] {
            assert_eq!(Shape::parse(shape).unwrap().fits(&text), fits, "{shape} {text}");
        }
        let default = Shape::default_for("a b");
        assert!(default.fits(&default.fill(&mut counter()).unwrap()));
    }

    #[test]
    fn a_failing_source_makes_no_placeholder() {
        let shape = Shape::parse("ghp_{16}").unwrap();
        let made = make(&shape, b"unrelated", &[], |_| Err("no entropy"));
        assert_eq!(made, Err(MakeError::Random("no entropy")));
    }

    #[test]
    fn every_character_is_reachable_and_only_those() {
        let mut byte = 0u8;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..248 {
            let c = random_char(&mut |buf: &mut [u8]| {
                buf[0] = byte;
                byte = byte.wrapping_add(1);
                Ok::<(), Infallible>(())
            });
            seen.insert(c.unwrap());
        }
        assert_eq!(seen.len(), 62);
    }
}

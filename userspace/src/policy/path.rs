//! Pure: patterns over request paths.
//!
//! A pattern is matched against the raw path, byte for byte as it is sent, because what was
//! decided must be what is sent. Servers disagree about some spellings (dot segments, encoded
//! separators, `//`, `;` parameters, backslashes): [`ambiguity`] names them. An allow rule with
//! `paths` never matches such a path. A deny rule reads generously instead: see
//! [`PathPattern::forbids`].
//!
//! Grammar: a pattern begins with `/`. A segment is literal text, `*` (one whole segment, not
//! empty), text with `*` in it (any run of characters within that segment), or `**`. A `**` at
//! the end stands for one or more segments, so `/repos/acme/**` matches `/repos/acme/x` and
//! everything deeper, matches `/repos/acme/` (one empty segment), and does not match
//! `/repos/acme`. A `**` before another segment stands for zero or more: `/a/**/z` matches `/a/z`
//! and `/a/b/c/z`.

use std::fmt;

/// A checked path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    /// The same in lower case with `%XX` decoded, for [`PathPattern::forbids`].
    folded: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Vec<u8>),
    /// `*`: exactly one segment, not empty.
    One,
    /// Text with `*` in it: the pieces between the stars; at least two.
    Glob(Vec<Vec<u8>>),
    /// `**`.
    Deep,
}

/// Longest pattern; matching costs at most pattern length times path length.
const LONGEST_PATTERN: usize = 1024;

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says in one clause what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("a path begins with `/`".into());
        }
        if text.len() > LONGEST_PATTERN {
            return Err(format!("a path pattern has at most {LONGEST_PATTERN} bytes"));
        }
        if text.contains(['?', '#']) {
            return Err("a path has no `?` or `#`; queries are not matched".into());
        }
        if let Some(why) = ambiguity(text) {
            return Err(format!("no request can match it, because the path {why}"));
        }
        let segments = text[1..].split('/').map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        if segments.windows(2).any(|w| w[0] == Segment::Deep && w[1] == Segment::Deep) {
            return Err("`**` twice in a row says no more than once".into());
        }
        let folded = segments.iter().map(Segment::folded).collect();
        Ok(Self { text: text.into(), segments, folded })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Strict, for allow rules: the raw path matches and can be read in only one way.
    pub fn matches(&self, path: &str) -> bool {
        ambiguity(path).is_none() && match_path(&self.segments, path.as_bytes())
    }

    /// Generous, for deny and ask rules: an ambiguous path matches; otherwise `%XX` is decoded,
    /// ASCII case is ignored, and a trailing slash more or less makes no difference, since the
    /// server may read it so.
    pub fn forbids(&self, path: &str) -> bool {
        if ambiguity(path).is_some() {
            return true;
        }
        let mut folded = fold(path.as_bytes());
        if match_path(&self.folded, &folded) {
            return true;
        }
        if folded.len() > 1 && folded.ends_with(b"/") {
            folded.pop();
        } else {
            folded.push(b'/');
        }
        match_path(&self.folded, &folded)
    }

    /// Whether everything `other` matches is certainly matched by `self` (may miss some cases).
    pub fn covers(&self, other: &Self) -> bool {
        self.text == other.text || self.text == "/**"
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "**" => Ok(Self::Deep),
            "*" => Ok(Self::One),
            _ if text.contains("**") => {
                Err("`**` must be a whole segment, as in `/a/**`; within a segment use `*`".into())
            }
            _ if text.contains('*') => {
                Ok(Self::Glob(text.split('*').map(|p| p.as_bytes().to_vec()).collect()))
            }
            _ => Ok(Self::Literal(text.as_bytes().to_vec())),
        }
    }

    fn folded(&self) -> Self {
        match self {
            Self::Literal(t) => Self::Literal(fold(t)),
            Self::Glob(pieces) => Self::Glob(pieces.iter().map(|p| fold(p)).collect()),
            Self::One => Self::One,
            Self::Deep => Self::Deep,
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Literal(t) => t == text,
            Self::One => !text.is_empty(),
            Self::Glob(pieces) => match_glob(pieces, text),
            Self::Deep => true,
        }
    }
}

/// The pieces between stars: the first is anchored left, the last right, the others are found
/// leftmost, which is right because each later piece only needs what is left.
fn match_glob(pieces: &[Vec<u8>], text: &[u8]) -> bool {
    let [first, middle @ .., last] = pieces else { return false };
    let Some(mut rest) = text.strip_prefix(&first[..]) else { return false };
    for piece in middle {
        let Some(at) = memchr::memmem::find(rest, piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// Segment-wise matching; on a mismatch only the last `**` takes one segment more, so the cost
/// is at most the product of the two lengths.
fn match_path(pattern: &[Segment], path: &[u8]) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    let (pattern, open_end) = match pattern {
        [head @ .., Segment::Deep] => (head, true),
        all => (all, false),
    };
    let segments: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
    let (mut p, mut s) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len()
            && ((open_end && s < segments.len()) || (!open_end && s == segments.len()))
        {
            return true;
        }
        match pattern.get(p) {
            Some(Segment::Deep) => {
                retry = Some((p + 1, s));
                p += 1;
                continue;
            }
            Some(seg) if s < segments.len() && seg.matches(segments[s]) => {
                p += 1;
                s += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after, at)) if at < segments.len() => {
                retry = Some((after, at + 1));
                (p, s) = (after, at + 1);
            }
            _ => return false,
        }
    }
}

/// Lower case with `%XX` decoded once; only used to compare.
fn fold(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = percent_encoding::percent_decode(text).collect();
    out.make_ascii_lowercase();
    out
}

/// Why servers may disagree about what `path` names; `None` when it has one reading.
pub fn ambiguity(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Some("does not begin with `/`") };
    if path.bytes().any(|b| !b.is_ascii_graphic()) {
        return Some("has a character that must be percent-encoded");
    }
    if path.contains('\\') {
        return Some("has a backslash");
    }
    if path.contains(';') {
        return Some("has a `;` parameter");
    }
    if path.contains(['?', '#']) {
        return Some("has a `?` or `#`");
    }
    if path.contains("//") {
        return Some("has an empty segment (`//`)");
    }
    if rest.split('/').any(|s| s == "." || s == "..") {
        return Some("has a dot segment");
    }
    escapes(path.as_bytes())
}

/// Looks at each `%XX`, through any number of `%25` in front of it.
fn escapes(path: &[u8]) -> Option<&'static str> {
    let mut i = 0;
    while let Some(at) = memchr::memchr(b'%', &path[i..]) {
        let mut digits = &path[i + at + 1..];
        while let Some(deeper) = digits.strip_prefix(b"25") {
            digits = deeper;
        }
        let byte = match digits {
            [h, l, ..] => hex(*h).zip(hex(*l)).map(|(h, l)| h << 4 | l),
            _ => None,
        };
        // `%25` alone is an encoded `%`, which has one reading.
        let encoded_percent = digits.len() < path.len() - (i + at + 1);
        match byte {
            Some(b'.' | b'/' | b'\\') => return Some("has an encoded dot, slash or backslash"),
            Some(b';' | b'?' | b'#') => return Some("has an encoded `;`, `?` or `#`"),
            Some(..0x20 | 0x7f) => return Some("has an encoded control character"),
            Some(0xc0 | 0xc1 | 0xf5..) => return Some("has an encoding that is not UTF-8"),
            None if !encoded_percent => return Some("has a `%` that encodes nothing"),
            _ => {}
        }
        i = path.len() - digits.len();
    }
    None
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn truth_table() {
        for (p, yes, no) in [
            ("/", &["/"][..], &["/a", "", "*"][..]),
            ("/a", &["/a"], &["/a/", "/A", "/ab", "/", "/a/b", "/%61", "a"]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/*", &["/a", "/a.b", "/%20"], &["/", "/a/", "/a/b"]),
            ("/a/*/c", &["/a/b/c"], &["/a//c", "/a/c", "/a/b/b/c", "/a/b/c/"]),
            ("/v*", &["/v", "/v1"], &["/w", "/v1/x", "/"]),
            ("/*.json", &["/a.json", "/.json"], &["/a.jso", "/a/b.json", "/a.json/"]),
            ("/a*b*c", &["/abc", "/aXbXc", "/abbc", "/abcbc"], &["/ab", "/acb", "/a/bc"]),
            ("/a*a", &["/aa", "/aba"], &["/a"]),
            ("/**", &["/", "/a", "/a/", "/a/b/c"], &[""]),
            (
                "/repos/acme/**",
                &["/repos/acme/x", "/repos/acme/x/y", "/repos/acme/", "/repos/acme/x/"],
                &["/repos/acme", "/repos/acmex", "/repos/acme2/x", "/repos", "/repos/Acme/x"],
            ),
            (
                "/a/**/z",
                &["/a/z", "/a/b/z", "/a/b/c/z", "/a/z/z"],
                &["/a", "/a/", "/z", "/a/z/b", "/a/bz"],
            ),
            ("/**/z", &["/z", "/a/z", "/a/b/z"], &["/", "/a", "/z/a"]),
            ("/a/**/m/*/**", &["/a/m/x/y", "/a/q/m/m/x/y", "/a/m/x/"], &["/a/m/x", "/a/m"]),
            ("/x/%7Ea", &["/x/%7Ea"], &["/x/~a", "/x/%7ea"]),
            ("/@scope/*", &["/@scope/a"], &["/@scope%2fa"]),
        ] {
            for path in yes {
                assert!(pattern(p).matches(path), "{p} should match {path}");
                assert!(pattern(p).forbids(path), "{p} should forbid {path}");
            }
            for path in no {
                assert!(!pattern(p).matches(path), "{p} should not match {path}");
            }
        }
    }

    #[test]
    fn ambiguous_paths_match_no_allow_and_every_deny() {
        let all = pattern("/**");
        assert!(all.matches("/a/b"), "control");
        for path in [
            "",
            "*",
            "a",
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/.",
            "//a",
            "/a//b",
            "/a;x=1/b",
            "/a\\b",
            "/%2e%2e/a",
            "/a/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/a%0a",
            "/a b",
            "/é",
            "/a%252fb",
            "/a%25252e",
            "/%",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%u002e",
            "/%c0%ae",
            "/a%3bx",
            "/a%3fx",
            "/a%23x",
            "/a?b",
            "/a#b",
            "/a\0",
            "/a%7f",
        ] {
            assert!(ambiguity(path).is_some(), "{path:?}");
            assert!(!all.matches(path), "{path:?}");
            assert!(pattern("/zzz").forbids(path), "{path:?}");
        }
        for path in [
            "/",
            "/a.b",
            "/...",
            "/a/..b",
            "/%20",
            "/a%25",
            "/a%25x",
            "/a%2520",
            "/%E2%82%ac",
            "/@a/b",
            "/~a:b",
        ] {
            assert_eq!(ambiguity(path), None, "{path:?}");
            assert!(all.matches(path), "{path:?}");
            assert!(!pattern("/zzz").forbids(path), "{path:?}");
        }
    }

    #[test]
    fn deny_reads_generously() {
        for (p, path, want) in [
            ("/admin", "/ADMIN", true),
            ("/admin", "/%61dmin", true),
            ("/admin", "/admin/", true),
            ("/admin/", "/admin", true),
            ("/admin/**", "/admin", true),
            ("/admin/**", "/Admin/%78", true),
            ("/%61dmin/**", "/admin/x", true),
            ("/admin/**", "/administrator", false),
            ("/admin", "/admin/x", false),
        ] {
            assert_eq!(pattern(p).forbids(path), want, "{p} {path}");
        }
    }

    #[test]
    fn bad_patterns() {
        for p in [
            "", "a", "/a//b", "/a/../b", "/a?b", "/a**", "/**a", "/a/**/**", "/%2e", "/a b", "/é",
            "/a\\b", "/***",
        ] {
            assert!(PathPattern::parse(p).is_err(), "{p}");
        }
    }

    proptest! {
        #[test]
        fn strict_match_implies_generous_match(p in "(/(a|b|\\*|\\*\\*|a\\*b)){1,5}", path in "(/(a|b|ab|A|%61|)){1,6}") {
            if let Ok(p) = PathPattern::parse(&p) && p.matches(&path) {
                prop_assert!(p.forbids(&path));
            }
        }

        #[test]
        fn never_panics(p in "\\PC{0,20}|[/*a%2.]{0,12}", path in "\\PC{0,30}|[/*a%2e.]{0,12}") {
            let _ = ambiguity(&path);
            if let Ok(p) = PathPattern::parse(&format!("/{p}")) {
                let _ = (p.matches(&path), p.forbids(&path));
            }
        }
    }
}

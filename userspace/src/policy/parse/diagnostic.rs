//! Pure: what is wrong with a policy, and exactly where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

/// One error or lint. `line` and `column` count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
    pub message: String,
    pub suggestion: Option<String>,
}

/// `file:line:column: message`, and the suggestion on a line of its own.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, suggestion } = self;
        if *line == 0 {
            write!(f, "{file}: {message}")?;
        } else {
            write!(f, "{file}:{line}:{column}: {message}")?;
        }
        match suggestion {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl Location {
    /// A diagnostic at this place.
    pub fn say(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            file: Arc::clone(&self.file),
            line: self.line,
            column: self.column,
            message: message.into(),
            suggestion: None,
        }
    }
}

impl Diagnostic {
    #[must_use]
    pub fn help(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// A diagnostic about a file as a whole, or about a flag.
    pub fn about(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, message: message.into(), suggestion: None }
    }
}

/// What is found while one file is read.
pub(crate) struct Report<'a> {
    file: Arc<str>,
    text: &'a str,
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) lints: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        Self { file: file.into(), text, errors: Vec::new(), lints: Vec::new() }
    }

    pub(crate) fn locate(&self, span: &Range<usize>) -> Location {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Location {
            file: Arc::clone(&self.file),
            line: before.bytes().filter(|&b| b == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    pub(crate) fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let found = self.locate(span).say(message);
        self.errors.push(found);
    }

    pub(crate) fn error_help(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let found = self.locate(span).say(message).help(help);
        self.errors.push(found);
    }

    pub(crate) fn lint(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let found = self.locate(span).say(message);
        self.lints.push(found);
    }

    /// An error about a word that should be one of `known`.
    pub(crate) fn unknown(&mut self, span: &Range<usize>, what: &str, word: &str, known: &[&str]) {
        let message = format!("unknown {what} `{}`", word.escape_debug());
        let help = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of: {}", known.join(", ")),
        };
        self.error_help(span, message, help);
    }

    /// After a syntax error the rest of the file may have been misread: only the syntax errors
    /// stand. Answers whether there are any.
    pub(crate) fn keep_real(&mut self) -> bool {
        let any = self.errors.iter().any(is_syntax);
        if any {
            self.errors.retain(is_syntax);
        }
        any
    }

    pub(crate) fn not_yet(&mut self, span: &Range<usize>, what: &str) {
        self.error(span, format!("{what} is not yet supported"));
    }
}

/// How errors of TOML itself begin.
pub(crate) const SYNTAX: &str = "not valid TOML: ";

pub(crate) fn is_syntax(found: &Diagnostic) -> bool {
    found.message.starts_with(SYNTAX)
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase();
    let (distance, best) = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .min_by_key(|(d, _)| *d)?;
    let related = lower.len() > 2 && (best.starts_with(&lower) || lower.starts_with(best));
    (distance <= 1 + word.len() / 4 || related).then_some(best)
}

/// The place of a byte offset in a text.
pub fn locate(file: &str, text: &str, offset: usize) -> Location {
    Report::new(file, text).locate(&(offset..offset))
}

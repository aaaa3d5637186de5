//! Pure: reads one TOML table with its spans, and reports whatever is not as it should be.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Report, SYNTAX};

/// A value and where it stands.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// A string and where it stands.
pub(crate) type Text<'a> = (&'a str, Range<usize>);

/// A table being read.
#[derive(Clone)]
pub(crate) struct Reader<'a, 'i> {
    pub(crate) table: &'a DeTable<'i>,
    pub(crate) span: Range<usize>,
}

/// The table of a whole file. Syntax errors are reported, and what could be read goes on.
pub(crate) fn file_table<'t>(
    text: &'t str,
    report: &mut Report<'_>,
) -> (DeTable<'t>, Range<usize>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    for e in errors {
        let span = e.span().unwrap_or(0..0);
        report.error(&span, format!("{SYNTAX}{}", e.message().replace('\n', ", ")));
    }
    let span = table.span();
    (table.into_inner(), span)
}

impl<'a, 'i> Reader<'a, 'i> {
    /// The table in `value`; reports if it is something else.
    pub(crate) fn of(value: &'a Value<'i>, what: &str, report: &mut Report<'_>) -> Option<Self> {
        match value.get_ref().as_table() {
            Some(table) => Some(Self { table, span: value.span() }),
            None => {
                expected(report, value, what, "a table");
                None
            }
        }
    }

    /// Reports each key that is not in `known`; those in `later` as not yet supported.
    pub(crate) fn only(&self, what: &str, known: &[&str], later: &[&str], report: &mut Report<'_>) {
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if later.contains(&name) {
                report.not_yet(&key.span(), &format!("`{name}` in {what}"));
            } else if !known.contains(&name) {
                report.unknown(&key.span(), &format!("key in {what}"), name, known);
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value<'i>> {
        self.table.iter().find(|(k, _)| *k.get_ref() == key).map(|(_, v)| v)
    }

    /// Where the key itself stands.
    pub(crate) fn key_span(&self, key: &str) -> Range<usize> {
        self.table
            .keys()
            .find(|k| *k.get_ref() == key)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    pub(crate) fn missing(&self, what: &str, key: &str, help: &str, report: &mut Report<'_>) {
        report.error_help(&self.span, format!("{what} has no `{key}`"), help);
    }

    /// A string that is not empty and has no control characters.
    pub(crate) fn text(&self, key: &str, report: &mut Report<'_>) -> Option<Text<'a>> {
        let value = self.get(key)?;
        text_of(value, &format!("`{key}`"), report)
    }

    /// A list of strings that is not empty.
    pub(crate) fn texts(&self, key: &str, report: &mut Report<'_>) -> Option<Vec<Text<'a>>> {
        let what = format!("each of `{key}`");
        Some(self.list(key, report)?.iter().filter_map(|v| text_of(v, &what, report)).collect())
    }

    /// A list that is not empty.
    pub(crate) fn list(&self, key: &str, report: &mut Report<'_>) -> Option<&'a [Value<'i>]> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let found = report.locate(&value.span()).say(format!(
                "`{key}` must be a list, not {}",
                article(value.get_ref().type_str())
            ));
            let source = match value.get_ref() {
                DeValue::String(s) => Some(format!("\"{s}\"")),
                DeValue::Integer(n) => Some(n.to_string()),
                _ => None,
            };
            report.errors.push(match source {
                Some(s) => found.help(format!("write {key} = [{s}]")),
                None => found,
            });
            return None;
        };
        if array.is_empty() {
            report.error_help(
                &value.span(),
                format!("`{key}` is an empty list, which allows nothing and never means \"all\""),
                format!("name at least one, or leave `{key}` out"),
            );
            return None;
        }
        Some(array)
    }

    /// The tables of `[[key]]`, each called `what` in errors.
    pub(crate) fn tables(&self, key: &str, what: &str, report: &mut Report<'_>) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            let help = format!("write [[{key}]] with two brackets: there can be several");
            report.error_help(&value.span(), format!("`{key}` must be a list of tables"), help);
            return Vec::new();
        };
        list.iter().filter_map(|v| Reader::of(v, what, report)).collect()
    }

    /// A table under `key`.
    pub(crate) fn table(&self, key: &str, report: &mut Report<'_>) -> Option<Self> {
        Reader::of(self.get(key)?, &format!("`{key}`"), report)
    }
}

/// A string that is not empty and has no control characters.
pub(crate) fn text_of<'a>(
    value: &'a Value<'_>,
    what: &str,
    report: &mut Report<'_>,
) -> Option<Text<'a>> {
    let Some(text) = value.get_ref().as_str() else {
        expected(report, value, what, "a string");
        return None;
    };
    if text.is_empty() {
        report.error(&value.span(), format!("{what} is empty"));
        return None;
    }
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        report.error(&value.span(), format!("{what} has a control character"));
        return None;
    }
    Some((text, value.span()))
}

/// A whole number in `range`.
pub(crate) fn integer_of(
    value: &Value<'_>,
    what: &str,
    range: std::ops::RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let Some(int) = value.get_ref().as_integer() else {
        expected(report, value, what, "a whole number");
        return None;
    };
    let parsed = u64::from_str_radix(int.as_str(), int.radix()).ok();
    let found = parsed.filter(|n| range.contains(n));
    if found.is_none() {
        let (low, high) = (range.start(), range.end());
        report.error(&value.span(), format!("{what} must be from {low} to {high}"));
    }
    found
}

/// Reports that `value` has the wrong type.
pub(crate) fn expected(report: &mut Report<'_>, value: &Value<'_>, what: &str, want: &str) {
    let got = article(value.get_ref().type_str());
    report.error(&value.span(), format!("{what} must be {want}, not {got}"));
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

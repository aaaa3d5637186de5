//! How subcommands print: colour only on a terminal, JSON as one line per value, tables whose
//! columns line up. Text of an agent is made harmless before it reaches a terminal.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::audit::line::{printable, to_ascii_json};

/// The colours that subcommands use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// For standard output: colour on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn stdout() -> Self {
        Self { colour: io::stdout().is_terminal() && wants_colour() }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Self {
        Self { colour: io::stderr().is_terminal() && wants_colour() }
    }

    /// `text`, made harmless and coloured.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        let text = printable(text);
        let code = match colour {
            Colour::Plain => return text,
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text }
    }
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Says what went wrong on standard error; the exit code is returned for whoever has to end.
pub(crate) fn fail(style: Style, message: &str, code: u8) -> ExitCode {
    say(style, Colour::Red, "error", message);
    ExitCode::from(code)
}

/// A message for a person on standard error.
pub(crate) fn say(style: Style, colour: Colour, what: &str, message: &str) {
    let mut err = io::stderr().lock();
    // Nobody is left to tell when stderr is closed.
    let _ = write!(err, "{} ", style.paint(colour, &format!("egret: {what}:")));
    for (i, line) in message.lines().enumerate() {
        let indent = if i == 0 { "" } else { "  " };
        let _ = writeln!(err, "{indent}{}", style.paint(Colour::Plain, line));
    }
}

/// Prints `value` as one line of ASCII JSON.
pub(crate) fn json_line<T: Serialize>(out: &mut dyn Write, value: &T) -> io::Result<()> {
    let mut line = Vec::new();
    to_ascii_json(value, &mut line)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// A cell of a table.
pub(crate) type Cell = (Colour, String);

/// Prints rows with columns that line up; the last column is as long as it is. `least` gives
/// the smallest widths, so that tables printed one after another agree.
pub(crate) fn table(
    out: &mut dyn Write,
    style: Style,
    least: &[usize],
    rows: &[Vec<Cell>],
) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| {
        let cells = rows.iter().filter_map(|r| r.get(c));
        let longest = cells.map(|(_, t)| printable(t).chars().count()).max().unwrap_or(0);
        longest.max(least.get(c).copied().unwrap_or(0))
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (c, (colour, text)) in row.iter().enumerate() {
            out.write_all(style.paint(*colour, text).as_bytes())?;
            if c + 1 < row.len() {
                let pad = widths[c].saturating_sub(printable(text).chars().count()) + 2;
                write!(out, "{:pad$}", "")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_active_is_printed() {
        let rows = vec![
            vec![(Colour::Bold, "a".to_owned()), (Colour::Red, "one".to_owned())],
            vec![(Colour::Plain, "b\u{1b}[2J".to_owned()), (Colour::Plain, "two".to_owned())],
        ];
        let mut out = Vec::new();
        table(&mut out, Style { colour: false }, &[], &rows).unwrap();
        let want = "a           one\nb\\u{1b}[2J  two\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn colour_only_where_asked_for() {
        assert_eq!(Style { colour: true }.paint(Colour::Red, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Style { colour: false }.paint(Colour::Red, "x"), "x");
    }
}

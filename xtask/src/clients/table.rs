//! Pure: the table of clients: read from what was played, printed, written into the document and
//! compared with it.

use anyhow::{Context, Result};
use serde_json::Value;

const BEGIN: &str = "<!-- clients: begin -->\n";
const END: &str = "<!-- clients: end -->\n";
const HEAD: &str = "| client | from | its call, the key attached by egret | what it shows of a refusal | trusts the session's authority by |\n|---|---|---|---|---|\n";

/// What the run was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Every client.
    pub(super) all: bool,
    /// To install what is missing.
    pub(super) install: bool,
}

/// What became of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    client: String,
    from: String,
    status: String,
    detail: String,
    call: String,
    shows: String,
    trust: String,
}

impl Line {
    pub(super) fn works(&self) -> bool {
        self.status == "works"
    }

    pub(super) fn is_missing(&self) -> bool {
        self.status == "missing"
    }
}

/// The lines among what was printed that are about clients.
pub(super) fn lines(printed: &str) -> Result<Vec<Line>> {
    printed.lines().filter(|l| l.starts_with('{')).map(line).collect()
}

fn line(text: &str) -> Result<Line> {
    let value: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let field = |name: &str| {
        value[name].as_str().map(str::to_owned).with_context(|| format!("{text} has no {name}"))
    };
    Ok(Line {
        client: field("client")?,
        from: field("from")?,
        status: field("status")?,
        detail: field("detail")?,
        call: field("call")?,
        shows: field("shows")?,
        trust: field("trust")?,
    })
}

/// For a terminal.
pub(super) fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let what = match line.status.as_str() {
            "works" => format!("{}; a refusal shows `{}`", line.call, line.shows),
            "missing" => format!("NOT INSTALLED: {}", line.detail),
            _ => line.detail.replace('\n', "\n          "),
        };
        out.push_str(&format!("{:8}  {:28} {what}\n", line.status, line.client));
    }
    let count = |status: &str| lines.iter().filter(|l| l.status == status).count();
    let (works, missing) = (count("works"), count("missing"));
    let broken = lines.len() - works - missing;
    out.push_str(&format!("{works} work, {broken} broken, {missing} not installed\n"));
    out
}

fn row(line: &Line) -> String {
    let Line { client, from, call, shows, trust, .. } = line;
    format!("| {client} | {from} | {call} | `{shows}` | {trust} |\n")
}

/// The document with this table.
pub(super) fn replaced(document: &str, lines: &[Line]) -> Result<String> {
    let (before, _, after) = parts(document)?;
    let rows: String = lines.iter().map(row).collect();
    Ok(format!("{before}{BEGIN}{HEAD}{rows}{END}{after}"))
}

/// What is worse than the document says, and what it says that is no longer so.
pub(super) fn compare(document: &str, lines: &[Line], asked: Asked) -> Result<Vec<String>> {
    let (_, committed, _) = parts(document)?;
    let played = |row: &str| lines.iter().any(|l| row.starts_with(&format!("| {} |", l.client)));
    let gone = committed.lines().skip(2).filter(|row| asked.all && !played(row));
    let gone = gone.map(|row| format!("in the table, and not played: {row}"));
    let worse = |line: &Line| match line.status.as_str() {
        "works" if committed.contains(&row(line)) => None,
        "works" => Some(format!("{}: not in the table, or changed: --write", line.client)),
        "missing" if asked.install => {
            Some(format!("{}: {} could not be installed", line.client, line.detail))
        }
        "missing" => None,
        _ => Some(format!("{}: {}", line.client, line.detail)),
    };
    Ok(lines.iter().filter_map(worse).chain(gone).collect())
}

fn parts(document: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) =
        document.split_once(BEGIN).context("the document has no table of clients")?;
    let (table, after) = rest.split_once(END).context("the table of clients has no end")?;
    Ok((before, table, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(status: &str) -> Vec<Line> {
        let text = format!(
            "egret: building\n{{\"client\":\"curl\",\"from\":\"Debian\",\"status\":\"{status}\",\
             \"detail\":\"d\",\"call\":\"GET\",\"shows\":\"no_rule\",\"trust\":\"bundle\"}}\n"
        );
        lines(&text).unwrap()
    }

    #[test]
    fn the_document_is_replaced_and_compared() {
        let document = format!("a\n{BEGIN}old\n{END}b\n");
        let works = played("works");
        let asked = Asked { all: true, install: false };
        assert_eq!(compare(&document, &works, asked).unwrap().len(), 1, "not in the table");
        let new = replaced(&document, &works).unwrap();
        assert!(new.starts_with("a\n") && new.ends_with("b\n") && !new.contains("old"));
        assert_eq!(compare(&new, &works, asked).unwrap(), [""; 0]);
        assert_eq!(
            compare(&new, &played("missing"), asked).unwrap(),
            [""; 0],
            "a skip is counted, not worse"
        );
        let install = Asked { install: true, ..asked };
        assert_eq!(compare(&new, &played("missing"), install).unwrap().len(), 1);
        assert_eq!(compare(&new, &played("broken"), asked).unwrap(), ["curl: d"]);
        assert_eq!(compare(&new, &[], asked).unwrap().len(), 1, "it is gone from the catalogue");
        assert!(compare(&new, &[], Asked::default()).unwrap().is_empty());
        assert!(compare("no table", &works, asked).is_err());
    }
}

//! Pure: how a policy names a secret.

use std::path::PathBuf;

use super::words;

/// A checked reference. Kinds whose machinery comes later are refused by [`SecretRef::parse`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `env:NAME`: the operator's environment; removed from the agent's.
    Env(String),
    /// `file:PATH`: absolute; 0600 or stricter, owned by root or the operator.
    File(PathBuf),
    /// `exec:CMD ARGS`: the command's words, never empty; one JSON request on stdin, one JSON
    /// answer on stdout.
    Exec(Vec<String>),
}

/// Why a text is not a usable secret reference.
///
/// `text` is safe to print: where the text might be a secret that somebody pasted in place of a
/// reference, it holds `…` instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a usable secret reference: {why}")]
pub struct SecretRefError {
    pub text: String,
    pub why: String,
    /// The kind is known and its machinery does not exist yet.
    pub not_yet_supported: bool,
}

/// The kinds that [`SecretRef::parse`] accepts, as messages name them.
const USABLE: &str = "env:NAME, file:/PATH or exec:COMMAND";
/// Known kinds that are refused until they work.
const LATER: [&str; 4] = ["fd", "systemd", "store", "vault"];

impl SecretRef {
    /// Parses `KIND:REST`.
    ///
    /// `env:` wants a variable name (`[A-Za-z_][A-Za-z0-9_]*`), `file:` an absolute path that is
    /// taken literally (no `~`, no variables), `exec:` a command in the quoting of
    /// [`words::split`].
    pub fn parse(text: &str) -> Result<Self, SecretRefError> {
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(hidden(format!(
                "it has no kind; write {USABLE}. If this is the secret itself, \
                 move it to a variable or a file and name that"
            )));
        };
        match kind {
            "env" => parse_env(text, rest),
            "file" => parse_file(text, rest),
            "exec" => parse_exec(text, rest),
            later if LATER.contains(&later) => Err(SecretRefError {
                text: text.into(),
                why: format!("{later}: is not yet supported; use {USABLE}"),
                not_yet_supported: true,
            }),
            _ => Err(hidden(unknown_kind(kind))),
        }
    }
}

fn parse_env(text: &str, name: &str) -> Result<SecretRef, SecretRefError> {
    let head = name.bytes().next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic());
    if head && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
        return Ok(SecretRef::Env(name.into()));
    }
    let why = match name.strip_prefix('$') {
        // What follows is not repeated: it may be what the variable holds.
        Some(_) => "write the variable's name alone, without the `$`",
        None => "env: takes a variable name of letters, digits and `_`",
    };
    Err(shown(text, why.into()))
}

fn parse_file(text: &str, path: &str) -> Result<SecretRef, SecretRefError> {
    if path.contains('\0') {
        return Err(shown(text, "a path cannot contain a NUL".into()));
    }
    if path.starts_with('/') && !path.ends_with('/') {
        return Ok(SecretRef::File(path.into()));
    }
    let why = if path.starts_with('~') {
        "`~` is not expanded; write the whole path from `/`"
    } else if path.starts_with('/') {
        "the path names a folder, not a file"
    } else {
        "file: takes a whole path that starts with `/`"
    };
    Err(shown(text, why.into()))
}

fn parse_exec(text: &str, command: &str) -> Result<SecretRef, SecretRefError> {
    let words = words::split(command).map_err(|e| shown(text, e.to_string()))?;
    match words.first() {
        None => Err(shown(text, "exec: takes a command".into())),
        Some(program) if program.is_empty() => Err(shown(text, "the command is empty".into())),
        // A relative path would depend on the working folder, which the agent may write.
        Some(program) if program.contains('/') && !program.starts_with('/') => Err(shown(
            text,
            "write the command's whole path, or a bare name that is on the system's PATH".into(),
        )),
        Some(_) => Ok(SecretRef::Exec(words)),
    }
}

fn unknown_kind(kind: &str) -> String {
    let mut known = ["env", "file", "exec"].into_iter().chain(LATER);
    let near = known.find(|k| strsim::damerau_levenshtein(k, kind) <= 2);
    match near {
        Some(near) => format!("its kind is not known; did you mean {near}: ? Write {USABLE}"),
        None => format!("its kind is not known; write {USABLE}"),
    }
}

fn shown(text: &str, why: String) -> SecretRefError {
    SecretRefError { text: text.into(), why, not_yet_supported: false }
}

fn hidden(why: String) -> SecretRefError {
    shown("…", why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts() {
        let exec = |w: &[&str]| SecretRef::Exec(w.iter().map(|s| (*s).into()).collect());
        for (text, want) in [
            ("env:GITHUB_TOKEN", SecretRef::Env("GITHUB_TOKEN".into())),
            ("env:_x1", SecretRef::Env("_x1".into())),
            ("file:/run/secrets/a b", SecretRef::File("/run/secrets/a b".into())),
            ("file:/a:b", SecretRef::File("/a:b".into())),
            ("exec:gh auth token", exec(&["gh", "auth", "token"])),
            ("exec:/usr/bin/op read 'op://a b/c'", exec(&["/usr/bin/op", "read", "op://a b/c"])),
        ] {
            assert_eq!(SecretRef::parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_and_says_why() {
        for (text, why) in [
            ("", "it has no kind"),
            ("env:", "env: takes a variable name"),
            ("env:$TOKEN", "write the variable's name alone, without the `$`"),
            ("env:1A", "env: takes a variable name"),
            ("env:A B", "env: takes a variable name"),
            ("env:A=B", "env: takes a variable name"),
            ("file:", "starts with `/`"),
            ("file:secrets/x", "starts with `/`"),
            ("file:~/x", "`~` is not expanded"),
            ("file:/etc/", "names a folder"),
            ("file:/a\0b", "NUL"),
            ("exec:", "takes a command"),
            ("exec:   ", "takes a command"),
            ("exec:''", "the command is empty"),
            ("exec:./get-token", "whole path"),
            ("exec:op 'read", "never closed"),
            ("files:/x", "did you mean file:"),
            ("https://x", "its kind is not known"),
        ] {
            let e = SecretRef::parse(text).expect_err(text);
            assert!(e.to_string().contains(why), "{text}: {e}");
            assert!(!e.not_yet_supported, "{text}");
        }
    }

    #[test]
    fn kinds_to_come_are_named_as_such() {
        for text in ["fd:3", "systemd:github", "store:github", "vault:kv/github#token"] {
            let e = SecretRef::parse(text).expect_err(text);
            assert!(e.not_yet_supported, "{text}");
            assert!(e.to_string().contains("not yet supported"), "{e}");
        }
    }

    #[test]
    fn a_pasted_secret_is_not_repeated() {
        for text in ["ghp_0123456789abcdef", "user:0123456789abcdef"] {
            let e = SecretRef::parse(text).expect_err(text);
            assert!(!format!("{e} {e:?}").contains("0123456789"), "{e:?}");
        }
    }
}

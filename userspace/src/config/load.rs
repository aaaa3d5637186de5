//! A policy that is complete, or everything that is wrong with it.

use std::fmt::Write as _;
use std::path::Path;

use super::PolicyArgs;
use crate::policy::Policy;
use crate::policy::parse::Diagnostic;

/// A policy that is complete, and what `check` would warn of.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub policy: Policy,
    pub lints: Vec<Diagnostic>,
}

/// Why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No policy was named.
    #[error(
        "no policy: everything would be refused. Name one, for example\n  \
         --policy policies/coding-agent-github.toml      (or EGRET_POLICY=FILE)\n  \
         --allow 'GET,HEAD api.github.com/repos/acme/**' --bearer api.github.com=env:GITHUB_TOKEN\n\
         A policy is never picked up from the working folder, which the agent may write."
    )]
    NoPolicy,
    /// Everything that is wrong, in order.
    #[error("{}", listed(.0))]
    Invalid(Vec<Diagnostic>),
}

impl LoadError {
    /// The single errors, for machines.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::NoPolicy => vec![Diagnostic::about("egret", "no policy was named")],
            Self::Invalid(found) => found.clone(),
        }
    }
}

fn listed(found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for (i, d) in found.iter().enumerate() {
        let _ = write!(out, "{}{d}", if i == 0 { "" } else { "\n" });
    }
    out
}

/// Reads, parses and completes a policy file.
///
/// # Errors
/// Every error in it, in the files it uses and in its CA files.
pub fn load_policy(path: &Path) -> Result<Loaded, LoadError> {
    PolicyArgs { policy: Some(path.to_owned()), ..PolicyArgs::default() }.load()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const USED: &str =
        "version = 1\n[[rule]]\nname = \"r\"\naction = \"allow\"\nhosts = [\"x.test\"]\n";

    #[test]
    fn files_are_used_relative_to_the_policy_and_once() {
        let dir = folder(&[
            ("p.toml", "version = 1\nuse = [\"a.toml\", \"b.toml\", \"npm-readonly\"]\n"),
            ("a.toml", "version = 1\nuse = [\"c.toml\"]\n"),
            ("b.toml", "version = 1\nuse = [\"./c.toml\"]\n"),
            ("c.toml", USED),
        ]);
        let loaded = load_policy(&dir.path().join("p.toml")).unwrap();
        let names: Vec<&str> = loaded.policy.rules.iter().map(|r| &*r.name).collect();
        assert_eq!(names, ["c: r", "npm-readonly: packages"]);
        assert_eq!(&*loaded.policy.name, "p");
    }

    #[test]
    fn circles_missing_files_and_bad_presets_are_errors_where_they_stand() {
        let dir = folder(&[
            ("p.toml", "version = 1\nuse = [\"a.toml\", \"nope.toml\", \"npm-readonl\"]\n"),
            ("a.toml", "version = 1\nuse = [\"b.toml\"]\n"),
            ("b.toml", "version = 1\nuse = [\"a.toml\"]\n"),
        ]);
        let text = load_policy(&dir.path().join("p.toml")).unwrap_err().to_string();
        assert!(text.contains("b.toml:2:8: `a.toml` is used in a circle"), "{text}");
        assert!(text.contains("p.toml:2:18: `nope.toml` cannot be opened"), "{text}");
        assert!(text.contains("did you mean `npm-readonly`?"), "{text}");
    }

    #[test]
    fn ca_files_are_read_and_checked() {
        let ca = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap().cert.pem();
        let dir = folder(&[
            ("good.toml", "version = 1\n[upstream]\nca = [\"ca.pem\"]\n"),
            ("bad.toml", "version = 1\n[upstream]\nca = [\"none.pem\", \"bad.toml\"]\n"),
            ("ca.pem", &ca),
        ]);
        let loaded = load_policy(&dir.path().join("good.toml")).unwrap();
        assert_eq!(&*loaded.policy.upstream.ca[0], ca.as_str());
        let errors = load_policy(&dir.path().join("bad.toml")).unwrap_err().diagnostics();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].message.contains("no certificate"), "{errors:?}");
    }

    #[test]
    fn unreadable_files_say_so() {
        let dir = folder(&[("binary.toml", "")]);
        fs::write(dir.path().join("binary.toml"), [0xff, 0xfe]).unwrap();
        let e = |n: &str| load_policy(&dir.path().join(n)).unwrap_err().to_string();
        assert!(e("none.toml").contains("cannot be opened"));
        assert!(e("binary.toml").contains("not UTF-8"));
        assert!(load_policy(Path::new("/dev/zero")).unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn a_file_anyone_may_write_is_warned_of() {
        let dir = folder(&[("p.toml", USED)]);
        let path = dir.path().join("p.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_policy(&path).unwrap().lints.is_empty());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(load_policy(&path).unwrap().lints.len(), 1);
    }
}

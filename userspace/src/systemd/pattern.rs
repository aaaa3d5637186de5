//! Pure: which unit names a drop-in of systemd can be for.
//!
//! systemd reads `ci-build.service.d/`, `ci-.service.d/` and, for an instance, `agent@.service.d/`
//! (systemd.unit(5)). So a pattern may have its one `*` behind a dash or an `@`, at the end of the
//! name, and nowhere else.

use std::fmt;
use std::str::FromStr;

/// The kinds of units that hold processes and that egret can be told to attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Service,
    Scope,
    Slice,
}

impl Kind {
    /// The end of the unit's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Scope => "scope",
            Self::Slice => "slice",
        }
    }

    /// The section of its settings.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Scope => "Scope",
            Self::Slice => "Slice",
        }
    }
}

/// A unit, or the units whose names begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The name before the kind; with a star at its end or without.
    stem: String,
    pub kind: Kind,
}

/// A pattern and the agent that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governed {
    pub agent: String,
    pub pattern: Pattern,
}

/// Why a text is no pattern for a drop-in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("`{0}` is not the name of a unit: letters, digits and `:-_.@` only")]
    Name(String),
    #[error("`{0}`: a unit of this kind cannot be held; expected .service, .scope or .slice")]
    Kind(String),
    #[error(
        "`{0}`: systemd has drop-ins for names that begin alike up to a dash (`ci-*.service`) or an \
         `@` (`agent@*.service`); name the units one by one, or put them into a slice"
    )]
    Star(String),
    #[error("`{0}` would hold egret itself, or all of the machine")]
    Machine(String),
    #[error("`{0}` is not the name of an agent: letters, digits and `-_.` only")]
    Agent(String),
}

/// Units that egret runs in or depends on.
const MACHINE: &[&str] =
    &["egret.service", "-.slice", "system.slice", "init.scope", "system-*.slice"];

impl FromStr for Pattern {
    type Err = PatternError;

    /// `ci-*.service`, `agent@*.service`, `triage.service`, `team.slice`; without a kind it is a
    /// service.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (stem, kind) = match text.rsplit_once('.') {
            Some((stem, "service")) => (stem, Kind::Service),
            Some((stem, "scope")) => (stem, Kind::Scope),
            Some((stem, "slice")) => (stem, Kind::Slice),
            Some((_, other)) if OTHER_KINDS.contains(&other) => {
                return Err(PatternError::Kind(text.into()));
            }
            _ => (text, Kind::Service),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.@".contains(c);
        let name = stem.strip_suffix('*').unwrap_or(stem);
        // 255 is the longest name of a unit; the folder of a drop-in has two letters more.
        let longest = 240 - 1 - kind.suffix().len();
        if name.is_empty() || stem.len() > longest || !name.chars().all(|c| plain(c) || c == '*') {
            return Err(PatternError::Name(text.into()));
        }
        if name.contains('*') || (stem.ends_with('*') && !name.ends_with(['-', '@'])) {
            return Err(PatternError::Star(text.into()));
        }
        let pattern = Self { stem: stem.into(), kind };
        if MACHINE.contains(&&*pattern.to_string()) {
            return Err(PatternError::Machine(text.into()));
        }
        Ok(pattern)
    }
}

/// Kinds that systemd knows and that hold no agents.
const OTHER_KINDS: &[&str] =
    &["socket", "device", "mount", "automount", "swap", "target", "path", "timer", "snapshot"];

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stem, self.kind.suffix())
    }
}

impl Pattern {
    /// The name of the folder of its drop-ins.
    pub fn folder(&self) -> String {
        let name = self.stem.strip_suffix('*').unwrap_or(&self.stem);
        format!("{name}.{}.d", self.kind.suffix())
    }

    /// A name for its agent when nobody gave one: what its units have in common.
    fn common(&self) -> &str {
        self.stem.trim_end_matches(['*', '-', '@'])
    }
}

impl FromStr for Governed {
    type Err = PatternError;

    /// `PATTERN`, or `AGENT=PATTERN` where the agent has another name.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (agent, pattern) = match text.split_once('=') {
            Some((agent, pattern)) => (Some(agent), pattern.parse::<Pattern>()?),
            None => (None, text.parse()?),
        };
        let agent = agent.unwrap_or_else(|| pattern.common()).to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if agent.is_empty() || agent.starts_with('.') || !agent.chars().all(plain) {
            return Err(PatternError::Agent(agent));
        }
        Ok(Self { agent, pattern })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_prefixes_have_a_folder_each() {
        let cases = [
            ("triage.service", "triage.service.d", "triage"),
            ("triage", "triage.service.d", "triage"),
            ("ci-*.service", "ci-.service.d", "ci"),
            ("ci-deep-*", "ci-deep-.service.d", "ci-deep"),
            ("agent@*.service", "agent@.service.d", "agent"),
            ("team.slice", "team.slice.d", "team"),
            ("docker-*.scope", "docker-.scope.d", "docker"),
            ("name.with.dots.service", "name.with.dots.service.d", "name.with.dots"),
        ];
        for (text, folder, agent) in cases {
            let governed: Governed = text.parse().unwrap();
            assert_eq!((&*governed.pattern.folder(), &*governed.agent), (folder, agent), "{text}");
        }
        let named: Governed = "builder=ci-*.service".parse().unwrap();
        assert_eq!((&*named.agent, &*named.pattern.to_string()), ("builder", "ci-*.service"));
        // An instance has a name that no file can have by accident.
        assert!("agent@7.service".parse::<Governed>().is_err());
        assert_eq!(
            "a=agent@7.service".parse::<Governed>().unwrap().pattern.folder(),
            "agent@7.service.d"
        );
    }

    #[test]
    fn what_systemd_cannot_express_is_refused_with_a_reason() {
        let refused = |text: &str| text.parse::<Governed>().unwrap_err().to_string();
        for text in ["ci*.service", "*-ci.service", "c*i-*.service", "a**.service"] {
            assert!(refused(text).contains("one by one"), "{text}: {}", refused(text));
        }
        for text in ["", "*", "*.service", ".service", "a b", "a/b.service", "../x.service", "a\n"]
        {
            assert!(refused(text).contains("not the name of a unit"), "{text:?}");
        }
        // As long with its kind as without.
        for (length, fits) in [(232, true), (233, false)] {
            let stem = "a".repeat(length);
            assert_eq!(stem.parse::<Governed>().is_ok(), fits, "{length}");
            assert_eq!(format!("{stem}.service").parse::<Governed>().is_ok(), fits, "{length}");
        }
        for text in ["x.socket", "y-*.timer"] {
            assert!(refused(text).contains("cannot be held"), "{text}");
        }
        for text in ["egret.service", "egret", "system.slice", "-.slice", "init.scope"] {
            assert!(refused(text).contains("egret itself"), "{text}");
        }
        for text in ["=a.service", "a/b=a.service", "..=a.service", "%n=a.service"] {
            assert!(refused(text).contains("name of an agent"), "{text}");
        }
    }
}

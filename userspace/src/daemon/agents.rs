//! Pure: which agents there are, and how their groups lie in one another.
//!
//! The kernel programs are attached only to the outermost group of nested agents, because programs
//! of nested groups run one after the other and the second would see what the first put in place.
//! An agent below is known to them by its group's id alone, and every agent above it has its say
//! in what it may do: its *chain*, outermost first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The groups of all agents, by the agent's name. Paths begin at the root of the hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, PathBuf>);

/// Why an agent cannot have a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    #[error("an agent named `{0}` is attached already; detach it first, or choose another name")]
    NameTaken(String),
    #[error("the agent `{0}` is attached to this cgroup already: one cgroup has one policy")]
    GroupTaken(String),
}

impl Places {
    /// The agent `name` has the group at `path` from now on.
    pub(super) fn add(&mut self, name: &str, path: &Path) -> Result<(), PlaceError> {
        self.check(name, path)?;
        self.0.insert(name.to_owned(), path.to_owned());
        Ok(())
    }

    /// Whether [`Self::add`] would succeed.
    pub(super) fn check(&self, name: &str, path: &Path) -> Result<(), PlaceError> {
        if self.0.contains_key(name) {
            return Err(PlaceError::NameTaken(name.to_owned()));
        }
        match self.at(path) {
            Some(other) => Err(PlaceError::GroupTaken(other.to_owned())),
            None => Ok(()),
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<PathBuf> {
        self.0.remove(name)
    }

    /// The agent whose group this is.
    pub(super) fn at(&self, path: &Path) -> Option<&str> {
        self.0.iter().find(|(_, p)| *p == path).map(|(name, _)| name.as_str())
    }

    /// The agents whose groups hold `path`, itself included, outermost first.
    pub(super) fn holding(&self, path: &Path) -> Vec<&str> {
        let mut found: Vec<_> = self.0.iter().filter(|(_, p)| path.starts_with(p)).collect();
        found.sort_by_key(|(_, p)| p.components().count());
        found.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The agents whose groups lie below `path`, itself excluded.
    pub(super) fn below(&self, path: &Path) -> Vec<&str> {
        let below = |(_, p): &(&String, &PathBuf)| p.starts_with(path) && *p != path;
        self.0.iter().filter(below).map(|(name, _)| name.as_str()).collect()
    }

    /// Those of [`Self::below`] that would be outermost without an agent at `path`.
    pub(super) fn outermost_below(&self, path: &Path) -> Vec<&str> {
        let below = self.below(path);
        let lies_in_another = |name: &&str| {
            let own = &self.0[*name];
            below.iter().any(|other| other != name && own.starts_with(&self.0[*other]))
        };
        below.iter().copied().filter(|name| !lies_in_another(name)).collect()
    }

    /// The chain of an agent: those above it and itself, outermost first.
    pub(super) fn chain(&self, name: &str) -> Vec<&str> {
        self.0.get(name).map(|path| self.holding(path)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(list: &[(&str, &str)]) -> Places {
        let mut places = Places::default();
        for (name, path) in list {
            places.add(name, Path::new(path)).unwrap();
        }
        places
    }

    #[test]
    fn chains_follow_folders_and_not_spellings() {
        let p = places(&[("in", "/a/b/c"), ("out", "/a"), ("other", "/ab"), ("mid", "/a/b")]);
        assert_eq!(p.chain("in"), ["out", "mid", "in"]);
        assert_eq!(p.chain("out"), ["out"]);
        assert_eq!(p.chain("other"), ["other"]);
        assert_eq!(p.chain("nobody"), [""; 0]);
        assert_eq!(p.holding(Path::new("/a/b/c/d")), ["out", "mid", "in"]);
        assert_eq!(p.holding(Path::new("/abc")), [""; 0]);
    }

    #[test]
    fn what_lies_below_is_found_with_its_outermost() {
        let p = places(&[("x", "/a/x"), ("xx", "/a/x/y"), ("z", "/a/z"), ("b", "/b")]);
        assert_eq!(p.below(Path::new("/a")), ["x", "xx", "z"]);
        assert_eq!(p.outermost_below(Path::new("/a")), ["x", "z"]);
        assert_eq!(p.outermost_below(Path::new("/a/x")), ["xx"]);
        assert_eq!(p.below(Path::new("/b")), [""; 0]);
    }

    #[test]
    fn a_name_and_a_group_are_taken_once() {
        let mut p = places(&[("a", "/a")]);
        assert_eq!(p.add("a", Path::new("/b")), Err(PlaceError::NameTaken("a".into())));
        assert_eq!(p.add("b", Path::new("/a")), Err(PlaceError::GroupTaken("a".into())));
        assert_eq!(p.remove("a"), Some("/a".into()));
        p.add("b", Path::new("/a")).unwrap();
    }
}

//! Pure: names of systemd's units and slices, and of containers, as they stand in cgroup paths.

/// Why a text does not name what it should, as one clause, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", help.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct NameError {
    pub why: String,
    pub help: Option<String>,
}

impl NameError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), help: None }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// The longest name of a unit, suffix included (UNIT_NAME_MAX).
const LONGEST: usize = 255;
/// The types of units that have processes, and so a group.
const WITH_GROUP: &[&str] = &[".service", ".scope", ".socket", ".mount", ".swap"];
pub(super) const SLICE: &str = ".slice";

/// Checks the name of a unit that has processes of its own; `wild` also takes `*`.
pub(super) fn check_unit(name: &str, wild: bool) -> Result<(), NameError> {
    check_characters(name, wild)?;
    if name.ends_with(SLICE) {
        return Err(NameError::new("this is a slice, not a unit with processes of its own")
            .help(format!("name it as a slice: {name}")));
    }
    let Some(stem) = WITH_GROUP.iter().find_map(|suffix| name.strip_suffix(suffix)) else {
        return Err(NameError::new("a unit's name ends in its type, and the type has a cgroup")
            .help(format!("write for example {}.service", name.trim_end_matches('.'))));
    };
    match stem {
        "" => Err(NameError::new("this is a type without a name")),
        stem if stem.bytes().all(|b| b == b'*') => {
            Err(NameError::new("this is every unit of its type, egret's own included"))
        }
        _ => Ok(()),
    }
}

/// Checks the name of a slice that is not the root; `wild` also takes `*`.
pub(super) fn check_slice(name: &str, wild: bool) -> Result<(), NameError> {
    check_characters(name, wild)?;
    let Some(stem) = name.strip_suffix(SLICE) else {
        let stem = WITH_GROUP.iter().find_map(|s| name.strip_suffix(s));
        return Err(match stem {
            Some(_) => NameError::new("this is a unit, not a slice")
                .help(format!("name it as a unit: {name}")),
            None => {
                NameError::new("a slice's name ends in .slice").help(format!("write {name}{SLICE}"))
            }
        });
    };
    if stem == "-" {
        return Err(NameError::new("-.slice is the root of all groups"));
    }
    if stem.split('-').any(str::is_empty) {
        return Err(NameError::new(
            "in a slice's name each `-` stands between two parts, as in a-b.slice",
        ));
    }
    if stem.bytes().all(|b| matches!(b, b'*' | b'-')) {
        return Err(NameError::new("this is every slice of its depth"));
    }
    Ok(())
}

fn check_characters(name: &str, wild: bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::new("the name is empty"));
    }
    if name.len() > LONGEST {
        return Err(NameError::new(format!("the name is longer than {LONGEST} bytes")));
    }
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c) || (wild && c == '*');
    match name.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some('*') => Err(NameError::new("a `*` stands for several, and one must be named")),
        Some('/') => Err(NameError::new("a unit's name has no `/`")
            .help("to name a place in the tree of groups, name it as a cgroup")),
        Some(c) => {
            Err(NameError::new(format!("`{}` cannot stand in a unit's name", c.escape_debug()))
                .help("write it as systemd-escape prints it"))
        }
    }
}

/// Where a slice is in the tree: `a-b.slice` is at `a.slice`, `a-b.slice`.
pub(super) fn slice_folders(name: &str) -> Vec<String> {
    let stem = name.strip_suffix(SLICE).unwrap_or(name);
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("{}{SLICE}", &stem[..end])).collect()
}

/// The shortest part of a container's id that is taken for it: what `docker ps` prints.
const SHORTEST_ID: usize = 12;
const LONGEST_ID: usize = 64;
/// What runtimes put before the id in the name of a container's group. The helpers of some
/// (`libpod-conmon-ID`) have a word in between, and are not the container.
const RUNTIMES: &[&str] = &["docker-", "libpod-", "cri-containerd-", "crio-", "nerdctl-"];

/// Checks the id of a container, or the beginning of one.
pub(super) fn check_container(id: &str) -> Result<(), NameError> {
    if !is_hex(id) {
        return Err(NameError::new("a container's id is lower-case hexadecimal digits").help(
            "egret does not ask the runtime for names: give the id that `docker ps` prints",
        ));
    }
    if !(SHORTEST_ID..=LONGEST_ID).contains(&id.len()) {
        return Err(NameError::new(format!(
            "a container's id is given with {SHORTEST_ID} to {LONGEST_ID} digits"
        )));
    }
    Ok(())
}

/// The id of the container whose group this is, if it is one: `folders` from the root down.
/// Runtimes that leave groups to systemd name them RUNTIME-ID.scope; the others make a folder
/// `ID` below `docker`, or below `kubepods` with its pod.
pub fn container_id<'a>(folders: &[&'a str]) -> Option<&'a str> {
    let (last, above) = folders.split_last()?;
    let is_id = |id: &&str| is_hex(id) && (SHORTEST_ID..=LONGEST_ID).contains(&id.len());
    let name = last.strip_suffix(".scope").unwrap_or(last);
    if let Some(id) = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime)) {
        return Some(id).filter(is_id);
    }
    let of_a_runtime =
        above.iter().any(|f| *f == "docker" || *f == "kubepods" || f.starts_with("kubepods-"));
    Some(*last).filter(|id| of_a_runtime && is_id(id))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for good in [
            "a.service",
            "a@b.service",
            r"a\x2db.scope",
            "run-u1.scope",
            "dev-sda.swap",
            "dbus-:1.2-org.x@0.service",
        ] {
            assert_eq!(check_unit(good, false), Ok(()), "{good}");
        }
        assert_eq!(check_unit("a*.service", true), Ok(()));
        let long = "x".repeat(250) + ".service";
        for (bad, wild, want) in [
            ("", true, "is empty"),
            ("a", true, "write for example a.service"),
            ("a.timer", true, "the type has a cgroup"),
            (".service", true, "without a name"),
            ("a.slice", true, "name it as a slice: a.slice"),
            ("a*.service", false, "one must be named"),
            ("*.service", true, "every unit of its type"),
            ("**.scope", true, "every unit of its type"),
            ("a/b.service", true, "has no `/`"),
            ("a b.service", true, "systemd-escape"),
            ("a\n.service", true, r"`\n`"),
            (&long, true, "longer than 255"),
        ] {
            let e = check_unit(bad, wild).unwrap_err().to_string();
            assert!(e.contains(want), "{bad}: {e}");
        }
    }

    #[test]
    fn slices() {
        for (name, folders) in [
            ("a.slice", &["a.slice"][..]),
            ("a-b.slice", &["a.slice", "a-b.slice"]),
            ("a-b-c.slice", &["a.slice", "a-b.slice", "a-b-c.slice"]),
            (r"a\x2db.slice", &[r"a\x2db.slice"]),
        ] {
            assert_eq!(check_slice(name, false), Ok(()), "{name}");
            assert_eq!(slice_folders(name), folders);
        }
        assert_eq!(check_slice("a-*.slice", true), Ok(()));
        for (bad, wild, want) in [
            ("agents", true, "write agents.slice"),
            ("a.service", true, "name it as a unit"),
            ("-.slice", true, "the root"),
            (".slice", true, "between two parts"),
            ("-a.slice", true, "between two parts"),
            ("a-.slice", true, "between two parts"),
            ("a--b.slice", true, "between two parts"),
            ("*.slice", true, "every slice"),
            ("*-*.slice", true, "every slice"),
            ("a-*.slice", false, "one must be named"),
            ("../a.slice", true, "no `/`"),
        ] {
            let e = check_slice(bad, wild).unwrap_err().to_string();
            assert!(e.contains(want), "{bad}: {e}");
        }
    }

    #[test]
    fn containers() {
        let id = "0123456789abcdef".repeat(4);
        let pod = "kubepods-burstable-pod1_2.slice";
        for (path, is) in [
            (format!("system.slice/docker-{id}.scope"), true),
            (format!("machine.slice/libpod-{id}.scope"), true),
            (format!("kubepods.slice/{pod}/cri-containerd-{id}.scope"), true),
            (format!("kubepods.slice/{pod}/crio-{id}.scope"), true),
            (format!("system.slice/nerdctl-{id}.scope"), true),
            (format!("libpod_parent/libpod-{id}"), true),
            (format!("docker/{id}"), true),
            (format!("docker/{}", &id[..12]), true),
            (format!("kubepods/burstable/pod12/{id}"), true),
            (format!("kubepods/burstable/pod12/crio-{id}"), true),
            (format!("kubepods.slice/{pod}/{id}"), true),
            // Helpers of a runtime, and folders that only look alike.
            (format!("machine.slice/libpod-conmon-{id}.scope"), false),
            (format!("kubepods/pod12/crio-conmon-{id}.scope"), false),
            (format!("docker-{}.scope", &id[..11]), false),
            (format!("docker-{id}0.scope"), false),
            (format!("x/{id}"), false),
            (id.clone(), false),
            (format!("docker/{}", id.to_uppercase()), false),
            ("docker/buildkit".into(), false),
            ("docker".into(), false),
            (String::new(), false),
        ] {
            let folders: Vec<&str> = path.split('/').collect();
            assert_eq!(container_id(&folders).is_some(), is, "{path}");
        }
        assert_eq!(container_id(&[]), None);
        assert_eq!(container_id(&["docker-0123456789ab.scope"]), Some("0123456789ab"));
        assert_eq!(check_container(&id[..12]), Ok(()));
        for (bad, want) in [
            ("web", "docker ps"),
            ("", "hexadecimal"),
            (&id[..11], "12 to 64"),
            (&format!("{id}0"), "12 to 64"),
            (&id.to_uppercase(), "lower-case"),
        ] {
            let e = check_container(bad).unwrap_err().to_string();
            assert!(e.contains(want), "{bad}: {e}");
        }
    }
}

//! Gathers the facts. Nothing here judges, fails or panics: what could not be looked at is a value.

mod cgroups;
mod host;
mod privileges;
mod programs;
mod settings;
mod state;

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use super::facts::{Facts, NotSeen, Seen};

/// Looks at everything.
pub(super) fn gather(state: &Path) -> Facts {
    let root = geteuid().is_root();
    let mountinfo = read("/proc/self/mountinfo");
    let (cgroups, bench) = cgroups::probe(&mountinfo, root);
    let programs = programs::probe(bench.as_ref(), root);
    Facts {
        kernel: kernel(),
        privileges: privileges::probe(root),
        programs,
        settings: settings::probe(&mountinfo),
        host: host::probe(cgroups.layout.as_ref().ok()),
        state: state::probe(state),
        cgroups,
    }
}

fn kernel() -> String {
    let Ok(name) = uname() else { return "unknown".to_owned() };
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine()))
}

/// The text of a file of /proc or /sys.
fn read(path: impl AsRef<Path>) -> Seen<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|e| not_seen(&e, path))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Like [`read`], for a file that not every kernel has.
fn read_if_there(path: &str) -> Seen<Option<String>> {
    match fs::exists(path) {
        Ok(false) => Ok(None),
        _ => read(path).map(Some),
    }
}

/// A switch, for which the kernel shows a number.
fn number(path: &str) -> Seen<Option<u64>> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    let number = text.parse().map_err(|_| NotSeen::Error(format!("{path} holds `{text}`")))?;
    Ok(Some(number))
}

fn not_seen(error: &io::Error, path: &Path) -> NotSeen {
    if is_refused(error) && !geteuid().is_root() {
        return NotSeen::NeedsRoot;
    }
    NotSeen::Error(format!("{}: {error}", path.display()))
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::judge::judge;
    use crate::doctor::{Run, Status};

    #[test]
    fn this_machine_is_probed_without_a_panic_and_nothing_stays_behind() {
        let state = tempfile::tempdir().unwrap();
        let facts = gather(state.path());
        let report = judge(&facts);
        assert!(report.findings.len() > 30, "{}", report.findings.len());
        for finding in &report.findings {
            assert!(!finding.found.is_empty() && !finding.meaning.is_empty(), "{finding:?}");
            assert!(!finding.promises.is_empty(), "{finding:?}");
            if finding.status == Status::Fail {
                assert!(finding.fix.is_some(), "a failure says what to do: {finding:?}");
            }
        }
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "the state was only looked at");
    }

    #[test]
    fn without_root_it_says_what_was_not_probed() {
        if geteuid().is_root() {
            return; // the binary's own test starts it as another user
        }
        let report = judge(&gather(Path::new("/nonexistent")));
        assert_eq!(report.run, Run::Impossible);
        let of = |id: &str| report.findings.iter().find(|f| f.id == id).unwrap();
        assert_eq!(of("root").status, Status::Fail);
        assert_eq!(of("self_test").status, Status::Unknown);
        assert!(of("self_test").found.contains("needs root"), "{}", of("self_test").found);
    }

    #[test]
    fn what_is_not_there_is_not_an_error_and_what_is_odd_is() {
        assert_eq!(number("/proc/sys/kernel/no_such_switch"), Ok(None));
        assert!(matches!(number("/proc/sys/kernel/pid_max"), Ok(Some(n)) if n > 0));
        assert!(matches!(number("/proc/sys/kernel/ostype"), Err(NotSeen::Error(_))));
    }
}

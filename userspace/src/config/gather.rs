//! Reads all files of a policy into a [`PolicyBundle`], failures included.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::PolicyArgs;
use super::bundle::{Answer, ExtraCa, LARGEST_FILE, MainFile, PolicyBundle, TOO_LARGE, Used};
use crate::policy::parse::{Loader, UsedFile, parse, preset, stem, unknown_preset};

/// Everything that these flags name. What could not be read stands in the bundle as the reason.
pub(super) fn gather(args: &PolicyArgs) -> PolicyBundle {
    let mut bundle = PolicyBundle {
        allow: args.allow.clone(),
        bearer: args.bearer.clone(),
        resolve: args.resolve.clone(),
        audit_mode: args.audit_mode,
        ..PolicyBundle::default()
    };
    if let Some(path) = &args.policy {
        add_file(path, &mut bundle);
    }
    let extra = |path: &PathBuf| ExtraCa { file: path.display().to_string(), text: answer(path) };
    bundle.upstream_ca = args.upstream_ca.iter().map(extra).collect();
    bundle
}

fn add_file(path: &Path, bundle: &mut PolicyBundle) {
    let file = path.display().to_string();
    let text = read_text(path);
    if let Ok(text) = &text {
        // Only the parser knows what a file names; what else it finds is told by the load.
        let recorder = Recorder::default();
        let parsed = parse(&file, text, &recorder);
        bundle.used = recorder.0.into_inner();
        let folder = path.parent().unwrap_or(Path::new(""));
        let ca = parsed.map(|p| p.ca).unwrap_or_default();
        bundle.ca =
            ca.into_iter().map(|ca| (ca.path.clone(), answer(&folder.join(ca.path)))).collect();
    }
    let text = text.map_or_else(Answer::Failed, Answer::Is);
    bundle.policy = Some(MainFile { file, text, anyone_may_write: anyone_may_write(path) });
}

fn answer(path: &Path) -> Answer<String> {
    read_text(path).map_or_else(Answer::Failed, Answer::Is)
}

/// Reads a text of bounded size.
///
/// # Errors
/// Says why not, as one clause.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() > LARGEST_FILE {
        return Err(TOO_LARGE.into());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

pub(super) fn anyone_may_write(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o002 != 0)
}

/// Finds presets by name, and files by a path relative to the file that uses them; keeps every
/// answer.
#[derive(Default)]
struct Recorder(RefCell<Vec<Used>>);

impl Loader for Recorder {
    fn load(&self, from: &str, name: &str) -> Result<UsedFile, String> {
        let found = find(from, name);
        let mut asked = self.0.borrow_mut();
        if !asked.iter().any(|u| u.from == from && u.name == name) {
            let answer = found.clone().map_or_else(Answer::Failed, Answer::Is);
            asked.push(Used { from: from.to_owned(), name: name.to_owned(), answer });
        }
        found
    }
}

pub(super) fn find(from: &str, name: &str) -> Result<UsedFile, String> {
    if !name.contains('/') && !name.ends_with(".toml") {
        return preset(name).ok_or_else(|| unknown_preset(name));
    }
    let path = Path::new(from).parent().unwrap_or(Path::new("")).join(name);
    let text = read_text(&path).map_err(|why| format!("`{name}` {why}"))?;
    let id = path.canonicalize().unwrap_or_else(|_| PathBuf::from(&path));
    Ok(UsedFile {
        id: id.display().to_string(),
        file: path.display().to_string(),
        prefix: stem(name).to_owned(),
        text,
    })
}

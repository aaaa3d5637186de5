//! The placeholders that an attached agent's programs want to find in their environment, one file
//! each, as systemd's EnvironmentFile= reads it. What they stand for is not in them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::definition::Definition;

/// Below the daemon's folder.
const FOLDER: &str = "env";

/// Writes an agent's variables in one step; an agent without any has no file.
///
/// # Errors
/// When the folder cannot be written.
pub(super) fn publish(run: &Path, agent: &str, definition: &Definition) -> io::Result<()> {
    let folder = run.join(FOLDER);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let path = folder.join(agent);
    let variables = definition.credentials.agent_env();
    if variables.is_empty() {
        return match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    // Names and placeholders are of letters, digits and a few signs that nothing reads otherwise.
    let text: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let new = folder.join(format!(".{agent}.new"));
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    fs::rename(&new, &path)
}

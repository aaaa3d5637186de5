//! Folders made into ext4 images without root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{host, sh};

/// Whom the files of an image belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    Root,
    /// The user who built it, because user namespaces were refused.
    Ours,
}

/// Pack `folder` into a new ext4 image at `path`, with `spare` bytes beyond its content.
pub(super) fn ext4(folder: &Path, path: &Path, spare: u64) -> Result<Owners> {
    let used = sh::output(Command::new("du").args(["-s", "-B1", "--apparent-size"]).arg(folder))?;
    let bytes: u64 = used.split_whitespace().next().unwrap_or("").parse().context("du")?;
    // A fifth more for inodes, block ends and the file system's own tables.
    let megabytes = ((bytes + bytes / 5 + spare) >> 20) + 8;
    let mke2fs = host::find("mke2fs").context("mke2fs is missing; it is in Debian's e2fsprogs")?;
    let partial = path.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let mut owners = Owners::Root;
    // Inside a user namespace of our own, our files are root's.
    let mut command = if host::is_root() {
        Command::new(&mke2fs)
    } else if sh::output(Command::new("unshare").args(["-r", "true"])).is_ok() {
        let mut command = Command::new("unshare");
        command.arg("-r").arg(&mke2fs);
        command
    } else {
        owners = Owners::Ours;
        Command::new(&mke2fs)
    };
    command
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .arg(folder)
        .arg(&partial)
        .arg(format!("{megabytes}M"));
    sh::output(&mut command)?;
    std::fs::rename(&partial, path)?;
    Ok(owners)
}

/// The disk of one run: the binaries, the policies and the command.
pub(super) fn run_disk(
    folder: &Path,
    workspace: &Path,
    egret: &Path,
    e2e: &Path,
    args: &[String],
) -> Result<PathBuf> {
    let content = folder.join("run");
    let _ = std::fs::remove_dir_all(&content);
    std::fs::create_dir_all(&content)?;
    for (binary, name) in [(egret, "egret"), (e2e, "egret-e2e")] {
        if binary.is_file() {
            std::fs::copy(binary, content.join(name))?;
        }
    }
    if workspace.join("policies").is_dir() {
        sh::run(Command::new("cp").arg("-r").arg(workspace.join("policies")).arg(&content))?;
    }
    let words: Vec<String> = args.iter().map(|a| quoted(a)).collect();
    let script = format!(
        "export EGRET_BIN=/egret/egret EGRET_POLICIES=/egret/policies\n\
         cd /root\n\
         /egret/egret-e2e {}\n",
        words.join(" ")
    );
    std::fs::write(content.join("run.sh"), script)?;
    let disk = folder.join("run.ext4");
    ext4(&content, &disk, 1 << 20)?;
    Ok(disk)
}

/// A word as the shell reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_come_back_unchanged() {
        for word in ["plain", "two words", "it's", "$HOME `x` \"y\" \\", ""] {
            let script = format!("printf %s {}", quoted(word));
            let back = sh::output(Command::new("sh").args(["-c", &script])).unwrap();
            assert_eq!(back, word);
        }
    }
}

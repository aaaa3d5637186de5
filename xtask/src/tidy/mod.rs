//! `cargo xtask tidy`: rules of this repository that no compiler knows. Each rule is a function
//! from a file to complaints; each exception stands in a table with its reason.

mod rules;

use std::path::Path;

use anyhow::{Context, Result};

use rules::{File, RULES};

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", ".git", "corpus", "artifacts"];

/// Check every file of the workspace. True if no rule complains.
pub(crate) fn run(workspace: &Path) -> Result<bool> {
    let mut files = Vec::new();
    collect(workspace, workspace, &mut files)?;
    let mut complaints = 0;
    for file in &files {
        for rule in RULES {
            for complaint in (rule.check)(file) {
                complaints += 1;
                println!("{}:{}: {} ({})", file.path, complaint.line, complaint.text, rule.name);
            }
        }
    }
    for stale in rules::stale_exceptions(&files) {
        complaints += 1;
        println!("{stale} (an exception that nothing needs)");
    }
    println!("tidy: {} files, {} rules, {complaints} complaints", files.len(), RULES.len());
    Ok(complaints == 0)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(root, &path, files)?;
        } else if kind.is_file()
            && path
                .extension()
                .is_some_and(|e| ["rs", "toml", "md", "yml"].contains(&&*e.to_string_lossy()))
        {
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.push(File { path, text });
        }
    }
    Ok(())
}

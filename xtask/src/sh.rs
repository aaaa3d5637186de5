//! Starting other programs: to the end, with output captured, or into a log.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How a command is written for a person.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Run to the end with our own output; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Run to the end and return what it printed; on failure the error carries what it complained.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if !out.status.success() {
        let complaint = String::from_utf8_lossy(&out.stderr);
        bail!("`{}` ended with {}: {}", line(command), out.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Run with both outputs appended to `log`, each line also given to `see`. True if it exited 0.
pub(crate) fn logged(command: &mut Command, log: &Path, mut see: impl FnMut(&str)) -> Result<bool> {
    let mut file = append(log)?;
    writeln!(file, "$ {}", line(command))?;
    let (reader, writer) = std::io::pipe().context("pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", line(command)))?;
    // The command holds the writing ends; keeping ours open would hide the end of the output.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut buffer = Vec::new();
    while reader.read_until(b'\n', &mut buffer)? > 0 {
        file.write_all(&buffer)?;
        see(String::from_utf8_lossy(&buffer).trim_end());
        buffer.clear();
    }
    Ok(child.wait()?.success())
}

fn append(log: &Path) -> Result<File> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))
}

/// The last `count` lines of a file, for failure reports.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_reach_the_log_and_the_status_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("deep/log");
        for (script, expected) in [("echo a; echo b >&2", true), ("echo c; exit 3", false)] {
            let mut seen = Vec::new();
            let ok = logged(Command::new("sh").args(["-c", script]), &log, |l| {
                seen.push(l.to_owned());
            })
            .unwrap();
            assert_eq!(ok, expected, "{script}");
            assert!(!seen.is_empty());
        }
        assert_eq!(tail(&log, 1), "c");
        assert!(std::fs::read_to_string(&log).unwrap().contains("b\n"));
    }

    #[test]
    fn failure_of_output_carries_the_complaint() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}

//! The fuzz rung: every target built at once, then run for a while each, as many at a time as
//! there are processors. cargo-fuzz comes from crates.io into `target/`, and stable Rust is enough.
//!
//! The build takes minutes, and the rungs on this kernel mostly wait: it is done beside them, at the
//! lowest priority.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};

use crate::report::{Counts, Row};
use crate::{build, ebpf, sh};

/// The version of cargo-fuzz that the targets were built with.
const CARGO_FUZZ: &str = "0.13.2";

/// How long each target runs.
const SECONDS: u32 = 10;

/// What a target may use of memory, in MiB.
const MEMORY: u32 = 1024;

/// Where things are.
struct Place {
    workspace: PathBuf,
    logs: PathBuf,
}

/// What a build came to.
pub(crate) enum Built {
    /// After so long.
    Ready(Duration),
    /// cargo-fuzz is not here and cannot be had.
    NoFuzzer(String),
}

/// A build that goes on beside other rungs.
pub(crate) struct Build(JoinHandle<Result<Built>>);

impl Build {
    /// Expects the kernel programs to be built already.
    pub(crate) fn begin(workspace: &Path, logs: &Path) -> Self {
        let place = Place { workspace: workspace.into(), logs: logs.into() };
        Self(thread::spawn(move || place.build_all()))
    }

    fn end(self) -> Result<Built> {
        self.0.join().unwrap_or_else(|_| bail!("the build of the fuzz targets panicked"))
    }
}

/// The whole rung; what is built already is not built again.
pub(crate) fn rung(workspace: &Path, logs: &Path, build: Option<Build>) -> Result<Row> {
    let started = Instant::now();
    let place = Place { workspace: workspace.into(), logs: logs.into() };
    let targets = place.targets()?;
    let built = match build {
        Some(build) => build.end(),
        None => ebpf::build(workspace).and_then(|_| place.build_all()),
    };
    match built? {
        Built::Ready(time) => println!("   {} targets built in {time:.0?}", targets.len()),
        Built::NoFuzzer(why) => return Ok(Row::not_run("fuzz", &why)),
    }
    let failures = place.run_all(&targets);
    let counts = Counts::of(targets.len() - failures.len(), failures.len(), 0);
    Ok(Row::new("fuzz", counts, started.elapsed(), &place.log("fuzz")).naming(failures))
}

/// `command`, giving way to whatever else this machine does.
fn niced(command: &Command) -> Command {
    let mut niced = Command::new("nice");
    niced.args(["-n", "19"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => niced.env(name, value),
            None => niced.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        niced.current_dir(folder);
    }
    niced
}

impl Place {
    fn build_all(&self) -> Result<Built> {
        let started = Instant::now();
        match self.provision() {
            Ok(cargo_fuzz) => self.build(&cargo_fuzz)?,
            Err(why) => {
                let why = format!("cargo-fuzz {CARGO_FUZZ} is not here and cannot be had: {why:#}");
                return Ok(Built::NoFuzzer(why));
            }
        }
        Ok(Built::Ready(started.elapsed()))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn fuzz(&self) -> PathBuf {
        self.workspace.join("userspace/fuzz")
    }

    /// Not where somebody's own `cargo fuzz` builds, which has other flags.
    fn built(&self) -> PathBuf {
        self.workspace.join("target/fuzz-build")
    }

    /// Every file in `fuzz_targets`.
    fn targets(&self) -> Result<Vec<String>> {
        let folder = self.fuzz().join("fuzz_targets");
        let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut targets: Vec<String> = files
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "rs"))
            .filter_map(|p| Some(p.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        targets.sort();
        if targets.is_empty() {
            bail!("{} holds no targets", folder.display());
        }
        Ok(targets)
    }

    /// cargo-fuzz in the version that is wanted, built below `target/` if it is not there.
    fn provision(&self) -> Result<PathBuf> {
        let root = self.workspace.join("target/fuzz-toolchain");
        let program = root.join("bin/cargo-fuzz");
        let is_there = || {
            sh::output(Command::new(&program).arg("--version"))
                .is_ok_and(|v| v.contains(CARGO_FUZZ))
        };
        if is_there() {
            return Ok(program);
        }
        println!("   building cargo-fuzz {CARGO_FUZZ} (once, about a minute of a free machine)");
        let mut install = build::cargo(&self.workspace);
        install.args(["install", "cargo-fuzz", "--locked", "--force", "--version", CARGO_FUZZ]);
        install.arg("--root").arg(&root);
        // Not beside the workspace's own packages, and not kept: only the program is wanted.
        let scratch = root.join("build");
        install.env("CARGO_TARGET_DIR", &scratch);
        let log = self.log("fuzz");
        let installed = sh::logged(&mut niced(&install), &log, |_| {})?;
        let _ = fs::remove_dir_all(&scratch);
        if !installed || !is_there() {
            bail!("{}", sh::tail(&log, 3));
        }
        Ok(program)
    }

    /// All targets in one build; nothing is built again when they run.
    fn build(&self, cargo_fuzz: &Path) -> Result<()> {
        let mut command = Command::new(cargo_fuzz);
        command.current_dir(self.workspace.join("userspace"));
        // Without a sanitizer stable Rust is enough, and the only unsafe code is not in parsers.
        command.args(["fuzz", "build", "--sanitizer", "none", "--target", &triple()]);
        command.arg("--target-dir").arg(self.built());
        // Ten seconds are few: what is built three times as fast may run a little slower.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        command.args(["--codegen-units", "16"]);
        let log = self.log("fuzz");
        if !sh::logged(&mut niced(&command), &log, |_| {})? {
            bail!("the fuzz targets do not build\n{}", sh::tail(&log, 30));
        }
        Ok(())
    }

    /// What failed.
    fn run_all(&self, targets: &[String]) -> Vec<String> {
        let waiting = Mutex::new(targets.iter());
        let failures = Mutex::new(Vec::new());
        let at_once = thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            while let Some(target) = next(&waiting) {
                match self.run(target) {
                    Ok(said) => println!("   {target}: {said}"),
                    Err(why) => {
                        println!("   {target} failed: {why:#}");
                        let failure = format!("{target}: {}", why.to_string().replace('\n', " "));
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(work);
            }
        });
        failures.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one target on its seeds and from there on; says how far it came.
    fn run(&self, target: &str) -> Result<String> {
        let program = self.built().join(triple()).join("release").join(target);
        let corpus = self.workspace.join("target/fuzz-corpus").join(target);
        let findings = self.workspace.join("target/fuzz-findings").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&findings)?;
        let mut command = Command::new(&program);
        command.current_dir(&self.workspace).arg(&corpus);
        // What was found before and what was written by hand; only the first folder is added to.
        command.arg(self.fuzz().join("seeds").join(target)).arg(&findings);
        let dictionary = self.fuzz().join("dictionaries").join(format!("{target}.dict"));
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.arg(format!("-max_total_time={SECONDS}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg(format!("-artifact_prefix={}/", findings.display()));
        let log = self.log(&format!("fuzz-{target}"));
        let (mut said, mut input) = (None, None);
        let ok = sh::logged(&mut command, &log, |line| {
            if line.contains("DONE") {
                said = progress(line);
            }
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                input = Some(path.to_owned());
            }
        })?;
        match (ok, said, input) {
            (true, Some(said), _) => Ok(said),
            // A target that is not instrumented tries random bytes and finds nothing.
            (true, None, _) => {
                bail!("it ran without seeing what its inputs reach: {}", log.display())
            }
            (false, _, Some(input)) => bail!(
                "an input breaks it: {input}\n   repeat it with: {} {input}\n{}",
                program.display(),
                sh::tail(&log, 30)
            ),
            (false, _, None) => bail!("it ended badly\n{}", sh::tail(&log, 30)),
        }
    }
}

fn next<'t>(waiting: &Mutex<std::slice::Iter<'t, String>>) -> Option<&'t String> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// From libFuzzer's last line of progress: how many inputs it tried and how many places in the
/// program they reached. `None` unless both are more than none.
fn progress(line: &str) -> Option<String> {
    let runs: u64 = line.trim().strip_prefix('#')?.split_whitespace().next()?.parse().ok()?;
    let (_, reached) = line.split_once("cov: ")?;
    let reached: u64 = reached.split_whitespace().next()?.parse().ok()?;
    (runs > 0 && reached > 0).then(|| format!("{runs} inputs, {reached} places reached"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_and_none_is_told() {
        let line =
            "#10735\tDONE   cov: 2111 ft: 3602 corp: 349/1886b lim: 12 exec/s: 1533 rss: 32Mb";
        assert_eq!(progress(line).as_deref(), Some("10735 inputs, 2111 places reached"));
        assert_eq!(progress("#4\tDONE   cov: 0 ft: 0 corp: 1/1b exec/s: 0 rss: 32Mb"), None);
        assert_eq!(progress("#100\tDONE   corp: 1/1b exec/s: 0 rss: 32Mb"), None);
    }

    #[test]
    fn a_niced_command_is_the_same_command_at_the_lowest_priority() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo \"$WORD ${CARGO-unset}\"; pwd; nice"]);
        command.current_dir(&folder).env("WORD", "two words").env_remove("CARGO");
        let said = sh::output(&mut niced(&command)).unwrap();
        assert_eq!(said, format!("two words unset\n{}\n19\n", folder.display()));
    }

    #[test]
    fn every_target_is_built_and_has_seeds() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let place = Place { workspace: workspace.into(), logs: "/nowhere".into() };
        let manifest = fs::read_to_string(place.fuzz().join("Cargo.toml")).unwrap();
        for target in place.targets().unwrap() {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not built");
            let seeds = place.fuzz().join("seeds").join(&target);
            let seeds = fs::read_dir(&seeds).unwrap_or_else(|e| panic!("{}: {e}", seeds.display()));
            assert!(seeds.count() > 0, "{target} has no seeds");
        }
    }
}

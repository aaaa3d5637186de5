//! `egret systemd`: the units of egret, and drop-ins that hold other units under it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};
use std::time::Duration;

use clap::Subcommand;

use super::output::{Colour, Style};
use crate::contain::trust;
use crate::systemd::install::{self, InstallError};
use crate::systemd::units::{ENABLED, is_plain};
use crate::systemd::{Governed, Settings, UnitFile, base, drop_in, wait};

const EXAMPLES: &str = "\
Examples:
  egret systemd print --unit 'ci-*.service'        what would be written, and where
  sudo egret systemd install --enable              the daemon and agents.slice
  sudo egret systemd install --unit triage.service --unit builder='ci-*.service'
  sudo systemctl start egret.service agents.slice
  sudo systemd-run --slice=agents.slice -- COMMAND
  sudo egret systemd uninstall

A unit that is held needs an [[agent]] in /etc/egret/egret.toml that names it, or the slice that it
is in; without one it does not start.";

/// Install the units of egret, and hold other units under it from their first instruction.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print every file with its path; nothing is changed
    Print {
        #[command(flatten)]
        files: FileArgs,
    },
    /// Write the files and tell systemd
    Install {
        #[command(flatten)]
        files: FileArgs,
        /// Start egret.service and agents.slice at boot
        #[arg(long)]
        enable: bool,
        /// Below another root, such as an image; systemd is not told
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Remove what install wrote, or the drop-ins of some units only
    Uninstall {
        /// The drop-in of this unit or pattern only (repeatable)
        #[arg(long = "unit", visible_alias = "pattern", value_name = "UNIT")]
        units: Vec<Governed>,
        /// Below another root
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Wait until this process is an agent that is served; units that are held run it first
    #[command(hide = true)]
    Wait {
        #[arg(long, default_value_t = 10, value_name = "N")]
        seconds: u64,
    },
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// Hold this unit: a service, scope or slice, or a pattern such as 'ci-*.service'; with
    /// AGENT= in front where the agent has another name (repeatable)
    #[arg(long = "unit", visible_alias = "pattern", value_name = "[AGENT=]UNIT")]
    units: Vec<Governed>,
    /// Where the program is installed
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/egret", value_parser = program)]
    bin: PathBuf,
    /// Leave the system bus reachable for the units, which its services then do not hold
    #[arg(long)]
    bus: bool,
}

fn program(text: &str) -> Result<PathBuf, String> {
    if is_plain(text) {
        Ok(text.into())
    } else {
        Err("expected an absolute path of letters, digits and `/._-+@`".to_owned())
    }
}

impl FileArgs {
    fn files(&self, root: &Path) -> Vec<UnitFile> {
        let settings = Settings {
            program: self.bin.clone(),
            bundles: trust::bundles(root),
            java_stores: trust::java_stores(root),
            bus: self.bus,
        };
        let mut files = base(&settings);
        files.extend(self.units.iter().flat_map(|unit| drop_in(unit, &settings)));
        files
    }
}

/// Runs `egret systemd`.
pub(crate) fn run(args: &Args) -> ExitCode {
    let here = Path::new("/");
    let done = match &args.command {
        Command::Print { files } => {
            // A reader that has gone away has seen enough.
            let _ = print(&mut io::stdout().lock(), &files.files(here));
            Ok(())
        }
        Command::Install { files, enable, root } => {
            install(&files.files(root.as_deref().unwrap_or(here)), *enable, root.as_deref())
        }
        Command::Uninstall { units, root } => uninstall(units, root.as_deref()),
        Command::Wait { seconds } => {
            return match wait::until_served(Duration::from_secs(*seconds)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say(&format!("egret: {error}"));
                    // ExecCondition= takes any other number for "not now", and not for a failure.
                    ExitCode::from(255)
                }
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let style = Style::stderr();
            say(&format!("{} {error}", style.paint(Colour::Red, "egret: error:")));
            ExitCode::FAILURE
        }
    }
}

fn print(out: &mut dyn Write, files: &[UnitFile]) -> io::Result<()> {
    for (n, file) in files.iter().enumerate() {
        let gap = if n == 0 { "" } else { "\n" };
        write!(out, "{gap}# {}\n{}", file.path.display(), file.text)?;
    }
    Ok(())
}

fn install(files: &[UnitFile], enable: bool, root: Option<&Path>) -> Result<(), String> {
    let changed = install::write(root.unwrap_or(Path::new("/")), files).map_err(hint)?;
    for path in &changed {
        say(&format!("wrote {}", path.display()));
    }
    if changed.is_empty() {
        say("everything is there already");
    }
    if root.is_none() && !reload()? {
        return Ok(());
    }
    if root.is_none() {
        tell("systemd-sysusers", &["/etc/sysusers.d/egret.conf"])?;
    }
    if enable {
        let below = root.map(|r| format!("--root={}", r.display()));
        let words = below.as_deref().into_iter().chain(["enable"]).chain(ENABLED.iter().copied());
        tell("systemctl", &words.collect::<Vec<_>>())?;
    }
    if root.is_none() {
        say(&format!("next: systemctl start {}", ENABLED.join(" ")));
    }
    Ok(())
}

fn uninstall(units: &[Governed], root: Option<&Path>) -> Result<(), String> {
    let here = root.is_none();
    if units.is_empty() {
        let below = root.map(|r| format!("--root={}", r.display()));
        let words = below.as_deref().into_iter().chain(["disable"]).chain(ENABLED.iter().copied());
        // What was never enabled, or a machine without systemd, is no reason to leave files.
        let _ = Process::new("systemctl").args(words).output();
    }
    let nothing = Settings {
        program: PathBuf::new(),
        bundles: [].into(),
        java_stores: [].into(),
        bus: false,
    };
    let root = root.unwrap_or(Path::new("/"));
    let gone = install::remove(root, &base(&nothing), units).map_err(hint)?;
    for path in &gone {
        say(&format!("removed {}", path.display()));
    }
    if gone.is_empty() {
        say("nothing of egret's is there");
        return Ok(());
    }
    if here && reload()? && units.is_empty() {
        say(
            "what runs goes on as it is: `systemctl stop egret.service` ends the daemon, and agents \
             stay closed",
        );
    }
    Ok(())
}

/// Makes systemd read its files again. False where there is no systemd.
fn reload() -> Result<bool, String> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        say("systemd does not run here; nobody was told");
        return Ok(false);
    }
    tell("systemctl", &["daemon-reload"]).map(|()| true)
}

fn tell(program: &str, words: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", words.join(" "));
    let output = Process::new(program).args(words).output().map_err(|e| format!("{line}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn hint(error: InstallError) -> String {
    match error {
        InstallError::Io { ref source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            format!("{error}; run as root, or with --root")
        }
        error => error.to_string(),
    }
}

fn say(line: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|c| c.args)
    }

    #[test]
    fn the_command_line_is_what_the_manual_says() {
        for line in [
            "systemd print",
            "systemd print --unit a.service --pattern ci-*.service --bin /opt/egret --bus",
            "systemd install --enable --root /tmp/x --unit builder=ci-*.service",
            "systemd uninstall --unit a.service --root /tmp/x",
            "systemd wait --seconds 3",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        for line in [
            "systemd",
            "systemd print --unit egret.service",
            "systemd print --unit c*.service",
            "systemd print --bin egret",
            "systemd install --bin /opt/%n",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn files_are_printed_with_their_paths() {
        let args = parse("systemd print --unit ci-*.service").unwrap();
        let Command::Print { files } = args.command else { panic!() };
        let mut out = Vec::new();
        print(&mut out, &files.files(Path::new("/"))).unwrap();
        let text = String::from_utf8(out).unwrap();
        for path in ["egret.service", "agents.slice", "run-egret-bpf.mount"] {
            assert!(text.contains(&format!("# /etc/systemd/system/{path}\n")), "{path}");
        }
        assert!(text.contains("\n\n# /etc/systemd/system/ci-.service.d/50-egret.conf\n"));
        assert!(text.contains("ExecStart=/usr/bin/egret daemon --config /etc/egret/egret.toml\n"));
    }

    #[test]
    fn an_image_is_filled_without_systemd() {
        let root = tempfile::tempdir().unwrap();
        let bundle = root.path().join("etc/ssl/cert.pem");
        std::fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        std::fs::write(&bundle, "").unwrap();
        let args = parse("systemd install --unit ci-*.service").unwrap();
        let Command::Install { files, .. } = args.command else { panic!() };
        install(&files.files(root.path()), false, Some(root.path())).unwrap();
        let drop_in = root.path().join("etc/systemd/system/ci-.service.d/50-egret.conf");
        let text = std::fs::read_to_string(&drop_in).unwrap();
        assert!(
            text.contains("BindReadOnlyPaths=-/run/egret/trust/bundle.pem:/etc/ssl/cert.pem\n")
        );
        assert!(!text.contains(":/etc/ssl/certs/"), "the host's own stores are not the image's");
        install::remove(root.path(), &files.files(root.path()), &[]).unwrap();
        assert!(!drop_in.exists());
    }
}

//! `egret ca`: the authority that the daemon signs with, and who trusts it.

mod system_store;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use nix::unistd::geteuid;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{Colour, Style, json_line, table};
use crate::contain::{TRUST_DIR, trust};
use crate::tls::authority::store::{self, CERTIFICATE, KEY};
use crate::tls::authority::{Authority, Facts};
use system_store::Store;

const EXAMPLES: &str = "\
Examples:
  egret ca show --state /var/lib/egret
  sudo egret ca trust                   this machine's programs trust it, agents among them
  sudo egret ca trust --remove
  sudo egret ca rotate                  a new key; says what must be restarted";

/// Show, trust and replace the certificate authority that agents of the daemon trust.
///
/// `egret run` needs none of it: each run makes an authority of its own, in memory.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fingerprint, validity, where it is and who trusts it
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Add it to this machine's certificates; made first if there is none
    Trust {
        /// Take it away again
        #[arg(long)]
        remove: bool,
    },
    /// Make a new key and certificate; the old pair is kept beside
    Rotate,
}

/// Runs `egret ca` on the authority below the state folder `state`.
pub(crate) fn run(args: &Args, state: &Path) -> ExitCode {
    let dir = state.join("ca");
    let place = Place { store: Store::of(Path::new("/")), dir };
    let mut out = io::stdout().lock();
    let done = match args.command {
        Command::Show { json } => place.show(json, &mut out),
        Command::Trust { remove } => place.trust(remove, &mut out),
        Command::Rotate => place.rotate(&mut out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Said) => ExitCode::FAILURE,
        Err(Failed::Because(why)) => {
            let style = Style::stderr();
            let word = style.paint(Colour::Red, "egret: error:");
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(io::stderr(), "{word} {}", style.paint(Colour::Plain, &why));
            ExitCode::FAILURE
        }
    }
}

enum Failed {
    /// In the output.
    Said,
    Because(String),
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Because(error.to_string())
    }
}

/// Where the authority and those who trust it are.
struct Place {
    dir: PathBuf,
    store: Store,
}

/// Which certificate is in a place where clients look for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Ours,
    Other,
    None,
}

fn find(path: &Path, ours: &str) -> Found {
    match fs::read_to_string(path) {
        Ok(text) if text == ours => Found::Ours,
        Ok(_) => Found::Other,
        Err(_) => Found::None,
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    subject: String,
    fingerprint_sha256: String,
    not_before: String,
    not_after: String,
    certificate: PathBuf,
    key: PathBuf,
    /// What units have mounted.
    published: Found,
    /// What the machine's programs trust.
    trusted: Found,
    /// Why the daemon would not use it; looked for by its owner only.
    problem: Option<String>,
}

impl Place {
    fn show(&self, json: bool, out: &mut dyn Write) -> Result<(), Failed> {
        let Some(pem) = store::certificate(&self.dir)? else {
            let none = format!(
                "there is no authority at {}; the daemon makes it when it starts first, and `egret \
                 ca trust` does",
                self.dir.display()
            );
            return Err(Failed::Because(none));
        };
        let facts = Facts::of(&pem)?;
        let owner = fs::metadata(&self.dir).is_ok_and(|m| {
            use std::os::unix::fs::MetadataExt as _;
            m.uid() == geteuid().as_raw()
        });
        let problem = if owner || geteuid().is_root() {
            Authority::load(&self.dir).err().map(|e| e.to_string())
        } else {
            None
        };
        let date = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let shown = Shown {
            subject: facts.subject,
            fingerprint_sha256: facts.fingerprint,
            not_before: date(facts.not_before),
            not_after: date(facts.not_after),
            certificate: self.dir.join(CERTIFICATE),
            key: self.dir.join(KEY),
            published: find(&published(), &pem),
            trusted: find(&self.store.file, &pem),
            problem,
        };
        if json {
            json_line(out, &shown)?;
        } else {
            self.print(&shown, out)?;
        }
        if shown.problem.is_some() { Err(Failed::Said) } else { Ok(()) }
    }

    fn print(&self, shown: &Shown, out: &mut dyn Write) -> io::Result<()> {
        let row =
            |name: &str, text: String| vec![(Colour::Dim, name.to_owned()), (Colour::Plain, text)];
        let published = match shown.published {
            Found::Ours => format!("{}", published().display()),
            Found::Other => "another one: restart egret.service".to_owned(),
            Found::None => "not yet: the daemon does it when it starts".to_owned(),
        };
        let trusted = match shown.trusted {
            Found::Ours => format!("{}", self.store.file.display()),
            Found::Other => "another one: run `egret ca trust`".to_owned(),
            Found::None => "by held units only (`egret ca trust` adds it)".to_owned(),
        };
        let mut rows = vec![
            row("subject", shown.subject.clone()),
            row("sha256", shown.fingerprint_sha256.clone()),
            row("valid", format!("{} to {}", shown.not_before, shown.not_after)),
            row("certificate", shown.certificate.display().to_string()),
            row("key", shown.key.display().to_string()),
            row("published", published),
            row("trusted", trusted),
        ];
        if let Some(problem) = &shown.problem {
            rows.push(vec![(Colour::Red, "problem".to_owned()), (Colour::Plain, problem.clone())]);
        }
        table(out, Style::stdout(), &[], &rows)
    }

    fn trust(&self, remove: bool, out: &mut dyn Write) -> Result<(), Failed> {
        if remove {
            let gone = self.store.remove().map_err(|e| self.store_failed(&e))?;
            let file = self.store.file.display();
            match gone {
                true => writeln!(out, "removed {file}")?,
                false => writeln!(out, "{file} was not there")?,
            }
        } else {
            let pem = Authority::load_or_create(&self.dir)?.pem();
            self.store.add(&pem).map_err(|e| self.store_failed(&e))?;
            let facts = Facts::of(&pem)?;
            writeln!(out, "wrote {}: {}", self.store.file.display(), facts.subject)?;
            writeln!(out, "sha256 {}", facts.fingerprint)?;
            let key = self.dir.join(KEY);
            writeln!(out, "every program of this machine trusts what {} signs", key.display())?;
        }
        match self.store.refresh(remove) {
            Ok(Some(command)) => writeln!(out, "ran {command}")?,
            Ok(None) => {
                let command = self.store.command;
                writeln!(out, "{command} is not here: programs see it after you run its like")?;
            }
            Err(why) => return Err(Failed::Because(why)),
        }
        Ok(())
    }

    fn store_failed(&self, error: &io::Error) -> Failed {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "; run as root",
            _ => "",
        };
        Failed::Because(format!("{}: {error}{hint}", self.store.file.display()))
    }

    fn rotate(&self, out: &mut dyn Write) -> Result<(), Failed> {
        let before = store::certificate(&self.dir).ok().flatten().unwrap_or_default();
        let rotated = store::rotate(&self.dir)?;
        let facts = Facts::of(&rotated.authority.pem())?;
        writeln!(out, "new authority in {}: {}", self.dir.display(), facts.subject)?;
        writeln!(out, "sha256 {}", facts.fingerprint)?;
        let Some(kept) = rotated.kept else { return Ok(()) };
        writeln!(out, "the old pair is in {}; remove it when all is well\n", kept.display())?;
        writeln!(out, "Until the daemon is restarted it signs with the old key. In this order:")?;
        writeln!(
            out,
            "  systemctl restart egret.service     signs with the new key, publishes it"
        )?;
        writeln!(
            out,
            "  restart the units that egret holds  they have the old certificate mounted"
        )?;
        if !before.is_empty() && find(&self.store.file, &before) == Found::Ours {
            writeln!(out, "  egret ca trust                      this machine trusts the old one")?;
        }
        Ok(())
    }
}

fn published() -> PathBuf {
    Path::new(TRUST_DIR).join(trust::CA)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        root: tempfile::TempDir,
        place: Place,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let place = Place { dir: root.path().join("state/ca"), store: Store::of(root.path()) };
            Self { root, place }
        }
        fn says(&self, doing: impl Fn(&Place, &mut dyn Write) -> Result<(), Failed>) -> String {
            let mut out = Vec::new();
            match doing(&self.place, &mut out) {
                Ok(()) => {}
                Err(Failed::Said) => out.extend(b"(failed)"),
                Err(Failed::Because(why)) => out.extend(why.bytes()),
            }
            String::from_utf8(out).unwrap()
        }
    }

    #[test]
    fn show_says_where_it_is_and_who_trusts_it() {
        let world = World::new();
        let show = || world.says(|p, out| p.show(false, out));
        assert!(show().contains("there is no authority"), "{}", show());
        let trusted = world.says(|p, out| p.trust(false, out));
        assert!(trusted.contains("every program of this machine trusts"), "{trusted}");
        let shown = show();
        assert!(shown.contains("ca.key") && shown.contains("egret.crt"), "{shown}");
        let json = world.says(|p, out| p.show(true, out));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["trusted"], &json["problem"]), (&"ours".into(), &().into()));
        assert_eq!(json["fingerprint_sha256"].as_str().unwrap().len(), 95);
        assert!(!shown.contains("PRIVATE") && !shown.contains("(failed)"));
    }

    #[test]
    fn show_names_what_is_wrong_with_the_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let world = World::new();
        let key = world.place.dir.join(KEY);
        world.says(|p, out| p.trust(false, out));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let shown = world.says(|p, out| p.show(false, out));
        assert!(shown.contains("problem") && shown.contains("mode 0644"), "{shown}");
        assert!(shown.ends_with("(failed)"));
        assert!(world.says(|p, out| p.trust(false, out)).contains("mode 0644"));
    }

    #[test]
    fn rotation_says_what_to_do_next() {
        let world = World::new();
        let first = world.says(|p, out| p.rotate(out));
        assert!(!first.contains("restart"), "nobody trusts anything yet: {first}");
        let second = world.says(|p, out| p.rotate(out));
        assert!(second.contains("systemctl restart egret.service"), "{second}");
        assert!(!second.contains("egret ca trust"), "it was not trusted: {second}");
        world.says(|p, out| p.trust(false, out));
        let third = world.says(|p, out| p.rotate(out));
        assert!(third.contains("egret ca trust"), "{third}");
        assert!(world.says(|p, out| p.show(false, out)).contains("another one: run `egret ca"));
        assert!(world.root.path().join("state/ca/ca.key").exists());
    }

    #[test]
    fn trust_is_taken_back() {
        let world = World::new();
        let remove = || world.says(|p, out| p.trust(true, out));
        assert!(remove().contains("was not there"));
        world.says(|p, out| p.trust(false, out));
        assert!(world.place.store.file.exists());
        assert!(remove().contains("removed"));
        assert!(!world.place.store.file.exists());
    }
}

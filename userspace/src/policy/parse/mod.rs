//! Pure: from the text of a policy file to a checked [`Policy`], or every error at once.
//!
//! Files that a policy uses are read through a [`Loader`]. Their rules come after the policy's
//! own, in the order of `use`, and their rule names are prefixed with the file's (`npm-readonly:
//! packages`). A file that is used twice counts once; a file that uses itself is an error.

mod bounds;
mod check;
mod credentials;
mod diagnostic;
mod presets;
mod reader;
mod rules;
mod settings;
mod units;

use serde::{Deserialize, Serialize};

pub(crate) use diagnostic::Report;
pub use diagnostic::{Diagnostic, Location, locate};
pub use presets::{PRESETS, preset};
pub(crate) use reader::{Reader, Text, file_table, integer_of};
pub use settings::{CaFile, parse_resolve_target};
pub use units::{parse_duration, parse_size};

use super::{HttpSettings, Local, Mode, Policy, UpstreamSettings};
use credentials::CredentialDraft;
use diagnostic::{is_syntax, nearest};
use rules::RuleDraft;

/// A file that a policy uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedFile {
    /// The same for the same file, however it is named.
    pub id: String,
    /// How errors name it.
    pub file: String,
    /// What its rule names are prefixed with.
    pub prefix: String,
    pub text: String,
}

/// Finds the files that policies use.
pub trait Loader {
    /// `name` as written under `use` in the file `from`.
    ///
    /// # Errors
    /// Why it could not be read, as one clause.
    fn load(&self, from: &str, name: &str) -> Result<UsedFile, String>;
}

/// A [`Loader`] that knows the embedded presets and no files.
#[derive(Clone, Copy, Debug)]
pub struct PresetsOnly;

impl Loader for PresetsOnly {
    fn load(&self, _from: &str, name: &str) -> Result<UsedFile, String> {
        preset(name).ok_or_else(|| unknown_preset(name))
    }
}

/// The message for a preset that does not exist.
pub fn unknown_preset(name: &str) -> String {
    let known: Vec<&str> = PRESETS.iter().map(|(n, _)| *n).collect();
    let help = match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("presets are {}; files are written with .toml", known.join(", ")),
    };
    format!("there is no preset `{}`: {help}", name.escape_debug())
}

/// A policy that parsed, and what is still to be done or said about it.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub policy: Policy,
    pub lints: Vec<Diagnostic>,
    /// To be read into `policy.upstream.ca`.
    pub ca: Vec<CaFile>,
}

/// Parses `text`, which errors call `file`.
///
/// # Errors
/// Every error in it and in the files it uses, in file order.
pub fn parse(file: &str, text: &str, loader: &dyn Loader) -> Result<Parsed, Vec<Diagnostic>> {
    let mut gathered = Gathered::new(loader);
    let own = gathered.own_file(file, text);
    if !gathered.errors.iter().any(is_syntax) {
        let found = check::errors(&gathered.rules, &gathered.credentials, &gathered.declared);
        gathered.errors.extend(found);
    }
    if !gathered.errors.is_empty() {
        let mut errors = gathered.errors;
        errors.sort_by_key(|d| (*d.file != *file, d.clone()));
        errors.dedup();
        return Err(errors);
    }
    let mut lints = gathered.lints;
    lints.extend(check::lints(&gathered.rules, &gathered.credentials));
    let policy = Policy {
        name: own.name.into(),
        mode: own.mode,
        credentials: gathered.credentials.into_iter().map(|c| c.spec).collect(),
        rules: gathered.rules.into_iter().map(|r| r.rule).collect(),
        upstream: own.upstream,
        http: own.http,
        unmatched: own.unmatched,
        local: own.local,
    };
    Ok(Parsed { policy, lints, ca: own.ca })
}

/// What only the policy itself may say.
struct Own {
    name: String,
    mode: Mode,
    upstream: UpstreamSettings,
    http: HttpSettings,
    ca: Vec<CaFile>,
    unmatched: Option<super::UnmatchedNames>,
    local: Local,
}

/// What the policy and all files it uses say together.
struct Gathered<'l> {
    loader: &'l dyn Loader,
    rules: Vec<RuleDraft>,
    credentials: Vec<CredentialDraft>,
    /// The names of all credentials, those with errors included.
    declared: Vec<String>,
    errors: Vec<Diagnostic>,
    lints: Vec<Diagnostic>,
    /// Ids of the files that are being read, outermost first.
    open: Vec<String>,
    /// Ids of the files that have been read.
    done: Vec<String>,
}

/// Deeper nesting of `use` than anyone writes.
const DEEPEST_USE: usize = 16;

impl<'l> Gathered<'l> {
    fn new(loader: &'l dyn Loader) -> Self {
        Self {
            loader,
            rules: Vec::new(),
            credentials: Vec::new(),
            declared: Vec::new(),
            errors: Vec::new(),
            lints: Vec::new(),
            open: Vec::new(),
            done: Vec::new(),
        }
    }

    fn own_file(&mut self, file: &str, text: &str) -> Own {
        let mut report = Report::new(file, text);
        let (table, span) = file_table(text, &mut report);
        let top = Reader { table: &table, span };
        settings::check_top(&top, false, &mut report);
        let (upstream, ca) = settings::upstream(&top, &mut report);
        let own = Own {
            name: name(&top, &mut report).unwrap_or_else(|| stem(file).to_owned()),
            mode: settings::mode(&top, &mut report),
            upstream,
            http: bounds::http(&top, &mut report),
            ca,
            unmatched: settings::dns(&top, &mut report),
            local: settings::local(&top, &mut report),
        };
        settings::session(&top, &mut report);
        self.body(file, "", &top, report);
        own
    }

    fn used_file(&mut self, used: &UsedFile) {
        let mut report = Report::new(&used.file, &used.text);
        let (table, span) = file_table(&used.text, &mut report);
        let top = Reader { table: &table, span };
        settings::check_top(&top, true, &mut report);
        name(&top, &mut report);
        self.body(&used.file, &used.prefix, &top, report);
    }

    /// Rules and credentials of a file, then those of the files it uses.
    fn body(&mut self, file: &str, prefix: &str, top: &Reader<'_, '_>, mut report: Report<'_>) {
        for mut draft in rules::rules(top, &mut report) {
            if !prefix.is_empty() {
                draft.rule.name = format!("{prefix}: {}", draft.rule.name).into();
            }
            self.rules.push(draft);
        }
        self.credentials.extend(credentials::credentials(top, &mut report, &mut self.declared));
        let uses: Vec<(&str, Location)> = top
            .texts("use", &mut report)
            .unwrap_or_default()
            .into_iter()
            .map(|(name, span)| (name, report.locate(&span)))
            .collect();
        report.keep_real();
        self.errors.append(&mut report.errors);
        self.lints.append(&mut report.lints);
        for (name, at) in uses {
            self.follow(file, name, &at);
        }
    }

    fn follow(&mut self, from: &str, name: &str, at: &Location) {
        let used = match self.loader.load(from, name) {
            Ok(used) => used,
            Err(why) => return self.errors.push(at.say(why)),
        };
        if self.open.contains(&used.id) || self.open.len() >= DEEPEST_USE {
            return self.errors.push(at.say(format!("`{name}` is used in a circle")));
        }
        if self.done.contains(&used.id) {
            return;
        }
        self.open.push(used.id.clone());
        self.used_file(&used);
        self.open.pop();
        self.done.push(used.id);
    }
}

const LONGEST_NAME: usize = 100;

fn name(top: &Reader<'_, '_>, report: &mut Report<'_>) -> Option<String> {
    let (name, span) = top.text("name", report)?;
    if name.len() > LONGEST_NAME {
        report.error(&span, format!("`name` has at most {LONGEST_NAME} bytes"));
    }
    Some(name.to_owned())
}

/// The file's name without folder and `.toml`.
pub fn stem(file: &str) -> &str {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.strip_suffix(".toml").unwrap_or(base)
}

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;
